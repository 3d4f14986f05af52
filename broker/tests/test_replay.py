"""Replay: a dead letter, a key or a range, to one group alone; in order; surviving a crash; and said to be known."""

from __future__ import annotations

import pytest
from bus_helpers import CANCELLED, MESH, Consumer, Operator, Shop, event, numbers

from atoll_broker.testing import MemoryBroker


def dead(broker: MemoryBroker, *events: dict[str, object], group: str = "bank") -> tuple[Consumer, Operator]:
    """Publishes, and rejects what the group is delivered."""
    shop, consumer, operator = Shop(broker), Consumer(broker, group), Operator(broker)
    shop.publish(*events)
    while taken := consumer.take():
        consumer.term(*taken, reason="no")
    return consumer, operator


def test_one_letter_is_released_by_its_seq(broker: MemoryBroker) -> None:
    consumer, operator = dead(broker, event(1, "a"), event(2, "b"))
    assert operator.ask("dlq.replay", group="bank", seq=2)["replayed"] == 1
    assert numbers(consumer.wait(0.2)) == [2]
    assert operator.group()["dead"] == 1


def test_a_letter_behind_another_of_its_key_is_held_back(broker: MemoryBroker) -> None:
    """The cancellation that is parked behind a charge must not pass it, nor the charge go alone without saying so."""
    consumer, operator = dead(broker, event(1, "a"), event(2, "a", CANCELLED), event(3, "b"))
    answer = operator.ask("dlq.replay", group="bank", seq=2)
    assert (answer["replayed"], answer["held_back"]) == (0, 1)
    answer = operator.ask("dlq.replay", group="bank", first=2, last=3)
    assert (answer["replayed"], answer["held_back"]) == (1, 1)
    assert numbers(consumer.wait(0.2)) == [3]
    assert operator.ask("dlq.replay", group="bank", first=1, last=3)["replayed"] == 2


def test_where_effects_commute_any_letter_may_go(broker: MemoryBroker) -> None:
    consumer, operator = dead(broker, event(1, "a"), event(2, "a"), group="mail")
    assert operator.ask("dlq.replay", group="mail", seq=2)["replayed"] == 1
    assert numbers(consumer.wait(0.2)) == [2]


def test_a_released_key_comes_in_order_and_stays_parked_for_what_is_left(broker: MemoryBroker) -> None:
    consumer, operator = dead(broker, event(1, "a"), event(2, "a"), event(3, "a"))
    operator.ask("dlq.replay", group="bank", first=1, last=2)
    (first,) = consumer.wait(0.2)
    consumer.ack(first)
    (second,) = consumer.wait(0.2)
    consumer.ack(second)
    assert [first["n"], second["n"]] == [1, 2]
    assert operator.group()["parked_keys"] == 1


def test_a_dry_run_releases_nothing(broker: MemoryBroker) -> None:
    consumer, operator = dead(broker, event(1, "a"))
    answer = operator.ask("dlq.replay", group="bank", subject="a", dry_run=True)
    assert (answer["replayed"], answer["replay"]) == (1, None)
    assert consumer.wait(0.5) == []
    assert operator.group()["dead"] == 1


def test_a_range_that_was_handled_comes_again_to_that_group_alone(broker: MemoryBroker) -> None:
    shop, bank, mail, operator = Shop(broker), Consumer(broker), Consumer(broker, "mail"), Operator(broker)
    shop.publish(*[event(n, f"o-{n}") for n in range(1, 6)])
    bank.ack(*bank.take())
    mail.ack(*mail.take())
    answer = operator.ask("replay", group="bank", first=2, last=4, by="amy")
    assert (answer["replayed"], answer["pending"]) == (3, 0)
    again = bank.wait(0.2)
    assert numbers(again) == [2, 3, 4]
    assert [delivery["attempt"] for delivery in again] == [1, 1, 1]
    assert mail.wait(0.2) == []
    assert operator.group()["lag"] == 3


def test_a_second_replay_says_what_the_inbox_knew(broker: MemoryBroker) -> None:
    shop, bank, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(event(1, "a"), event(2, "b"))
    bank.ack(*bank.take())
    replay = operator.ask("replay", group="bank", first=1, last=2, by="amy")["replay"]
    for delivery in bank.wait(0.2):
        bank.peer.say("ACK", group="bank", duplicate=[[delivery["seq"], delivery["fence"]]])
    (state,) = operator.ask("replays", id=replay)["replays"]
    assert (state["total"], state["done"], state["duplicate"], state["failed"], state["ended"]) == (2, 0, 2, 0, True)
    assert state["by"] == "amy"
    assert operator.steps("e-1") == ["leased", "done", "replayed", "leased", "duplicate"]


