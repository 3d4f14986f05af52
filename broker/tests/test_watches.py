"""STATE: whole, versioned, unsettled after a boot; the registry from HELLO and PING."""

from __future__ import annotations

import json
from typing import Any

from bus_helpers import Client, hello
from test_grants import endpoints

from atoll_broker.testing import MemoryBroker


def last_state(client: Client, kind: str = "registry") -> dict[str, Any]:
    return [message for message in client.heard("STATE") if message["kind"] == kind][-1]


def watching(broker: MemoryBroker, kind: str = "registry") -> Client:
    gateway = Client(broker, "gateway")
    gateway.peer.say("WATCH", kind=kind)
    return gateway


def test_the_registry_follows_hello_ping_silence_and_bye(broker: MemoryBroker) -> None:
    gateway = watching(broker)
    assert last_state(gateway)["state"] == {"services": {}}
    shop = Client(broker, "shop", version="1.0", endpoints=endpoints())
    entry = last_state(gateway)["state"]["services"]["shop"]["shop/1"]
    assert entry == {**endpoints(), "ready": True, "why": "", "version": "1.0"}
    shop.say("PING", ready=False, why="database")
    entry = last_state(gateway)["state"]["services"]["shop"]["shop/1"]
    assert (entry["ready"], entry["why"]) == (False, "database")
    shop.say("PING", ready=True)
    gateway.heard()
    broker.advance(1)
    gateway.say("PING")
    broker.advance(1.5)
    entry = last_state(gateway)["state"]["services"]["shop"]["shop/1"]
    assert (entry["ready"], entry["why"]) == (False, "suspect: silent")
    shop.say("BYE")
    assert last_state(gateway)["state"] == {"services": {}}


def test_the_same_ping_pushes_nothing(broker: MemoryBroker) -> None:
    gateway, shop = watching(broker), Client(broker, "shop", endpoints=endpoints())
    gateway.heard()
    shop.say("PING", ready=True)
    assert gateway.heard() == []


def test_a_boot_is_unsettled_for_one_heartbeat_time_out(broker: MemoryBroker) -> None:
    gateway = watching(broker)
    first = last_state(gateway)
    assert (first["settled"], first["version"][0]) == (False, 1)
    heard = gateway.ping_while(5.1)
    assert [(m["command"], m["settled"]) for m in heard] == [("STATE", True)]
    assert heard[0]["version"] > first["version"]
    broker.restart()
    again = last_state(watching(broker))
    assert (again["settled"], again["version"][0]) == (False, 2)


def test_keys_are_kept_and_revocations_are_not(broker: MemoryBroker) -> None:
    gateway, auth = watching(broker, "keys"), Client(broker, "auth")
    gateway.peer.say("WATCH", kind="revocations")
    assert [(m["state"], m["settled"]) for m in gateway.heard("STATE")] == [(None, False), (None, False)]
    result = auth.say("PUT", kind="keys", value={"document": "v1.x"}, request="r")
    assert [(m["command"], m["kind"], m["request"]) for m in result] == [("RESULT", "keys", "r")]
    auth.say("PUT", kind="revocations", value=["jti-1"])
    assert [(m["state"], m["settled"]) for m in gateway.heard("STATE")] == [
        ({"document": "v1.x"}, True),
        (["jti-1"], True),
    ]
    broker.restart()
    gateway = watching(broker, "keys")
    gateway.peer.say("WATCH", kind="revocations")
    assert [(m["state"], m["settled"]) for m in gateway.heard("STATE")] == [
        ({"document": "v1.x"}, True),
        (None, False),
    ]


def test_keys_are_seen_by_nobody_before_the_disk_has_them(broker: MemoryBroker) -> None:
    gateway, auth = watching(broker, "keys"), Client(broker, "auth")
    gateway.heard()
    broker.hold_commits = True
    assert auth.say("PUT", kind="keys", value=1) == []
    assert gateway.heard() == []
    broker.release()
    assert last_state(gateway, "keys")["state"] == 1
    assert auth.heard()[0]["command"] == "RESULT"


def test_slots_of_one_service_stand_side_by_side(broker: MemoryBroker) -> None:
    gateway = watching(broker)
    for number in (1, 2):
        Client(broker, "shop", number, endpoints=endpoints())
    assert sorted(last_state(gateway)["state"]["services"]["shop"]) == ["shop/1", "shop/2"]
    assert hello("shop")["slot"] == "shop/1"


def test_two_values_never_have_one_version(broker: MemoryBroker) -> None:
    auth, gateway = Client(broker, "auth"), Client(broker, "gateway")
    broker.core.receive(*_frames(auth, "PUT", kind="revocations", value={"jti": ["a"]}, request="r"))
    broker.core.receive(*_frames(gateway, "WATCH", kind="revocations"))  # in the same turn
    broker.core.receive(*_frames(auth, "PUT", kind="revocations", value={"jti": ["a", "b"]}, request="r"))
    broker.turn()
    seen = {(tuple(state["version"]), json.dumps(state["state"])) for state in gateway.heard("STATE")}
    assert len({version for version, _ in seen}) == len({value for _, value in seen}) == 2


def _frames(client: Client, command: str, **header: Any) -> tuple[bytes, str, list[bytes]]:
    frames = [b"A1" + command.encode(), json.dumps(header).encode()]
    return client.peer.route, client.peer.identity, frames
