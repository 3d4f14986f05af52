"""Who may say what: everything that mesh.toml does not grant is refused, and the answer names it."""

from __future__ import annotations

from typing import Any

import pytest
from bus_helpers import CAPTURED, MESH, PLACED, Client, hello

from atoll_broker import grants
from atoll_broker.testing import MemoryBroker


def endpoints(prefix: str = "/shop", path: str = "/shop/{id}", scope: str | None = "shop:read") -> dict[str, Any]:
    routes = [{"method": "GET", "path": path, "scope": scope}]
    return {"url": "http://127.0.0.1:1", "prefixes": [prefix], "routes": routes, "openapi": {}}


@pytest.mark.parametrize(
    ("identity", "change", "code", "field"),
    [
        ("stranger", {}, "ACL", None),
        ("broker", {}, "ACL", None),
        ("shop", {"slot": "bank/1"}, "ACL", "slot"),
        ("shop", {"producer": "bank/box"}, "ACL", "producer"),
        ("shop", {"contracts": {"publishes": {CAPTURED: {}}}}, "ACL", f"contracts.publishes.{CAPTURED}"),
        ("shop", {"contracts": {"publishes": {"shopping.order.placed.v1": {}}}}, "ACL", None),
        ("mail", {"contracts": {"publishes": {PLACED: {}}}}, "ACL", f"contracts.publishes.{PLACED}"),
        ("mail", {"contracts": {"consumes": [PLACED, CAPTURED]}}, "ACL", "contracts.consumes[1]"),
        ("shop", {"endpoints": endpoints(prefix="/auth")}, "ACL", "endpoints.prefixes[0]"),
        ("bank", {"endpoints": endpoints()}, "ACL", "endpoints.prefixes[0]"),
        ("bank", {"endpoints": endpoints() | {"prefixes": [], "routes": []}}, "ACL", "endpoints"),
        ("shop", {"endpoints": endpoints() | {"openapi": {"x": "y" * 131_072}}}, "CONTRACT", "endpoints.openapi"),
        ("shop", {"endpoints": endpoints(scope=None)}, "ACL", "endpoints.routes[0].scope"),
        ("shop", {"endpoints": endpoints(path="/shopping")}, "CONTRACT", "endpoints.routes[0].path"),
    ],
)
def test_hello_beyond_the_grant_is_refused(identity: str, change: dict[str, Any], code: str, field: str | None) -> None:
    broker = MemoryBroker(MESH)
    peer = broker.connect(identity)
    peer.say("HELLO", **(hello(identity) | change))
    (error,) = peer.heard()
    assert (error["code"], error["closes"]) == (code, True)
    if field is not None:
        assert error["field"] == field
    assert len(broker.core.sessions) == 0


@pytest.mark.parametrize("change", [{"endpoints": endpoints()}, {"endpoints": endpoints(path="/shop")}, {}])
def test_hello_within_the_grant_is_welcome(change: dict[str, Any]) -> None:
    assert Client(MemoryBroker(MESH), "shop", **change).welcome["command"] == "WELCOME"


def test_a_public_route_needs_the_grant_and_auth_has_it() -> None:
    offered = endpoints("/auth", "/auth/token", None)
    assert Client(MemoryBroker(MESH), "auth", endpoints=offered).welcome["boot"] == 1


COMMANDS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("SUB", {"group": "bank", "topics": [PLACED], "max_in_flight": 1}, {"bank"}),
    ("SUB", {"group": "mail", "topics": [PLACED], "max_in_flight": 1}, {"mail"}),
    ("WATCH", {"kind": "registry"}, {"gateway", "control"}),
    ("WATCH", {"kind": "keys"}, {"gateway"}),
    ("WATCH", {"kind": "revocations"}, {"gateway"}),
    ("PUT", {"kind": "keys", "value": 1, "request": "r"}, {"auth"}),
    ("PUT", {"kind": "revocations", "value": 1}, {"auth"}),
    ("ADMIN", {"request": "r", "verb": "groups"}, {"control"}),
    ("ADMIN", {"request": "r", "verb": "dlq.list", "group": "bank"}, {"control"}),
]


@pytest.mark.parametrize(("command", "header", "allowed"), COMMANDS)
@pytest.mark.parametrize("identity", ["shop", "bank", "mail", "auth", "gateway", "control"])
def test_each_command_is_for_whom_it_is_granted(
    identity: str, command: str, header: dict[str, Any], allowed: set[str]
) -> None:
    client = Client(MemoryBroker(MESH), identity)
    answers = client.say(command, **header)
    if identity in allowed:
        assert [answer["command"] for answer in answers] in (["SUBOK"], ["STATE"], ["RESULT"])
    else:
        assert [(a["code"], a["closes"], a["request"]) for a in answers] == [("ACL", False, header.get("request"))]
        assert client.say("PING")[0]["command"] == "PONG"


@pytest.mark.parametrize(
    ("command", "header", "code", "field"),
    [
        ("SUB", {"group": "nobody", "topics": [PLACED], "max_in_flight": 1}, "GROUP", "group"),
        ("SUB", {"group": "bank", "topics": [PLACED, CAPTURED], "max_in_flight": 1}, "ACL", "topics[1]"),
        ("CREDIT", {"group": "bank", "events": 1, "bytes": 1}, "GROUP", "group"),
        ("ACK", {"group": "bank", "done": [[1, 1]]}, "GROUP", "group"),
        ("DRAIN", {"group": "bank"}, "GROUP", "group"),
    ],
)
def test_a_group_must_be_declared_and_joined(command: str, header: dict[str, Any], code: str, field: str) -> None:
    answer = Client(MemoryBroker(MESH), "bank").say(command, **header)[0]
    assert (answer["code"], answer["field"], answer["closes"]) == (code, field, False)


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ({"verb": "dance"}, "verb"),
        ({"verb": "dlq.list"}, "group"),
        ({"verb": "dlq.replay", "group": "bank"}, "subject"),
    ],
)
def test_a_wrong_admin_verb_is_named(header: dict[str, Any], field: str) -> None:
    answer = Client(MemoryBroker(MESH), "control").say("ADMIN", request="r-1", **header)[0]
    assert (answer["code"], answer["field"], answer["request"]) == ("VERB", field, "r-1")


@pytest.mark.parametrize(
    ("pattern", "topic", "fits"),
    [
        ("shop.*", "shop.order.placed.v1", True),
        ("shop.*", "shopping.order.placed.v1", False),
        ("shop.order.*", "shop.order.placed.v1", True),
        ("shop.order.placed.v1", "shop.order.placed.v1", True),
        ("shop.order.placed.v1", "shop.order.placed.v12", False),
        ("*", "shop.order.placed.v1", True),
    ],
)
def test_patterns(pattern: str, topic: str, fits: bool) -> None:
    assert grants.matches(pattern, topic) is fits
