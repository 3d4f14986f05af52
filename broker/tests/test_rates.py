"""Rates: a producer above its own is told BUSY and when; a group is sent no more than its own."""

from __future__ import annotations

from bus_helpers import MESH, Consumer, Shop, event, numbers

from atoll_broker.rates import Bucket
from atoll_broker.testing import MemoryBroker

SLOW_SHOP = MESH.replace('announce = ["/shop"]', 'announce = ["/shop"]\nevents_per_second_max = 10')
SLOW_BANK = MESH.replace('[group.bank]\npart = "bank"', '[group.bank]\npart = "bank"\nevents_per_second_max = 10')


def test_a_bucket_holds_a_second_and_lets_a_batch_go_into_debt() -> None:
    bucket = Bucket(10)
    assert bucket.room(0.0) == 10
    bucket.take(30)
    assert bucket.room(1.0) == 0
    assert bucket.wait_ms() > 1000
    assert bucket.room(2.2) == 2
    assert Bucket(0).room(0.0) > 1_000_000


def test_a_producer_above_its_rate_is_told_when_to_come_again() -> None:
    broker = MemoryBroker(SLOW_SHOP)
    shop = Shop(broker)
    first = shop.publish(*[event(n, f"o-{n}") for n in range(1, 21)])
    assert [answer["command"] for answer in first] == ["PUBACK"], "a batch passes whole"
    (busy,) = shop.send(21, event(21))
    assert (busy["command"], busy["code"]) == ("PUBNACK", "BUSY")
    assert 900 <= busy["retry_after_ms"] <= 1300
    shop.ping_while(busy["retry_after_ms"] / 1000 + 0.3)
    assert [answer["command"] for answer in shop.send(21, event(21))] == ["PUBACK"]


def test_a_duplicate_costs_nothing() -> None:
    broker = MemoryBroker(SLOW_SHOP)
    shop = Shop(broker)
    shop.publish(*[event(n, f"o-{n}") for n in range(1, 21)])
    (again,) = shop.send(20, event(20))
    assert (again["command"], again["upto"]) == ("PUBACK", 20)


def test_a_group_gets_no_more_than_its_rate() -> None:
    broker = MemoryBroker(SLOW_BANK)
    shop, bank = Shop(broker), Consumer(broker)
    for start in (1, 101):
        shop.publish(*[event(n, f"o-{n}") for n in range(start, start + 100)])
    arrived = len(bank.take())
    assert arrived == 10, "a second's worth at once"
    for _ in range(10):
        arrived += len(bank.wait(0.5))
        shop.peer.say("PING")
    assert 55 <= arrived <= 65


def test_a_slow_group_slows_itself_alone() -> None:
    broker = MemoryBroker(SLOW_BANK)
    shop, bank, mail = Shop(broker), Consumer(broker), Consumer(broker, "mail")
    shop.publish(*[event(n, f"o-{n}") for n in range(1, 101)])
    assert len(bank.take()) == 10
    assert numbers(mail.take()) == list(range(1, 101))
