"""Delivery: key order, fences, credit, leases, attempts, restarts."""

from __future__ import annotations

from bus_helpers import CANCELLED, MESH, PLACED, Consumer, Operator, Shop, event, numbers

from atoll_broker.storage_memory import MemoryStorage
from atoll_broker.testing import MemoryBroker


def test_one_unacked_event_a_key_over_all_topics_and_keys_in_parallel(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    shop.publish(event(1, "a"), event(2, "a", CANCELLED), event(3, "b"), event(4, "a"))
    first = consumer.take()
    assert numbers(first) == [1, 3]
    consumer.ack(first[0])
    second = consumer.take()
    assert numbers(second) == [2]
    consumer.ack(*second)
    assert numbers(consumer.take()) == [4]


def test_a_group_exists_before_its_first_member(broker: MemoryBroker) -> None:
    Shop(broker).publish(event(1), event(2, "o-2"))
    assert Operator(broker).group()["lag"] == 2
    assert numbers(Consumer(broker).take()) == [1, 2]


def test_members_share_the_work_and_keep_key_order(broker: MemoryBroker) -> None:
    shop, one, two = Shop(broker), Consumer(broker, number=1), Consumer(broker, number=2)
    shop.publish(*[event(n, f"o-{n % 10}") for n in range(40)])
    seen: dict[str, list[int]] = {}
    for _ in range(10):
        for consumer in (one, two):
            for delivery in consumer.take():
                seen.setdefault(delivery["event"]["subject"], []).append(delivery["n"])
                consumer.ack(delivery)
    assert sum(map(len, seen.values())) == 40
    assert all(order == sorted(order) for order in seen.values())
    assert one.broker.core.groups["bank"].floor == 40


def test_a_member_gets_only_the_topics_that_it_took(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker, topics=(CANCELLED,))
    shop.publish(event(1, "a"), event(2, "b", CANCELLED))
    assert numbers(consumer.take()) == [2]
    alarms = Operator(broker).ask("alarms")["alarms"]
    assert [alarm["text"] for alarm in alarms if alarm["name"] == "topic_untaken"] == [f"no member takes {PLACED}"]


def test_credit_bounds_events_and_bytes(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker, credit=0)
    shop.publish(*[event(n, f"o-{n}") for n in range(10)])
    assert consumer.take() == []
    consumer.credit(3)
    assert numbers(consumer.take()) == [0, 1, 2]
    consumer.credit(0, 1_000_000)
    assert consumer.take() == []
    consumer.credit(1)
    assert numbers(consumer.take()) == [3]


def test_one_event_may_overdraw_the_bytes_and_then_nothing_comes(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker, credit=0)
    shop.publish(event(1, "a"), event(2, "b"))
    consumer.credit(10, 1)
    assert numbers(consumer.take()) == [1]
    consumer.credit(0, 100)
    assert consumer.take() == []
    consumer.credit(0, 1000)
    assert numbers(consumer.take()) == [2]


def test_max_in_flight_bounds_a_member_whatever_its_credit(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker, max_in_flight=2)
    shop.publish(*[event(n, f"o-{n}") for n in range(5)])
    first = consumer.take()
    assert numbers(first) == [0, 1]
    consumer.ack(first[0])
    assert numbers(consumer.take()) == [2]


def test_deliveries_are_coalesced_up_to_the_batch(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker, credit=0)
    for start in (0, 100):
        shop.publish(*[event(start + n, f"o-{start + n}") for n in range(100)])
    consumer.credit(1000)
    assert [len(message["messages"]) for message in consumer.heard("MSG")] == [128, 72]


def test_a_late_ack_is_stale_and_changes_nothing(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    shop.publish(event(1))
    (first,) = consumer.take()
    (second,) = consumer.wait(13)
    assert second["attempt"] == 2
    assert second["fence"] > first["fence"]
    assert [answer["command"] for answer in consumer.ack(first)] == ["STALE"]
    assert Operator(broker).group()["lag"] == 1
    assert consumer.ack(second) == []
    assert Operator(broker).group()["lag"] == 0


def test_an_ack_of_another_session_is_stale(broker: MemoryBroker) -> None:
    shop, one = Shop(broker), Consumer(broker, number=1)
    shop.publish(event(1))
    (delivery,) = one.take()
    two = Consumer(broker, number=2)
    assert two.ack(delivery)
    assert one.ack(delivery) == []


def test_wip_extends_the_lease_up_to_a_cap(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    shop.publish(event(1))
    (delivery,) = consumer.take()
    for _ in range(11):
        assert consumer.wait(8) == []
        consumer.wip(delivery)
    again = consumer.wait(14)
    assert [d["attempt"] for d in again] == [2]


def test_nack_backs_off_and_raises_attempt(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    shop.publish(event(1), event(2, "o-2"))
    first, other = consumer.take()
    consumer.nack(first, error="boom")
    assert consumer.wait(0.4) == []
    (second,) = consumer.wait(0.8)
    assert (second["n"], second["attempt"]) == (1, 2)
    consumer.nack(other, delay_ms=3000)
    assert consumer.wait(2.5) == []
    assert numbers(consumer.wait(0.6)) == [2]
    assert Operator(broker).broker.core.groups["bank"].redeliveries == 2


def test_session_death_raises_attempt_and_its_leases_go_elsewhere(broker: MemoryBroker) -> None:
    shop, one, two = Shop(broker), Consumer(broker, number=1), Consumer(broker, number=2, credit=0)
    shop.publish(event(1))
    assert len(one.take()) == 1
    one.peer.close()
    two.credit(10)
    (delivery,) = two.wait(6)
    assert delivery["attempt"] == 2


def test_bye_and_drain_hand_back_without_an_attempt(broker: MemoryBroker) -> None:
    shop, one, two = Shop(broker), Consumer(broker, number=1, credit=2), Consumer(broker, number=2, credit=0)
    shop.publish(event(1, "a"), event(2, "b"))
    held = one.take()
    one.say("DRAIN", group="bank")
    one.credit(10)
    shop.publish(event(3, "c"))
    assert one.take() == []
    one.ack(held[0])
    assert one.say("BYE", reason="drained")[0]["command"] == "BYE"
    two.credit(10)
    got = two.take()
    assert sorted(numbers(got)) == [2, 3]
    assert {delivery["attempt"] for delivery in got} == {1}


def test_resume_ends_the_old_session_without_an_attempt(broker: MemoryBroker) -> None:
    shop, old = Shop(broker), Consumer(broker, process="p")
    shop.publish(event(1))
    old.take()
    new = Consumer(broker, process="p", resume=old.welcome["session"])
    (delivery,) = new.take()
    assert delivery["attempt"] == 1


def test_resume_of_anothers_session_does_nothing(broker: MemoryBroker) -> None:
    old = Consumer(broker, number=1)
    Consumer(broker, number=2, process="other", resume=old.welcome["session"])
    assert old.say("PING")[-1]["command"] == "PONG"


def test_a_crashed_process_that_comes_back_counts_an_attempt(broker: MemoryBroker) -> None:
    shop, old = Shop(broker), Consumer(broker, process="p-1")
    shop.publish(event(1))
    old.take()
    (delivery,) = Consumer(broker, process="p-2").wait(2)
    assert delivery["attempt"] == 2


def test_a_restart_loses_nothing_repeats_no_ack_and_raises_no_attempt(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    shop.publish(*[event(n, f"o-{n}") for n in range(6)])
    held = consumer.take()
    consumer.ack(held[0], held[3])
    consumer.nack(held[1])
    consumer.wait(0.2)
    broker.restart()
    assert Operator(broker).group()["lag"] == 4
    got = {d["n"]: (d["attempt"], d["fence"]) for d in Consumer(broker).take()}
    assert {n: attempt for n, (attempt, _) in got.items()} == {1: 2, 2: 1, 4: 1, 5: 1}
    assert min(fence for _, fence in got.values()) > max(d["fence"] for d in held)


def test_a_group_added_later_starts_where_it_says(storage: MemoryStorage) -> None:
    broker = MemoryBroker(MESH, storage=storage)
    Shop(broker).publish(event(1))
    for name, first in (("early", "earliest"), ("late", "latest")):
        storage.close()
        text = MESH + f'[group.{name}]\npart = "mail"\ntopics = ["{PLACED}"]\nfirst = "{first}"\n'
        grown = MemoryBroker(text, storage=storage)
        assert Operator(grown).group(name)["lag"] == (1 if first == "earliest" else 0)
        assert numbers(Consumer(grown, name).take()) == ([1] if first == "earliest" else [])


def test_a_lagging_group_reads_from_the_disk_within_its_window(storage: MemoryStorage) -> None:
    text = MESH + "window_events_max = 64\ncache_bytes_max = 1024\n"
    broker = MemoryBroker(text, storage=storage)
    shop = Shop(broker)
    for start in range(0, 1000, 100):
        shop.publish(*[event(start + n, f"o-{(start + n) % 7}") for n in range(100)])
    consumer, seen = Consumer(broker), []
    while deliveries := consumer.take():
        seen += numbers(deliveries)
        consumer.ack(*deliveries)
    assert sorted(seen) == list(range(1000))
    assert Operator(broker).group()["lag"] == 0


def test_retention_goes_no_further_than_the_slowest_group(storage: MemoryStorage) -> None:
    broker = MemoryBroker(MESH + "log_bytes_kept = 1024\n", storage=storage)
    shop, bank = Shop(broker), Consumer(broker)
    shop.publish(*[event(n, f"o-{n}") for n in range(100)])
    bank.ack(*bank.take())
    bank.wait(3)
    assert broker.core.log.oldest == 1
    mail = Consumer(broker, "mail")
    mail.ack(*mail.take())
    mail.wait(3)
    Shop(broker).publish(event(100, "o-100"))
    mail.wait(1)
    assert broker.core.log.oldest == 101
    assert Shop(broker).welcome["oldest"] == 101
    broker.restart()
    assert numbers(Consumer(broker).take()) == [100]
