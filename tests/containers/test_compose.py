"""compose.yaml against mesh.toml and the design; and each rule against a compose.yaml that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reading
import rules
import topology

pytest_plugins = ["container_fixtures"]
Model = dict[str, Any]
Breaks = Callable[[Model], object]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_compose_keeps_the_rule(rule: rules.Rule, model: Model) -> None:
    wrong = list(rule(model))
    assert not wrong, "compose.yaml: " + "; ".join(wrong)


def test_every_pair_that_must_speak_shares_a_network(model: Model) -> None:
    """Bus, HTTP through the gateway, the dashboard's two sources, spans: each edge of the design exists."""
    members = {name: set(service.get("networks") or {}) for name, service in model["services"].items()}
    on_the_bus = [name for name in rules.parts(model) if name not in ("broker", "dashboard")]
    edges = [(name, "broker") for name in on_the_bus]
    edges += [("gateway", name) for name in (*topology.SERVICES, "auth", "control")]
    edges += [("control", name) for name in (*topology.SERVICES, "auth", "broker", "gateway")]
    edges += [(name, topology.COLLECTOR) for name in on_the_bus]
    edges += [("dashboard", name) for name in ("gateway", topology.COLLECTOR) if "dashboard" in members]
    for one, other in edges:
        assert members[one] & members[other], f"{one} cannot reach {other}"


# ---- the control cases -------------------------------------------------------------------------------------------


def _service(name: str) -> Callable[[Model], Model]:
    return lambda model: model["services"][name]


orders, gateway, control, setup, jaeger = map(_service, ("orders", "gateway", "control", "setup", "jaeger"))


def _mount(source: str, target: str, kind: str = "volume", **more: Any) -> Model:
    return {"type": kind, "source": source, "target": target, **more}


def _bind(source: str, target: str) -> Model:
    return _mount(source, target, "bind", read_only=True)


