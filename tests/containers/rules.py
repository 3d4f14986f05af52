"""What must hold of compose.yaml: each rule a function over the model that compose reads, giving what is wrong.

Expectations are written by hand in tests/topology.py, or follow from mesh.toml. That a rule can fail at all is shown
in test_compose.py, which breaks the model once for each way that matters.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import topology
from reading import REPOSITORY

Model = dict[str, Any]
Rule = Callable[[Model], Iterator[str]]

SETUP = "setup"
JAEGER_IMAGE = "jaegertracing/jaeger:2.13.0"
USER = "10001:10001"
#: What an agent may take to drain a part, insist and end it (ops/: DRAIN_SECONDS + INSIST_SECONDS, then SIGKILL).
STOP_SECONDS_MIN = 16.0
_MIB = 1024 * 1024
_SECRET_ENDINGS = (".sock", "/docker", "/run", "/var/run", "/proc", "/sys", "/dev", "/")


def mesh() -> dict[str, Any]:
    """mesh.toml's parts that this house builds: all but the tools, which bring images of their own."""
    parts: dict[str, Any] = tomllib.loads((REPOSITORY / "mesh.toml").read_text())["part"]
    return {name: part for name, part in parts.items() if part.get("kind") != "tool"}


def parts(model: Model) -> dict[str, Model]:
    """The services that are parts: not `setup`, which ends, nor the collector, which is somebody else's image."""
    return {name: one for name, one in model["services"].items() if name not in (SETUP, topology.COLLECTOR)}


# ---- what there is -----------------------------------------------------------------------------------------------


def the_same_parts(model: Model) -> Iterator[str]:
    """Every part of mesh.toml is a service, and nothing else is but setup and the collector."""
    wanted, found = {*mesh(), SETUP, topology.COLLECTOR}, set(model["services"])
    yield from (f"{name}: in mesh.toml, and no service" for name in sorted(wanted - found))
    yield from (f"{name}: a service that mesh.toml does not know" for name in sorted(found - wanted))


def own_build_context(model: Model) -> Iterator[str]:
    """A part is built from its own folder, with the SDKs and the agent beside it and nothing else of the repository."""
    folders = {name: part["path"] for name, part in mesh().items()} | {SETUP: "ops"}
    beside = {"atoll": "sdk/atoll", "atoll-token": "sdk/atoll-token", "ops": "ops"}
    for name, service in {**parts(model), SETUP: model["services"][SETUP]}.items():
        build = service.get("build") or {}
        if Path(build.get("context", "")) != REPOSITORY / folders.get(name, name):
            yield f"{name}: build.context is {build.get('context')}, expected its own folder {folders.get(name)}"
        if build.get("dockerfile") != "Dockerfile" or build.get("target"):
            yield f"{name}: build.dockerfile: expected its folder's own, whole"
        given = {key: Path(path) for key, path in build.get("additional_contexts", {}).items()}
        if given != {key: REPOSITORY / path for key, path in beside.items()}:
            yield f"{name}: build.additional_contexts: expected {', '.join(beside)}, not {given}"
        if extra := set(build) - {"context", "dockerfile", "additional_contexts"}:
            yield f"{name}: build: {', '.join(sorted(extra))}: expected nothing more"


def the_official_collector(model: Model) -> Iterator[str]:
    """Jaeger is the official image with this house's settings, read-only."""
    service = model["services"].get(topology.COLLECTOR, {})
    if service.get("image") != JAEGER_IMAGE or service.get("build"):
        yield f"jaeger: image is {service.get('image')}, expected {JAEGER_IMAGE}, not built"
    given = [word for word in service.get("command") or [] if word != "--config"]
    binds = [mount for mount in service.get("volumes", []) if mount["type"] == "bind"]
    mounted = {mount["target"]: Path(mount["source"]) for mount in binds}
    for path in given:
        folder = str(PurePosixPath(path).parent)
        if folder not in mounted or not (mounted[folder] / PurePosixPath(path).name).is_file():
            yield f"jaeger: --config {path}: there is no such file in what is mounted"
    if service.get("environment", {}).get("JAEGER_HOST") != "0.0.0.0":
        yield "jaeger: JAEGER_HOST: expected 0.0.0.0, or it listens to itself alone"