def test_what_waits_anyway_is_not_replayed(broker: MemoryBroker) -> None:
    shop, bank, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(event(1, "a"), event(2, "b"))
    first, _held = bank.take()
    bank.ack(first)
    answer = operator.ask("replay", group="bank", first=1, last=2)
    assert (answer["replayed"], answer["pending"]) == (1, 1)


def test_a_replay_of_handled_events_survives_a_restart(broker: MemoryBroker) -> None:
    shop, bank, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(event(1, "a"), event(2, "b"))
    bank.ack(*bank.take())
    bank.peer.say("BYE")
    operator.ask("replay", group="bank", first=2, last=2)
    broker.advance(0.2)
    broker.restart()
    bank, operator = Consumer(broker), Operator(broker)
    (again,) = bank.wait(0.2)
    assert again["n"] == 2
    bank.ack(again)
    broker.advance(0.2)
    broker.restart()
    assert Consumer(broker).wait(0.2) == []
    assert Operator(broker).group()["lag"] == 0


def test_a_replay_that_fails_is_a_dead_letter_and_counts_as_failed(broker: MemoryBroker) -> None:
    shop, bank, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(event(1, "a"))
    bank.ack(*bank.take())
    replay = operator.ask("replay", group="bank", first=1, last=1)["replay"]
    bank.term(*bank.wait(0.2), reason="still no")
    (state,) = operator.ask("replays", id=replay)["replays"]
    assert (state["failed"], state["ended"]) == (1, True)
    assert operator.group()["dead"] == 1
    assert operator.ask("dlq.list", group="bank", subject="a")["letters"][0]["error"] == "still no"


def test_letters_are_listed_by_key(broker: MemoryBroker) -> None:
    _, operator = dead(broker, event(1, "a"), event(2, "b"), event(3, "b"))
    assert [x["seq"] for x in operator.ask("dlq.list", group="bank", subject="b")["letters"]] == [2, 3]
    assert operator.ask("dlq.list", group="bank", subject="nobody")["letters"] == []


@pytest.mark.parametrize(
    ("verb", "arguments", "field"),
    [
        ("dlq.replay", {"group": "bank"}, "subject"),
        ("dlq.replay", {"group": "nobody", "seq": 1}, "group"),
        ("dlq.replay", {"group": "bank", "first": 5, "last": 1}, "last"),
        ("replay", {"group": "bank", "last": 4}, "first"),
        ("replay", {"group": "bank", "first": 1, "last": 20_000}, "last"),
        ("replay", {"first": 1, "last": 2}, "group"),
    ],
)
def test_a_choice_that_is_none_is_refused_by_its_field(
    broker: MemoryBroker, verb: str, arguments: dict[str, object], field: str
) -> None:
    answer = Operator(broker).ask(verb, **arguments)
    assert (answer["command"], answer["code"], answer["field"]) == ("ERR", "VERB", field)


def test_retention_does_not_take_what_was_just_asked_for_again() -> None:
    broker = MemoryBroker(MESH + "log_bytes_kept = 1024\nlog_bytes_max = 65536\n")
    shop, bank, mail, operator = Shop(broker), Consumer(broker), Consumer(broker, "mail"), Operator(broker)
    shop.publish(*[event(n, f"o-{n}", pad="x" * 200) for n in range(1, 4)])
    bank.ack(*bank.take())
    mail.ack(*mail.take())
    operator.ask("replay", group="bank", first=1, last=3)
    for n in range(4, 40):
        shop.publish(event(n, f"o-{n}", pad="x" * 200))
        mail.ack(*mail.take())
        for client in (shop, bank, mail, operator):
            client.say("PING") if client not in (bank, mail) else client.peer.say("PING")
        broker.advance(0.3)
    assert broker.core.log.oldest == 1
    assert numbers(bank.take())[:3] == [1, 2, 3]


def test_dead_and_handled_events_of_a_key_come_again_in_the_order_of_the_log(broker: MemoryBroker) -> None:
    shop, bank, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(event(1, "a"), event(2, "a"), event(3, "a"))
    bank.ack(*bank.take())
    bank.term(*bank.take(), reason="no")
    assert operator.group()["dead"] == 2
    operator.ask("replay", group="bank", first=1, last=3)
    came = []
    while taken := bank.wait(0.2):
        came += numbers(taken)
        bank.ack(*taken)
    assert came == [1, 2, 3]
