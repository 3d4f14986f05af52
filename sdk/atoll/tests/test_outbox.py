"""Events are numbered without gaps, in the order of commits, and only what was committed is there."""

from __future__ import annotations

import msgspec
import pytest
from scripted import Notes, publish

import atoll
from atoll import _outbox
from atoll._database import connection_of

TOPIC = "orders.order.placed.v1"


async def _rows(database: atoll.Database) -> list[_outbox.Waiting]:
    return await database.read(lambda reader: _outbox.waiting(connection_of(reader), 1, 1000, 10_000_000))


async def test_numbers_have_no_gaps_when_transactions_roll_back(database: atoll.Database) -> None:
    def fail(tx: atoll.Transaction) -> None:
        tx.publish(TOPIC, "o-1", Notes("lost"))
        raise RuntimeError

    await publish(database, "a")
    with pytest.raises(RuntimeError):
        await database.write(fail)
    outcomes = await database.write_each([lambda tx: tx.publish(TOPIC, "o", Notes("b")), fail, fail] * 3)
    assert sum(one.error is None for one in outcomes) == 3
    assert [row.pseq for row in await _rows(database)] == [1, 2, 3, 4]


async def test_numbers_are_never_used_again_after_the_clean_up(database: atoll.Database) -> None:
    await publish(database, "a", "b")
    await database.write(lambda tx: _outbox.acknowledge(connection_of(tx), "log", 2, []))
    await publish(database, "c")
    rows = await database.read(lambda reader: _outbox.waiting(connection_of(reader), 3, 10, 1000))
    assert [row.pseq for row in rows] == [3]


async def test_the_event_is_cloudevents_with_the_data_of_the_struct(database: atoll.Database) -> None:
    await publish(database, "a", subject="o-9")
    event = msgspec.json.decode((await _rows(database))[0].event)
    assert event.pop("time").endswith("Z")
    assert event == {
        "specversion": "1.0",
        "id": (await _rows(database))[0].id,
        "source": "/orders",
        "type": TOPIC,
        "subject": "o-9",
        "datacontenttype": "application/json",
        "data": {"text": "a"},
    }


async def test_a_topic_outside_the_contract_is_refused_and_the_transaction_with_it(database: atoll.Database) -> None:
    database.publisher.bind("orders", ["orders.order.cancelled.v1"])
    with pytest.raises(atoll.UndeclaredTopicError, match="not in contract/publishes"):
        await publish(database, "a")
    assert await _rows(database) == []
    assert await database.read(lambda reader: reader.all("SELECT * FROM note")) == []


async def test_an_event_that_is_too_large_is_refused_at_the_append(database: atoll.Database) -> None:
    with pytest.raises(atoll.EventTooLargeError, match="262144"):
        await publish(database, "x" * 262_144)


@pytest.mark.parametrize(("topic", "subject"), [(TOPIC, ""), (TOPIC, "x" * 257), ("orders", "o"), ("Orders.a.v1", "o")])
async def test_a_malformed_topic_or_subject_is_refused(database: atoll.Database, topic: str, subject: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        await database.write(lambda tx: tx.publish(topic, subject, Notes("a")))


async def test_a_batch_is_bounded_in_events_and_bytes_and_never_empty(database: atoll.Database) -> None:
    await publish(database, *map(str, range(10)))
    sizes = [len(row.event) for row in await _rows(database)]

    def take(events: int, size: int) -> object:
        return database.read(lambda reader: len(_outbox.waiting(connection_of(reader), 1, events, size)))

    assert await take(4, 10_000) == 4  # type: ignore[misc]
    assert await take(10, sizes[0] + sizes[1] + 2) == 2  # type: ignore[misc]
    assert await take(10, 1) == 1  # type: ignore[misc]
