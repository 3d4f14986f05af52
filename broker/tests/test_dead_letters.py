"""Dead letters: their cause, the parked key, what follows it, and the replay, all across restarts."""

from __future__ import annotations

import pytest
from bus_helpers import MESH, Consumer, Operator, Shop, event, numbers

from atoll_broker.testing import MemoryBroker


def fail(consumer: Consumer, times: int) -> None:
    """NACKs whatever comes, so often."""
    deliveries = consumer.take()
    for _ in range(times):
        for delivery in deliveries:
            consumer.nack(delivery, error="boom", delay_ms=0)
        deliveries = consumer.wait(0.1)


def test_attempts_end_in_a_dead_letter_that_says_why(broker: MemoryBroker) -> None:
    shop, consumer, operator = Shop(broker), Consumer(broker, version="1.2.3"), Operator(broker)
    shop.publish(event(1), event(2, "free"))
    one, two = consumer.take()
    consumer.ack(two)
    for attempt in (1, 2, 3):
        assert one["attempt"] == attempt
        consumer.nack(one, error="boom", delay_ms=0)
        one = next(iter(consumer.wait(0.1)), {})
    (letter,) = operator.ask("dlq.list", group="bank")["letters"]
    assert letter.pop("at_ms") > 0
    assert len(letter.pop("fingerprint")) == 16
    assert letter == {
        "seq": 1,
        "topic": "shop.order.placed.v1",
        "subject": "o-1",
        "event_id": "e-1",
        "cause": "FAILED",
        "behind": None,
        "error": "boom",
        "attempts": 3,
        "version": "1.2.3",
        "traceparent": f"00-{1:032x}-00f067aa0ba902b7-01",
    }
    assert operator.group() | {"oldest_age_ms": 0} == {
        "part": "bank",
        "topics": ["shop.order.cancelled.v1", "shop.order.placed.v1"],
        "lag": 0,
        "in_flight": 0,
        "parked_keys": 1,
        "dead": 1,
        "members": 1,
        "floor": 2,
        "oldest_age_ms": 0,
        "detached": False,
        "gaps": [],
        "rate": None,
        "delayed": 0,
        "stalled_ms": 0,
    }


def test_term_buries_at_once(broker: MemoryBroker) -> None:
    shop, consumer, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(event(1))
    consumer.term(*consumer.take(), reason="unknown order", error="KeyError")
    (letter,) = operator.ask("dlq.list", group="bank")["letters"]
    assert (letter["cause"], letter["error"], letter["attempts"]) == ("REJECTED", "unknown order: KeyError", 1)


@pytest.mark.parametrize("restart", [False, True])
def test_a_parked_key_takes_its_followers_and_no_other(broker: MemoryBroker, restart: bool) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    shop.publish(event(1, "a"), event(2, "a"), event(3, "b"))
    first, other = consumer.take()
    consumer.term(first)
    consumer.ack(other)
    consumer.wait(0.2)
    if restart:
        broker.restart()
        shop, consumer = Shop(broker), Consumer(broker)
    shop.publish(event(4, "a"), event(5, "b"))
    assert numbers(consumer.take()) == [5]
    letters = Operator(broker).ask("dlq.list", group="bank")["letters"]
    assert [(x["seq"], x["cause"], x["behind"], x["attempts"]) for x in letters] == [
        (1, "REJECTED", None, 1),
        (2, "BEHIND", 1, 0),
        (4, "BEHIND", 1, 0),
    ]


@pytest.mark.parametrize("restart", [False, True])
def test_replay_releases_in_order_and_what_comes_later_waits(broker: MemoryBroker, restart: bool) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    shop.publish(event(1, "a"), event(2, "a"), event(3, "a"))
    consumer.term(*consumer.take())
    operator = Operator(broker)
    assert operator.ask("dlq.replay", group="bank", subject="a")["replayed"] == 3
    broker.advance(0.2)
    shop.publish(event(4, "a"))
    if restart:
        broker.restart()
        consumer, operator = Consumer(broker), Operator(broker)
    assert operator.group()["lag"] == 4
    assert operator.ask("dlq.list", group="bank")["letters"] == []
    order = []
    for _ in range(4):
        (delivery,) = consumer.take()
        order.append((delivery["n"], delivery["attempt"]))
        consumer.ack(delivery)
    assert order == [(1, 1), (2, 1), (3, 1), (4, 1)]
    consumer.wait(0.2)
    broker.restart()
    assert Consumer(broker).take() == []
    assert Operator(broker).group()["dead"] == 0


