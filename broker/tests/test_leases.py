"""Leases across boots: what lasts is on disk, so a crash gives nobody's event in hand to another slot at once."""

from __future__ import annotations

from bus_helpers import Consumer, Operator, Shop, event, numbers

from atoll_broker.groups import LEASE_KEPT_SECONDS
from atoll_broker.testing import MemoryBroker


def held(broker: MemoryBroker) -> dict[str, object]:
    """bank/1 has an event in hand for long enough that its lease is on disk."""
    shop, consumer = Shop(broker), Consumer(broker)
    shop.publish(event(1, "a"))
    (delivery,) = consumer.take()
    broker.advance(LEASE_KEPT_SECONDS + 0.2)
    broker.restart()
    return delivery


def test_another_slot_waits_for_the_lease_and_the_attempt_does_not_rise(broker: MemoryBroker) -> None:
    held(broker)
    other = Consumer(broker, number=2)
    assert other.wait(9) == []
    (delivery,) = other.wait(2)
    assert (delivery["n"], delivery["attempt"]) == (1, 1)
    assert Operator(broker).steps("e-1")[-2:] == ["expired", "leased"]


def test_its_slot_gets_it_again_as_soon_as_it_is_back(broker: MemoryBroker) -> None:
    old = held(broker)
    (again,) = Consumer(broker, number=1).take()
    assert (again["n"], again["attempt"]) == (1, 1)
    assert again["fence"] > old["fence"]


def test_an_ack_from_before_the_boot_is_stale(broker: MemoryBroker) -> None:
    old = held(broker)
    consumer = Consumer(broker, number=1, credit=0)
    assert consumer.ack(old)[0]["command"] == "STALE"
    consumer.credit(10)
    assert numbers(consumer.take()) == [1]


def test_later_events_of_the_key_wait_and_other_keys_do_not(broker: MemoryBroker) -> None:
    held(broker)
    shop, other = Shop(broker), Consumer(broker, number=2)
    shop.publish(event(2, "a"), event(3, "b"))
    assert numbers(other.take()) == [3]


def test_a_lease_that_was_answered_is_not_remembered(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    shop.publish(event(1, "a"), event(2, "b"))
    first, second = consumer.take()
    broker.advance(LEASE_KEPT_SECONDS + 0.2)
    consumer.ack(first)
    consumer.nack(second, delay_ms=0)
    consumer.take()
    broker.advance(0.2)
    broker.restart()
    assert numbers(Consumer(broker, number=2).wait(1)) == [2]


def test_a_short_lease_costs_the_disk_nothing(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    shop.publish(event(1, "a"))
    consumer.ack(*consumer.take())
    commit = broker.core.take_commit(force=True)
    assert commit is None or commit.batch.leases == {}


def test_a_lease_of_a_key_whose_earlier_ack_was_lost_holds_nothing(broker: MemoryBroker) -> None:
    """The key begins at the event that comes again; held back for its successor's lease it would be out of order."""
    shop, consumer = Shop(broker), Consumer(broker)
    shop.publish(event(1, "a"), event(2, "a"))
    broker.hold_commits = True
    consumer.ack(*consumer.take())
    (second,) = consumer.take()
    assert second["n"] == 2
    broker.advance(LEASE_KEPT_SECONDS + 0.2)
    commit = broker.core.take_commit(force=True)
    assert commit is not None
    commit.batch.floors.clear()  # as if the ack had been in a batch that the crash took, and the lease in one before
    commit.batch.acked.clear()
    broker.storage.commit(commit.batch)
    broker.hold_commits = False
    broker.restart()
    other = Consumer(broker, number=2)
    (first,) = other.take()
    assert first["n"] == 1
    other.ack(first)
    assert numbers(other.take()) == [2]