# ---- who can reach whom ------------------------------------------------------------------------------------------


def networks_as_designed(model: Model) -> Iterator[str]:
    """Exactly the networks of tests/topology.py, with exactly their members."""
    found: dict[str, set[str]] = {name: set() for name in model.get("networks", {})}
    for name, service in model["services"].items():
        for network in service.get("networks") or {}:
            found.setdefault(network, set()).add(name)
    for network in sorted({*found, *topology.CONTAINER_NETWORKS}):
        wanted = topology.CONTAINER_NETWORKS.get(network)
        if wanted is None:
            yield f"network {network}: expected none of that name (its members: {sorted(found[network])})"
        elif found.get(network) != wanted:
            yield f"network {network}: its members are {sorted(found.get(network, ()))}, expected {sorted(wanted)}"


def no_sibling_in_reach(model: Model) -> Iterator[str]:
    """Two services share no network; nor do the dashboard and anything but gateway and collector."""
    members = {name: set(service.get("networks") or {}) for name, service in model["services"].items()}
    for one, other in itertools.combinations(sorted(topology.SERVICES), 2):
        for network in sorted(members.get(one, set()) & members.get(other, set())):
            yield f"{one} and {other} share the network {network}: they could call each other past the bus"
    for name, networks in sorted(members.items()):
        if name not in ("dashboard", "gateway", topology.COLLECTOR) and networks & members.get("dashboard", set()):
            yield f"the dashboard reaches {name}: it acts through the gateway alone"


def services_cannot_call_out(model: Model) -> Iterator[str]:
    """A network that no browser needs is internal: what is taken over inside cannot call home from it."""
    for name, network in model.get("networks", {}).items():
        if bool(network.get("internal")) == (name == topology.FRONT):
            yield f"network {name}: internal is {network.get('internal', False)}, expected {name != topology.FRONT}"
        if network.get("external") or network.get("driver") in ("host", "macvlan", "ipvlan"):
            yield f"network {name}: expected one of this project's own, on a bridge"
    for name, service in model["services"].items():
        mode = service.get("network_mode")
        if mode and not (name == SETUP and mode == "none"):
            yield f"{name}: network_mode is {mode}, expected its networks alone"
        if service.get("links") or service.get("extra_hosts"):
            yield f"{name}: links, extra_hosts: expected names of its networks alone"


def ports_of_three_on_loopback(model: Model) -> Iterator[str]:
    """Gateway, dashboard and Jaeger's pages are published on 127.0.0.1, at the port they listen on; nothing else is."""
    published = {name: port for name, port in topology.PUBLISHED.items() if name in model["services"]}
    for name, service in model["services"].items():
        ports = service.get("ports") or []
        for port in ports:
            if port.get("host_ip") != "127.0.0.1":
                yield f"{name}: port {port.get('published')} is published on {port.get('host_ip') or 'every address'}"
        found = sorted((str(port.get("published")), port.get("target")) for port in ports)
        wanted = [(str(published[name]), published[name])] if name in published else []
        if found != wanted:
            yield f"{name}: publishes {found}, expected {wanted or 'nothing'}"


# ---- what each has -----------------------------------------------------------------------------------------------


def volumes_have_one_owner(model: Model) -> Iterator[str]:
    """Data by its part alone; keys by their part, read-only, and setup; a run volume by its part and control."""
    for name, service in model["services"].items():
        found = {mount["target"]: _described(mount) for mount in service.get("volumes") or []}
        wanted = _mounts(name)
        for target in sorted({*found, *wanted}):
            if found.get(target) != wanted.get(target):
                yield f"{name}: {target} is {found.get(target)}, expected {wanted.get(target)}"
    declared = {*model.get("volumes", {})}
    wanted_volumes = {SETUP} | {f"{kind}-{part}" for kind in ("data", "keys", "run") for part in mesh()}
    for volume in sorted(declared ^ wanted_volumes):
        yield f"volume {volume}: {'expected none' if volume in declared else 'is not declared'}"


