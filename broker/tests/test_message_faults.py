"""Faults for messages: each does what it says to its share, loses nothing, and ends by itself."""

from __future__ import annotations

from typing import Any

import pytest
from bus_helpers import CANCELLED, MESH, PLACED, Consumer, Operator, Shop, event, numbers

from atoll_broker.testing import MemoryBroker


def put(operator: Operator, kind: str, /, **fault: Any) -> dict[str, Any]:
    return operator.ask("fault.put", by="amy", fault={"group": "bank", "kind": kind, "seconds": 60} | fault)


def world() -> tuple[MemoryBroker, Shop, Consumer, Operator]:
    broker = MemoryBroker(MESH.replace("attempts_max = 3", "attempts_max = 10"))
    return broker, Shop(broker), Consumer(broker), Operator(broker)


def test_a_delayed_event_comes_later_and_its_key_waits_for_it() -> None:
    _, shop, bank, operator = world()
    put(operator, "delay", delay_ms=2000, topic=PLACED)
    shop.publish(event(1, "a"), event(2, "a", CANCELLED), event(3, "b", CANCELLED))
    assert numbers(bank.take()) == [3]
    assert bank.wait(1.5) == []
    (first,) = bank.wait(1.0)
    assert (first["n"], first["attempt"]) == (1, 1)
    assert [fault["hits"] for fault in operator.ask("fault.list")["faults"]] == [1]
    bank.ack(first)
    assert numbers(bank.wait(0.5)) == [2]


def test_a_dropped_delivery_comes_again_when_its_lease_is_over_and_costs_no_credit() -> None:
    broker, shop, bank, operator = world()
    put(operator, "drop", seconds=5)
    shop.publish(event(1))
    assert bank.wait(5.5) == []
    (member,) = (m for m in broker.core.groups["bank"].members.values())
    assert member.events == 1000
    shop.peer.say("PING")
    (again,) = bank.wait(8)
    assert (again["n"], again["attempt"]) == (1, 2)
    assert operator.peer.open
    assert Operator(broker).steps("e-1")[:3] == ["fault", "leased", "expired"]


def test_a_doubled_delivery_has_one_effect_that_counts() -> None:
    _, shop, bank, operator = world()
    put(operator, "duplicate")
    shop.publish(event(1))
    first, second = bank.take()
    assert (first["seq"], first["fence"]) == (second["seq"], second["fence"])
    assert bank.ack(first) == []
    assert bank.ack(second)[0]["command"] == "STALE"
    assert operator.group()["lag"] == 0


def test_an_injected_error_is_a_failed_attempt_and_in_the_end_a_dead_letter() -> None:
    broker = MemoryBroker(MESH)
    shop, bank, operator = Shop(broker), Consumer(broker), Operator(broker)
    put(operator, "error")
    shop.publish(event(1))
    for _ in range(30):
        bank.wait(0.5)
        for client in (shop, operator):
            client.peer.say("PING")
    (letter,) = operator.ask("dlq.list", group="bank")["letters"]
    assert (letter["cause"], letter["error"], letter["attempts"]) == ("FAILED", "injected: error", 3)
    assert bank.take() == []


def test_a_share_is_hit_and_the_rest_is_not() -> None:
    _, shop, bank, operator = world()
    put(operator, "error", share=0.5)
    shop.publish(*[event(n, f"o-{n}") for n in range(1, 101)])
    came = len(bank.take())
    assert 30 <= came <= 70
    (fault,) = operator.ask("fault.list")["faults"]
    assert fault["hits"] == 100 - came
    assert (fault["kind"], fault["share"], fault["by"]) == ("error", 0.5, "amy")


def test_a_fault_ends_by_itself() -> None:
    _, shop, bank, operator = world()
    put(operator, "error", seconds=2)
    assert "fault_active" in operator.alarm_names()
    for _ in range(5):
        bank.wait(0.5)
        for client in (shop, operator):
            client.peer.say("PING")
    assert operator.ask("fault.list")["faults"] == []
    assert "fault_active" not in operator.alarm_names()
    shop.publish(event(1))
    assert numbers(bank.take()) == [1]


def test_faults_are_stopped_one_or_all() -> None:
    _, shop, bank, operator = world()
    first, _second = put(operator, "error")["id"], put(operator, "drop")["id"]
    assert operator.ask("fault.stop", id=first)["stopped"] == 1
    assert operator.ask("fault.stop", id=first)["stopped"] == 0
    assert operator.ask("fault.stop")["stopped"] == 1
    shop.publish(event(1))
    assert numbers(bank.take()) == [1]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"group": "nobody"}, "fault.group"),
        ({"topic": "bank.payment.captured.v1"}, "fault.topic"),
        ({"kind": "explode"}, "fault.kind"),
        ({"share": 0}, "fault.share"),
        ({"share": 1.5}, "fault.share"),
        ({"seconds": 901}, "fault.seconds"),
        ({"seconds": 0}, "fault.seconds"),
        ({"delay_ms": 0}, "fault.delay_ms"),
    ],
)
def test_a_fault_that_is_none_is_refused_by_its_field(change: dict[str, Any], field: str) -> None:
    _, _, _, operator = world()
    answer = put(operator, "delay", **change)
    assert (answer["command"], answer["code"], answer["field"]) == ("ERR", "VERB", field)
    assert operator.ask("fault.list")["faults"] == []
