"""One event's whole story, the operators' own event, and the contracts of the running sessions."""

from __future__ import annotations

from bus_helpers import CANCELLED, PLACED, SCHEMA, Consumer, Operator, Shop, event, numbers

from atoll_broker import history
from atoll_broker.testing import MemoryBroker


def test_every_lease_attempt_error_letter_and_replay_is_told(broker: MemoryBroker) -> None:
    shop, bank, operator = Shop(broker), Consumer(broker, version="1.2"), Operator(broker)
    shop.publish(event(1, "a"))
    for _ in range(3):
        (delivery,) = bank.take() or bank.wait(0.2)
        bank.nack(delivery, error="boom", delay_ms=0)
    operator.ask("dlq.replay", group="bank", subject="a", by="amy: mended")
    bank.ack(*bank.wait(0.2))
    answer = operator.ask("why", event_id="e-1")
    assert answer["event"] | {"stored_ms": 0} == {
        "seq": 1, "topic": PLACED, "subject": "a", "event_id": "e-1", "producer": "shop/box", "pseq": 1, "stored_ms": 0,
        "time": "2026-11-23T12:00:00Z", "source": "/shop", "traceparent": f"00-{1:032x}-00f067aa0ba902b7-01",
    }  # fmt: skip
    steps = [step for step in answer["steps"] if step["group"] == "bank"]
    assert [(step["what"], step["attempt"]) for step in steps] == [
        ("leased", 1), ("nack", 1), ("leased", 2), ("nack", 2), ("leased", 3), ("nack", 3), ("dead", 3),
        ("replayed", 1), ("leased", 1), ("done", 1),
    ]  # fmt: skip
    assert steps[1]["text"] == "boom"
    assert steps[1]["slot"] == "bank/1"
    assert "amy: mended" in steps[7]["text"]


def test_failures_outlive_the_broker_and_the_routine_says_since_when_it_is_complete(broker: MemoryBroker) -> None:
    shop, bank = Shop(broker), Consumer(broker)
    shop.publish(event(1, "a"))
    bank.nack(*bank.take(), error="boom", delay_ms=0)
    broker.advance(0.3)
    before = broker.clock.wall_ms()
    broker.restart()
    Consumer(broker)
    answer = Operator(broker).ask("why", event_id="e-1")
    assert next(step["what"] for step in answer["steps"]) == "nack"
    assert answer["complete_since_ms"] >= before


def test_the_memory_of_the_routine_is_bounded(broker: MemoryBroker) -> None:
    shop, bank, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(event(1, "a"))
    bank.ack(*bank.take())
    for _ in range(history.ROUTINE_STEPS_MAX):
        broker.core.history.routine(2, "bank", "leased", 1, "bank/1", 1)
    assert operator.steps("e-1") == []
    assert len(broker.core.history._routine) == 1


def test_an_event_that_nobody_knows(broker: MemoryBroker) -> None:
    answer = Operator(broker).ask("why", event_id="never")
    assert (answer["event"], answer["steps"]) == (None, [])
    assert Operator(broker).ask("why")["field"] == "event_id"


def test_an_operators_event_goes_through_the_same_checks(broker: MemoryBroker) -> None:
    _, bank, operator = Shop(broker), Consumer(broker), Operator(broker)
    assert operator.ask("publish", event=event(7, "a"), by="amy") == {
        "command": "RESULT", "request": "r", "seq": 1, "event_id": "e-7",
    }  # fmt: skip
    assert numbers(bank.take()) == [7]
    wrong = event(8) | {"data": {"n": "eight"}}
    answer = operator.ask("publish", event=wrong)
    assert (answer["code"], answer["field"], answer["closes"]) == ("VERB", "event.data.n", False)
    answer = operator.ask("publish", event=event(8, topic="bank.payment.captured.v1"))
    assert (answer["code"], answer["field"], answer["closes"]) == ("ACL", "event.type", False)
    assert operator.ask("publish")["field"] == "event"
    assert operator.ask("publish", event={"id": "x"})["field"] == "event.type"
    assert broker.core.log.last == 1


def test_without_a_publisher_there_is_no_schema_to_publish_by(broker: MemoryBroker) -> None:
    answer = Operator(broker).ask("publish", event=event(7))
    assert (answer["code"], answer["field"]) == ("VERB", "event.type")
    assert "start its publisher" in answer["text"]


def test_an_operators_event_is_acked_when_the_disk_has_it(broker: MemoryBroker) -> None:
    _, operator = Shop(broker), Operator(broker)
    broker.hold_commits = True
    operator.peer.say("ADMIN", request="p", verb="publish", event=event(7))
    assert operator.heard("RESULT") == []
    broker.release()
    assert operator.heard("RESULT")[0]["seq"] == 1


def test_contracts_and_publishers_of_what_runs(broker: MemoryBroker) -> None:
    Shop(broker, version="2.0")
    operator = Operator(broker)
    (shop,) = [one for one in operator.ask("contracts")["contracts"] if one["identity"] == "shop"]
    assert (shop["slot"], shop["version"]) == ("shop/1", "2.0")
    assert shop["publishes"] == {PLACED: SCHEMA, CANCELLED: SCHEMA}
    assert operator.ask("topics")["topics"][PLACED]["publishers"] == ["shop"]