def _mounts(name: str) -> dict[str, str]:
    """Target -> what must be there, for a service."""
    if name == SETUP:
        return {"/atoll": "setup"} | {f"/atoll/keys/{part}": f"keys-{part}" for part in mesh()}
    if name == topology.COLLECTOR:
        return {"/etc/jaeger": "observability/jaeger, read-only"}
    own = {
        "/atoll/data": f"data-{name}", "/atoll/run": f"run-{name}", f"/atoll/keys/{name}": f"keys-{name}, read-only"
    }  # fmt: skip
    others = {f"/atoll/agents/{part}": f"run-{part}" for part in mesh() if part != "control"}
    return own | (others if name == "control" else {})


def _described(mount: dict[str, Any]) -> str:
    source = str(mount.get("source", "nothing"))
    if mount["type"] == "bind":
        path = Path(source)
        source = str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else f"the host's {source}"
    return source + (", read-only" if mount.get("read_only") else "")


def no_engine_socket(model: Model) -> Iterator[str]:
    """Nobody has the engine's socket, or any folder of the host in which one lies."""
    for name, service in model["services"].items():
        for mount in service.get("volumes") or []:
            source = str(mount.get("source", ""))
            if mount["type"] == "bind" and source.endswith(_SECRET_ENDINGS):
                yield f"{name}: mounts the host's {source}"
        if "DOCKER_HOST" in (service.get("environment") or {}) or service.get("use_api_socket"):
            yield f"{name}: is told of the engine's socket"


def run_volumes_lie_in_memory(model: Model) -> Iterator[str]:
    """Sockets and locks: for the parts' user alone, and gone with the last container that has them."""
    for part in mesh():
        options = model.get("volumes", {}).get(f"run-{part}", {}).get("driver_opts", {})
        if options.get("type") != "tmpfs" or "uid=10001,gid=10001,mode=0700" not in options.get("o", ""):
            yield f"volume run-{part}: expected a tmpfs of uid 10001, mode 0700, not {options}"


def told_by_the_agent_alone(model: Model) -> Iterator[str]:
    """mesh.toml is mounted, the hostname is the part's name, and neither environment nor command say more."""
    for name, service in {**parts(model), SETUP: model["services"][SETUP]}.items():
        configs = [(one.get("source"), one.get("target")) for one in service.get("configs") or []]
        if configs != [("mesh", "/etc/atoll/mesh.toml")]:
            yield f"{name}: configs are {configs}, expected mesh.toml at /etc/atoll/mesh.toml"
        if service.get("environment"):
            yield f"{name}: environment {sorted(service['environment'])}: expected none; settings belong into mesh.toml"
        if service.get("entrypoint") or (service.get("command") and name != SETUP):
            yield f"{name}: command: expected its image's"
        if name != SETUP and service.get("hostname") != name:
            yield f"{name}: hostname is {service.get('hostname')}: it would announce itself under a name nobody finds"
    if Path(model.get("configs", {}).get("mesh", {}).get("file", "")) != REPOSITORY / "mesh.toml":
        yield "configs.mesh: expected ./mesh.toml"


# ---- what each may -----------------------------------------------------------------------------------------------


def least_privilege(model: Model) -> Iterator[str]:
    """No root, no capability, nothing gained by a setuid file, nothing written but where it says."""
    for name, service in model["services"].items():
        user, added = ("0:0", ["CHOWN", "SETGID", "SETUID"]) if name == SETUP else (USER, [])
        if service.get("user") != user:
            yield f"{name}: user is {service.get('user')}, expected {user}"
        if sorted(service.get("cap_add") or []) != added:
            yield f"{name}: cap_add is {service.get('cap_add')}, expected {added or 'none'}"
        if service.get("cap_drop") != ["ALL"]:
            yield f"{name}: cap_drop is {service.get('cap_drop')}, expected ALL"
        if not service.get("read_only"):
            yield f"{name}: read_only: expected true"
        if service.get("security_opt") != ["no-new-privileges:true"]:
            yield f"{name}: security_opt is {service.get('security_opt')}, expected no-new-privileges alone"
        for field in ("privileged", "devices", "pid", "ipc", "uts", "userns_mode", "cgroup", "volumes_from", "sysctls"):
            if service.get(field):
                yield f"{name}: {field}: expected none"


