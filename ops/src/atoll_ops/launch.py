"""Starting the process of a slot: its command, its environment, its log, its lock.

The process contract in one place: what a part is told, and nothing else of the user's environment, so that a part runs
the same whoever started it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from atoll_ops import keys
from atoll_ops.environments import Environment, Workshop
from atoll_ops.mesh import Mesh, Part
from atoll_ops.ports import Ports
from atoll_ops.site import Host, Site
from atoll_ops.slots import Slot
from atoll_ops.state import State

#: A log above this size is put aside, one generation, whether or not its process goes on.
LOG_BYTES_MAX = 8 * 1024 * 1024
#: Of the user's environment a part sees these, where they are set, and variables that begin with a prefix below.
_PASSED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "OTEL_SDK_DISABLED", "ATOLL_LOG_LEVEL")
_PASSED_PREFIXES = ("SSL_", "LC_")
#: Whoever brings Jaeger sees further what leads to a mirror, through a proxy, to a cache, or tells Go what it may do.
_PASSED_TO_JAEGER = ("XDG_CACHE_HOME", "ATOLL_RELEASES_URL", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
_PASSED_TO_JAEGER_PREFIXES = ("GO",)
_MESH_READERS = (keys.BROKER, keys.GATEWAY, keys.CONTROL)


@dataclass(frozen=True)
class Plan:
    """What is to run, and where: fixed for the life of an agent."""

    root: Path
    state: State
    mesh: Mesh
    ports: Ports
    jaeger: str = ""  # query URL of somebody's Jaeger, given by --jaeger; empty: our own part, if the page has it
    site: Site = field(default=None)  # type: ignore[assignment]  # None: this host

    def __post_init__(self) -> None:
        if self.site is None:
            object.__setattr__(self, "site", Host(self.root, self.state, self.ports, self.jaeger))

    def workshop(self) -> Workshop:
        """Where the environments are."""
        return Workshop(self.root)

    def environments(self) -> list[Environment]:
        """The environments that the parts need, each once."""
        return environments(self.mesh)


def environments(mesh: Mesh) -> list[Environment]:
    """What the parts of a page run in. A part with its own command brings its own; Jaeger's runner runs in ours."""
    folders = {part.folder: part for part in mesh.parts.values() if not part.command and part.name != keys.JAEGER}
    return [Environment.of(folder) for folder in folders]


def variables(plan: Plan, part: Part, slot: Slot) -> dict[str, str]:
    """The whole environment of a part's process."""
    passed = _passed(part)
    contract = {
        "ATOLL_SLOT": str(slot),
        "ATOLL_HOST": plan.site.listen,
        "ATOLL_PORT": str(plan.ports.parts[part.name]),
        "ATOLL_DATA": str(plan.state.private(slot.name, slot.instance)),
        "ATOLL_KEYS": str(plan.state.keys / part.name),
        "OTEL_EXPORTER_OTLP_ENDPOINT": plan.site.collector,
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # the project folder is a place to read contracts from, not to import from
    }
    if part.name not in keys.NOT_ON_THE_BUS:
        contract["ATOLL_BUS"] = plan.site.bus(part.name)
    if part.name in _MESH_READERS:
        contract["ATOLL_MESH"] = str(plan.mesh.path)
    if part.name == keys.CONTROL:
        contract["ATOLL_RUN"] = str(plan.state.run)  # where the agent's socket is, and its own goes
        contract["ATOLL_AGENTS"] = str(plan.state.agents)  # the agents of other containers, where there are any
    if part.name == keys.DASHBOARD:
        contract["ATOLL_GATEWAY"] = plan.site.gateway
        contract["ATOLL_JAEGER"] = plan.site.jaeger
        contract["ATOLL_JAEGER_PAGES"] = plan.site.jaeger_pages
    if part.name == keys.JAEGER:
        contract |= _jaegers_ports(plan)
    return {"ATOLL_LOG_LEVEL": "info"} | passed | contract | part.settings


def _passed(part: Part) -> dict[str, str]:
    """What a part sees of the user's environment."""
    brings = part.name == keys.JAEGER
    names = {*_PASSED, *(_PASSED_TO_JAEGER if brings else ())}
    prefixes = (*_PASSED_PREFIXES, *(_PASSED_TO_JAEGER_PREFIXES if brings else ()))
    return {
        name: value
        for name, value in os.environ.items()
        if name.upper() in names or (name.startswith(prefixes) and not name.startswith("GOOGLE"))
    }


def _jaegers_ports(plan: Plan) -> dict[str, str]:
    """What observability/jaeger/jaeger.yaml is told."""
    return {
        "JAEGER_HOST": plan.site.listen,
        "JAEGER_HEALTH_PORT": str(plan.ports.parts[keys.JAEGER]),
        "JAEGER_QUERY_PORT": str(plan.ports.jaeger),
        "JAEGER_OTLP_GRPC_PORT": str(plan.ports.otlp_grpc),
        "JAEGER_OTLP_HTTP_PORT": str(plan.ports.otlp_http),
    }


def spawn(plan: Plan, part: Part, slot: Slot, lock: int) -> subprocess.Popen[bytes]:
    """Start the process of a slot as leader of a session and group of its own; it inherits the lock's descriptor.

    Its output goes where the site says: on a host to a file and never through a pipe, since a pipe would break with the
    agent, and the part with the pipe. Raises OSError where the command cannot be run.
    """
    log = open_log(plan.site.log(slot))
    try:
        return subprocess.Popen(
            plan.site.command(part), cwd=plan.site.folder(part), env=variables(plan, part, slot),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=(lock,),
        )  # fmt: skip
    finally:
        os.close(log)


def open_log(path: Path | None) -> int:
    """A log to write to, opened for appending and bounded; without a path, our own output."""
    if path is None:
        return os.dup(1)
    bound_log(path)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def bound_log(log: Path) -> None:
    """Put a log aside that has grown too large. Its process has it open for appending, so it is copied and emptied, and
    the process goes on at its new end; a line written in between is lost, which a full disk would cost as well.
    """
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_BYTES_MAX:
            aside = log.with_suffix(".log.1")
            aside.unlink(missing_ok=True)
            shutil.copy(log, aside)  # with its mode: nobody else's to read
            os.truncate(log, 0)