def test_a_replay_that_fails_parks_the_key_again(broker: MemoryBroker) -> None:
    shop, consumer, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(event(1, "a"), event(2, "a"))
    consumer.term(*consumer.take())
    operator.ask("dlq.replay", group="bank", subject="a")
    consumer.term(*consumer.take())
    letters = operator.ask("dlq.list", group="bank")["letters"]
    assert [(x["seq"], x["cause"]) for x in letters] == [(1, "REJECTED"), (2, "BEHIND")]
    broker.restart()
    assert Consumer(broker).take() == []
    assert Operator(broker).group()["dead"] == 2


def test_skip_lets_the_key_go_on(broker: MemoryBroker) -> None:
    shop, consumer, operator = Shop(broker), Consumer(broker, "mail"), Operator(broker)
    shop.publish(event(1, "a"), event(2, "a"))
    consumer.term(*consumer.take())
    deliveries = consumer.take()
    assert numbers(deliveries) == [2]
    consumer.ack(*deliveries)
    assert operator.group("mail")["dead"] == 1
    assert operator.group("mail")["parked_keys"] == 0
    assert operator.ask("dlq.replay", group="mail", subject="a")["replayed"] == 1
    assert numbers(consumer.take()) == [1]


def test_lease_expiry_and_session_death_are_causes(broker: MemoryBroker) -> None:
    shop, consumer, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(event(1))
    for _ in range(3):
        consumer.wait(14)
    assert Operator(broker).ask("dlq.list", group="bank")["letters"][0]["cause"] == "LEASE_EXPIRED"
    Shop(broker, "shop/two").publish(event(2, "b"))
    for n in range(3):
        lost = Consumer(broker, process=f"lost-{n}")
        lost.wait(5)
        lost.peer.close()
    broker.advance(10)
    operator = Operator(broker)
    letters = operator.ask("dlq.list", group="bank")["letters"]
    assert [x["cause"] for x in letters if x["subject"] == "b"] == ["SESSION_DIED"]


def test_lists_page(broker: MemoryBroker) -> None:
    shop, consumer, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(*[event(n, f"o-{n}") for n in range(5)])
    consumer.term(*consumer.take())
    page = operator.ask("dlq.list", group="bank", limit=2)
    assert ([x["seq"] for x in page["letters"]], page["more"]) == ([1, 2], True)
    page = operator.ask("dlq.list", group="bank", after=2, limit=3)
    assert ([x["seq"] for x in page["letters"]], page["more"]) == ([3, 4, 5], False)


def test_at_the_bound_the_group_stands_still_and_says_so() -> None:
    broker = MemoryBroker(MESH + "dead_letters_max = 2\n")
    shop, consumer, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(event(1, "a"), event(2, "b"))
    consumer.term(*consumer.take())
    shop.publish(event(3, "c"))
    assert consumer.wait(1) == []
    assert "dead_letters_full" in [alarm["name"] for alarm in operator.ask("alarms")["alarms"]]
    operator = Operator(broker)
    operator.ask("dlq.replay", group="bank", subject="a")
    assert numbers(consumer.take()) == [1, 3]


def test_a_replayed_letter_above_the_floor_is_not_delivered_again_after_a_restart(broker: MemoryBroker) -> None:
    shop, consumer, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(event(1, "slow"), event(2, "a"), event(3, "a"))
    _, poison = consumer.take()
    consumer.term(poison)
    operator.ask("dlq.replay", group="bank", subject="a")
    for _ in range(2):
        consumer.ack(*consumer.take())
    consumer.wait(0.2)
    broker.restart()
    assert Operator(broker).group()["lag"] == 1
    assert numbers(Consumer(broker).take()) == [1]