def bounded(model: Model) -> Iterator[str]:
    """Memory, processes, logs and /tmp have limits, so that one part's excess is its own."""
    for name, service in model["services"].items():
        memory = int(service.get("mem_limit") or 0)
        if not 64 * _MIB <= memory <= 1024 * _MIB:
            yield f"{name}: mem_limit is {memory}, expected 64 MiB to 1 GiB"
        if not 0 < int(service.get("pids_limit") or 0) <= 512:
            yield f"{name}: pids_limit is {service.get('pids_limit')}, expected 1 to 512"
        options = (service.get("logging") or {}).get("options") or {}
        if not (options.get("max-size") and options.get("max-file")):
            yield f"{name}: logging: expected max-size and max-file"
        for place in service.get("tmpfs") or []:
            if "size=" not in place:
                yield f"{name}: tmpfs {place}: expected a size"


def waits_for_keys_alone(model: Model) -> Iterator[str]:
    """No part waits for another, or it would not start without it; all wait for setup, the collector for nobody."""
    for name, service in model["services"].items():
        waits = {other: how["condition"] for other, how in (service.get("depends_on") or {}).items()}
        wanted = {} if name in (SETUP, topology.COLLECTOR) else {SETUP: "service_completed_successfully"}
        if waits != wanted:
            yield f"{name}: depends_on is {waits}, expected {wanted}"


def ends_and_returns(model: Model) -> Iterator[str]:
    """Time to drain, and a restart whatever ended it; setup ends once."""
    for name, service in model["services"].items():
        wanted = "no" if name == SETUP else "unless-stopped"
        if service.get("restart") != wanted:
            yield f"{name}: restart is {service.get('restart')}, expected {wanted}"
        if name != SETUP and seconds(service.get("stop_grace_period", "10s")) < STOP_SECONDS_MIN:
            yield f"{name}: stop_grace_period is {service.get('stop_grace_period')}: it would be killed as it drains"
        if service.get("stop_signal") not in (None, "SIGTERM"):
            yield f"{name}: stop_signal: expected SIGTERM"


def health_is_looked_at(model: Model) -> Iterator[str]:
    """The image's own health check stays (the collector's has none, so it gets one); setup, which ends, has none."""
    for name, service in model["services"].items():
        check = service.get("healthcheck")
        if name == SETUP:
            if not (check or {}).get("disable"):
                yield "setup: healthcheck: expected none, it ends"
        elif name == topology.COLLECTOR:
            if not check or "http://127.0.0.1:13133/status" not in check.get("test", []):
                yield "jaeger: healthcheck: expected one of its health extension"
        elif check:
            yield f"{name}: healthcheck: expected its image's"


def seconds(text: str) -> float:
    """A duration as compose writes it, such as 1m20s."""
    minutes, _, rest = text.rpartition("m")
    return float(minutes or 0) * 60 + float(rest.rstrip("s") or 0)


RULES: tuple[Rule, ...] = (
    the_same_parts, own_build_context, the_official_collector,
    networks_as_designed, no_sibling_in_reach, services_cannot_call_out, ports_of_three_on_loopback,
    volumes_have_one_owner, no_engine_socket, run_volumes_lie_in_memory, told_by_the_agent_alone,
    least_privilege, bounded, waits_for_keys_alone, ends_and_returns, health_is_looked_at,
)  # fmt: skip


def violations(model: Model) -> dict[str, list[str]]:
    """Rule -> what is wrong by it, for the rules that are broken."""
    found = {rule.__name__: list(rule(model)) for rule in RULES}
    return {name: texts for name, texts in found.items() if texts}
