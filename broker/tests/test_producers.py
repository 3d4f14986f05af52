"""PUB: exactly mark + 1, acks after the commit and never before, refusals that are final, bounds that hold."""

from __future__ import annotations

import pytest
from bus_helpers import MESH, PLACED, Consumer, Shop, event, numbers

from atoll_broker.testing import MemoryBroker


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(MESH)


def test_puback_comes_after_the_commit_and_not_before(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    broker.hold_commits = True
    assert shop.publish(event(1)) == []
    assert consumer.take() == []
    broker.release()
    assert shop.heard()[0]["upto"] == 1
    assert numbers(consumer.take()) == [1]


def test_a_duplicate_is_acked_and_not_stored_again(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    shop.publish(event(1), event(2, "o-2"))
    assert shop.send(1, event(1), event(2, "o-2"))[0]["upto"] == 2
    assert numbers(consumer.take()) == [1, 2]


def test_a_duplicate_in_flight_is_neither_stored_twice_nor_acked_early(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    broker.hold_commits = True
    assert shop.send(1, event(1)) == []
    assert shop.send(1, event(1)) == []
    assert shop.send(1, event(1), event(2, "o-2")) == []
    broker.release()
    assert [ack["upto"] for ack in shop.heard("PUBACK")][-1] == 2
    assert numbers(consumer.take()) == [1, 2]
    assert broker.core.log.last == 2


def test_a_gap_is_answered_with_the_expected_pseq(broker: MemoryBroker) -> None:
    shop = Shop(broker)
    shop.publish(event(1))
    assert shop.send(3, event(3)) == [{"command": "PUBNACK", "producer": "shop/box", "expected": 2, "code": "EXPECTED"}]


def test_one_ok_two_busy_three_ok_loses_nothing() -> None:
    broker = MemoryBroker(MESH + "pending_events_max = 128\npublish_events_max = 128\n")
    shop, consumer = Shop(broker), Consumer(broker)
    broker.hold_commits = True
    assert shop.send(1, *[event(n, f"o-{n}") for n in range(1, 129)]) == []
    busy = shop.send(129, event(129, "o-129"))[0]
    assert busy["code"] == "BUSY"
    assert busy["retry_after_ms"] > 0
    broker.release()
    assert shop.send(130, event(130, "o-130"))[-1]["expected"] == 129
    shop.send(129, event(129, "o-129"), event(130, "o-130"))
    assert sorted(numbers(consumer.take())) == list(range(1, 131))


def test_busy_when_the_log_is_full() -> None:
    broker = MemoryBroker(MESH + "log_bytes_max = 2048\n")
    shop = Shop(broker)
    answers = [shop.send(n, event(n, pad="x" * 500))[0] for n in range(1, 4)]
    assert [a.get("upto") for a in answers] == [1, 2, None]
    assert answers[-1]["code"] == "BUSY"


@pytest.mark.parametrize(
    ("bad", "code", "field"),
    [
        (event(2) | {"data": {}}, "SCHEMA", "data.n"),
        (event(2, lines=[{"quantity": 0}]), "SCHEMA", "data.lines[0].quantity"),
        (event(2) | {"subject": ""}, "SCHEMA", "subject"),
        (event(2) | {"time": "yesterday"}, "SCHEMA", "time"),
        (event(2) | {"source": "/bank"}, "SCHEMA", "source"),
        (event(2) | {"source": "/shopping"}, "SCHEMA", "source"),
        (event(2) | {"source": "shop"}, "SCHEMA", "source"),
        (event(2) | {"traceparent": "x"}, "SCHEMA", "traceparent"),
        (event(2) | {"specversion": "0.3"}, "SCHEMA", "specversion"),
        ({k: v for k, v in event(2).items() if k != "id"}, "SCHEMA", "id"),
        (event(2, topic="shop.order.lost.v1"), "ACL", "type"),
        (event(2, topic="bank.payment.captured.v1"), "ACL", "type"),
        (event(2, pad="x" * 5000), "TOO_LARGE", ""),
        ("text", "SCHEMA", ""),
    ],
)
def test_a_final_refusal_names_the_field_and_spends_its_pseq(
    broker: MemoryBroker, bad: dict[str, object], code: str, field: str
) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    ack = shop.publish(event(1, "a"), bad, event(3, "b"))[0]
    assert ack["upto"] == 3
    assert [(r["pseq"], r["code"], r["field"]) for r in ack["refused"]] == [(2, code, field)]
    assert ack["refused"][0]["text"]
    assert numbers(consumer.take()) == [1, 3]


def test_a_refusal_is_told_again_when_asked_again_and_in_welcome(broker: MemoryBroker) -> None:
    shop = Shop(broker)
    first = shop.publish(event(1) | {"data": {}})[0]["refused"]
    assert shop.send(1, event(1) | {"data": {}})[0]["refused"] == first
    broker.restart()
    again = Shop(broker)
    assert again.welcome["producer"] == {"mark": 1, "last_id": None, "refused": first}


def test_welcome_tells_mark_and_last_id(broker: MemoryBroker) -> None:
    Shop(broker).publish(event(1), event(2))
    assert Shop(broker).welcome["producer"] == {"mark": 2, "last_id": "e-2", "refused": []}


def test_a_new_session_of_the_outbox_gets_the_ack_of_what_was_under_way(broker: MemoryBroker) -> None:
    old = Shop(broker)
    broker.hold_commits = True
    old.publish(event(1))
    new = Shop(broker)
    assert new.welcome["producer"]["mark"] == 0
    assert new.publish(event(1)) == []
    broker.release()
    assert new.heard("PUBACK")[0]["upto"] == 1
    assert broker.core.log.last == 1


def test_the_newest_session_of_a_slot_wins(broker: MemoryBroker) -> None:
    old = Shop(broker)
    Shop(broker)
    assert [m["command"] for m in old.heard()] == ["FENCED"]
    assert old.publish(event(1))[0]["code"] == "NO_SESSION"


def test_pub_needs_the_producer_of_hello(broker: MemoryBroker) -> None:
    shop = Shop(broker)
    answer = shop.say("PUB", [event(1)], producer="shop/other", first=1)[0]
    assert (answer["code"], answer["closes"]) == ("PRODUCER", True)


def test_the_bytes_of_an_event_are_unchanged(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    body = b'{ "traceparent" : null,"data":{"n":1 ,"x":1.50,"y":"\\u00e9"},"extension":"e",'
    body += (
        b'"type":"%s",' % PLACED.encode() + b'"subject":"s","id":"i","source":"/shop/till-1","specversion":"1.0",'
        b'"time":"2026-11-23T12:00:00.5+01:00","datacontenttype":"application/json"}'
    )
    shop.peer.send([b"A1PUB", b'{"producer":"shop/box","first":1}', b"[\n" + body + b" ]"])
    assert shop.heard("PUBACK")[0]["refused"] == []
    delivered = next(frames for frames in consumer.peer.frames() if frames[0] == b"A1MSG")
    assert delivered[2] == b"[" + body + b"]"


def test_a_schema_can_not_fetch_or_stall(broker: MemoryBroker) -> None:
    schemas: list[object] = [{"$ref": "http://127.0.0.1:9/x"}, {"$ref": "file:///etc/passwd"}]
    schemas += [{"pattern": "(?=a)b"}, {"type": "thing"}, [], 7]
    for schema in schemas:
        peer = broker.connect("shop")
        peer.say("HELLO", slot="shop/1", process="p", contracts={"publishes": {PLACED: schema}})
        error = peer.heard()[0]
        assert (error["code"], error["field"], error["closes"]) == ("CONTRACT", f"contracts.publishes.{PLACED}", True)
