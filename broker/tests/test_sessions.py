"""Sessions: order of commands, liveness on the served clock, rubbish, bounds."""

from __future__ import annotations

from typing import Any

import pytest
from bus_helpers import MESH, Client, Consumer, Operator, Shop, event, hello, numbers

from atoll_broker.testing import MemoryBroker

RUBBISH = [
    [b""],
    [b"A1PING"],
    [b"A2PING", b"{}"],
    [b"A1PING", b"[1,2"],
    [b"A1PING", b"{}", b"x"],
    [b"A1PUB", b'{"producer":"shop/box","first":1}', b"not json"],
    [b"A1HELLO", b'{"x":' + b"[" * 100_000],
    [b"\xff" * 1000, b"\x00" * 1000],
    [b"A1ACK", b'{"group":7}'],
]


@pytest.mark.parametrize("frames", RUBBISH, ids=range(len(RUBBISH)))
def test_rubbish_gets_an_err_and_hurts_nobody_else(broker: MemoryBroker, frames: list[bytes]) -> None:
    consumer, shop = Consumer(broker), Shop(broker)
    bad = broker.connect("shop")
    bad.send(frames)
    assert [message["command"] for message in bad.heard()] == ["ERR"]
    assert sum(broker.core.errors.values()) == 1
    shop.publish(event(1))
    assert numbers(consumer.take()) == [1]


def test_an_unknown_command_does_not_close(broker: MemoryBroker) -> None:
    client = Client(broker, "bank")
    assert client.say("DANCE")[0]["closes"] is False
    assert client.say("PING")[0]["command"] == "PONG"


def test_a_closing_error_ends_the_session(broker: MemoryBroker) -> None:
    client = Client(broker, "bank")
    assert client.say("CREDIT", group="bank")[0]["closes"] is True
    assert client.say("PING")[0]["code"] == "NO_SESSION"


def test_hello_comes_first_and_once(broker: MemoryBroker) -> None:
    peer = broker.connect("bank")
    peer.say("PING")
    assert peer.heard()[0]["code"] == "NO_SESSION"
    client = Client(broker, "bank")
    assert client.say("HELLO", **hello("bank"))[0]["code"] == "SESSION"


def test_alive_suspect_dead(broker: MemoryBroker) -> None:
    operator, client = Operator(broker), Client(broker, "bank")

    def state() -> list[Any]:
        sessions = operator.ask("sessions")["sessions"]
        return [session["state"] for session in sessions if session["identity"] == "bank"]

    operator.ping_while(1.5)
    assert state() == ["alive"]
    operator.ping_while(1.0)
    assert state() == ["suspect"]
    client.say("PING")
    assert state() == ["alive"]
    operator.ping_while(5.1)
    assert state() == []
    assert "FENCED" in [message["command"] for message in client.heard()]


def test_a_dead_process_is_found_by_the_probe_before_the_silence_is_over(broker: MemoryBroker) -> None:
    operator, client = Operator(broker), Client(broker, "bank")
    client.peer.close()
    operator.ping_while(2.5)
    assert [s["identity"] for s in operator.ask("sessions")["sessions"]] == ["control"]


def test_a_suspect_gets_no_new_deliveries(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    shop.ping_while(2.5)
    shop.publish(event(1))
    assert consumer.take() == []
    consumer.peer.say("PING")
    assert numbers(consumer.take()) == [1]


def test_a_frozen_broker_evicts_nobody_and_ends_no_lease(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    shop.publish(event(1))
    (delivery,) = consumer.take()
    broker.freeze(600)
    assert len(broker.core.sessions) == 2
    assert consumer.ack(delivery) == []
    assert shop.publish(event(2))[0]["upto"] == 2


def test_sessions_are_bounded() -> None:
    broker = MemoryBroker(MESH + "sessions_max = 3\nsessions_per_identity_max = 2\n")
    Client(broker, "bank", 1)
    Client(broker, "bank", 2)
    third = broker.connect("bank")
    third.say("HELLO", **hello("bank", 3))
    assert third.heard()[0]["code"] == "LIMIT"
    Client(broker, "mail")
    other = broker.connect("shop")
    other.say("HELLO", **hello("shop"))
    assert other.heard()[0]["code"] == "LIMIT"


def test_producers_are_bounded_and_unused_ones_forgotten() -> None:
    broker = MemoryBroker(MESH + "producers_max = 2\n")
    for number in range(5):
        Shop(broker, f"shop/unused-{number}")
    Shop(broker, "shop/one").publish(event(1))
    Shop(broker, "shop/two").publish(event(1))
    peer = broker.connect("shop")
    peer.say("HELLO", **hello("shop", producer="shop/three"))
    assert [m["code"] for m in peer.heard("ERR")] == ["LIMIT"]


def test_a_routing_id_that_comes_again_with_another_key_has_no_session(broker: MemoryBroker) -> None:
    client = Client(broker, "control")
    client.peer.identity = "bank"
    assert client.say("ADMIN", request="r", verb="groups")[0]["code"] == "NO_SESSION"


def test_a_revoked_key_ends_its_sessions(broker: MemoryBroker) -> None:
    client = Client(broker, "bank")
    broker.core.revoke("bank")
    broker.turn()
    assert client.heard()[0]["command"] == "FENCED"
    assert len(broker.core.sessions) == 0


def test_unknown_header_fields_are_ignored(broker: MemoryBroker) -> None:
    assert Client(broker, "bank", later={"a": 1}).say("PING", colour="blue")[0]["command"] == "PONG"


def test_farewell_says_bye_to_everyone(broker: MemoryBroker) -> None:
    clients = [Client(broker, "bank"), Client(broker, "mail")]
    broker.core.farewell()
    broker.turn()
    assert [client.heard()[0]["command"] for client in clients] == ["BYE", "BYE"]


def test_any_frame_counts_as_life(broker: MemoryBroker) -> None:
    """A newer client may say what this broker does not know."""
    client = Client(broker, "shop")
    for _ in range(12):
        broker.advance(0.5)
        client.say("DANCE")
    assert client.say("PING")[-1]["command"] == "PONG"