PLANTED: dict[str, tuple[str, Breaks]] = {
    "a part is missing": ("the_same_parts", lambda m: m["services"].pop("sales")),
    "a service that the page does not know": ("the_same_parts", lambda m: m["services"].update(cache=orders(m))),
    "built from the whole repository": (
        "own_build_context", lambda m: orders(m)["build"].update(context=str(reading.REPOSITORY))),
    "built from a sibling's folder": (
        "own_build_context",
        lambda m: orders(m)["build"].update(context=str(reading.REPOSITORY / "services/sales"))),
    "a sibling's code as an additional context": (
        "own_build_context",
        lambda m: orders(m)["build"]["additional_contexts"].update(sales=str(reading.REPOSITORY / "services/sales"))),
    "another Dockerfile": ("own_build_context", lambda m: orders(m)["build"].update(dockerfile="Dockerfile.fast")),
    "another collector": ("the_official_collector", lambda m: jaeger(m).update(image="jaegertracing/jaeger:latest")),
    "the collector's settings are not there": (
        "the_official_collector", lambda m: jaeger(m).update(command=["--config", "/etc/jaeger/other.yaml"])),
    "the collector listens to itself alone": (
        "the_official_collector", lambda m: jaeger(m).update(environment={})),
    "a sibling on a service's network": (
        "no_sibling_in_reach", lambda m: orders(m)["networks"].update(inventory=None)),
    "a network for all services": (
        "networks_as_designed",
        lambda m: (m["networks"].update(all={}), [p["networks"].update(all=None) for p in rules.parts(m).values()])),
    "a service on the front": ("networks_as_designed", lambda m: orders(m)["networks"].update(front=None)),
    "a service without its network": ("networks_as_designed", lambda m: orders(m)["networks"].clear()),
    "a network that reaches the world": (
        "services_cannot_call_out", lambda m: m["networks"]["orders"].update(internal=False)),
    "the host's own network": ("services_cannot_call_out", lambda m: orders(m).update(network_mode="host")),
    "a service's port published": (
        "ports_of_three_on_loopback",
        lambda m: orders(m).update(ports=[{"target": 8000, "published": "8000", "host_ip": "127.0.0.1"}])),
    "published on every address": (
        "ports_of_three_on_loopback", lambda m: gateway(m)["ports"][0].pop("host_ip")),
    "published at another port": (
        "ports_of_three_on_loopback", lambda m: gateway(m)["ports"][0].update(published="80")),
    "two parts on one data volume": (
        "volumes_have_one_owner", lambda m: orders(m)["volumes"].append(_mount("data-sales", "/sales"))),
    "one data volume for all": (
        "volumes_have_one_owner",
        lambda m: [one["volumes"][0].update(source="data") for one in rules.parts(m).values()]),
    "keys of another part": (
        "volumes_have_one_owner",
        lambda m: orders(m)["volumes"].append(_mount("keys-gateway", "/atoll/keys/gateway", read_only=True))),
    "keys that can be written": (
        "volumes_have_one_owner", lambda m: [one.update(read_only=False) for one in orders(m)["volumes"]]),
    "another part's agent": (
        "volumes_have_one_owner",
        lambda m: orders(m)["volumes"].append(_mount("run-payments", "/atoll/agents/payments"))),
    "control without a part's agent": ("volumes_have_one_owner", lambda m: control(m)["volumes"].pop()),
    "setup forgets a part's keys": ("volumes_have_one_owner", lambda m: setup(m)["volumes"].pop()),
    "a volume that nobody declared": ("volumes_have_one_owner", lambda m: m["volumes"].pop("data-orders")),
    "a folder of the host": (
        "volumes_have_one_owner", lambda m: orders(m)["volumes"].append(_bind("/home", "/home"))),
    "the engine's socket": (
        "no_engine_socket", lambda m: control(m)["volumes"].append(_bind("/var/run/docker.sock", "/docker.sock"))),
    "the folder of the engine's socket": (
        "no_engine_socket", lambda m: control(m)["volumes"].append(_bind("/var/run", "/host"))),
    "the engine over TCP": (
        "no_engine_socket", lambda m: control(m).update(environment={"DOCKER_HOST": "tcp://10.0.0.1:2375"})),
    "a run volume that others can read": (
        "run_volumes_lie_in_memory", lambda m: m["volumes"]["run-orders"]["driver_opts"].update(o="mode=0777")),
    "a setting beside mesh.toml": (
        "told_by_the_agent_alone",
        lambda m: orders(m).update(environment={"ORDERS_SAGA_DEADLINE_SECONDS": "5"})),
    "a part without the page": ("told_by_the_agent_alone", lambda m: orders(m).pop("configs")),
    "another page": ("told_by_the_agent_alone", lambda m: m["configs"]["mesh"].update(file="/tmp/mesh.toml")),
    "another name": ("told_by_the_agent_alone", lambda m: orders(m).pop("hostname")),
    "another command": (
        "told_by_the_agent_alone", lambda m: orders(m).update(command=["python", "-m", "atoll_orders"])),
    "a part as root": ("least_privilege", lambda m: orders(m).pop("user")),
    "a capability": ("least_privilege", lambda m: orders(m).update(cap_add=["NET_RAW"])),
    "capabilities kept": ("least_privilege", lambda m: orders(m).pop("cap_drop")),
    "privileged": ("least_privilege", lambda m: control(m).update(privileged=True)),
    "the host's processes": ("least_privilege", lambda m: control(m).update(pid="host")),
    "a root file system to write on": ("least_privilege", lambda m: orders(m).update(read_only=False)),
    "new privileges": ("least_privilege", lambda m: orders(m).pop("security_opt")),
    "no limit of memory": ("bounded", lambda m: orders(m).pop("mem_limit")),
    "no limit of processes": ("bounded", lambda m: orders(m).pop("pids_limit")),
    "logs without an end": ("bounded", lambda m: orders(m).pop("logging")),
    "a part that waits for another": (
        "waits_for_keys_alone",
        lambda m: orders(m)["depends_on"].update(broker={"condition": "service_healthy", "required": True})),
    "a part that does not wait for its keys": ("waits_for_keys_alone", lambda m: orders(m).pop("depends_on")),
    "killed as it drains": ("ends_and_returns", lambda m: orders(m).update(stop_grace_period="5s")),
    "never started again": ("ends_and_returns", lambda m: orders(m).pop("restart")),
    "a health check that proves nothing": (
        "health_is_looked_at", lambda m: orders(m).update(healthcheck={"test": ["CMD", "true"]})),
    "no health check": ("health_is_looked_at", lambda m: orders(m).update(healthcheck={"disable": True})),
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_violation_is_reported(planted: str, model: Model) -> None:
    rule, breaks = PLANTED[planted]
    breaks(model)
    assert rule in rules.violations(model), f"{planted}: no rule minds; broken: {rules.violations(model)}"


def test_every_rule_has_a_planted_violation() -> None:
    assert {rule for rule, _ in PLANTED.values()} == {rule.__name__ for rule in rules.RULES}


def test_the_parser_is_composes_own_and_strict(tmp_path: Path) -> None:
    text = reading.COMPOSE.read_text()
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(text.replace("read_only: true", "readonly: true", 1))
    with pytest.raises(reading.Unreadable, match="readonly"):
        reading.compose(wrong)
    wrong.write_text(text.replace("- data-orders:/atoll/data", "- data-orders2:/atoll/data"))
    with pytest.raises(reading.Unreadable, match="data-orders2"):
        reading.compose(wrong)
