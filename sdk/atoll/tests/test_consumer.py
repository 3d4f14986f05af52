"""The consumer against a broker that says what it is told to: what is a duplicate, and what is nobody's fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from scripted import Notes, ScriptedBroker, event, until

import atoll
from atoll._consumer import Consumer

CAPTURED = "payments.payment.captured.v1"


@pytest.fixture
def table() -> atoll.SubscriptionTable:
    """One handler: a row an event."""
    table = atoll.SubscriptionTable()

    @table.on(CAPTURED, Notes)
    def keep(event: atoll.Event[Notes], tx: atoll.Transaction) -> None:
        tx.execute("INSERT INTO note VALUES (?)", event.data.text)

    return table


@pytest.fixture
async def consumer(
    options: atoll.Options, database: atoll.Database, broker: ScriptedBroker, table: atoll.SubscriptionTable
) -> AsyncIterator[Consumer]:
    """One that has its credit."""
    consumer = Consumer("orders", table, database)
    broker.answers["SUB"] = lambda header, _: broker.say("SUBOK", group=header["group"], lease_ms=30_000)
    session = atoll.Session(options, connector=broker)
    session.add(consumer)
    task = asyncio.create_task(consumer.run())
    async with session:
        await until("credit", lambda: broker.of("CREDIT"))
        yield consumer
    task.cancel()
    await asyncio.wait([task])


async def test_what_was_published_again_is_known_for_as_long_as_the_log_has_either(
    consumer: Consumer, broker: ScriptedBroker, database: atoll.Database
) -> None:
    """The inbox forgets what the log has forgotten: the copy that stands further on in it counts."""
    for seq in (10, 5000, 20):
        broker.deliver(event("e-1", {"text": "a"}), seq=seq)
    await until("the duplicates", lambda: consumer.counters.duplicate == 2)
    await consumer._purge(oldest=11)
    broker.deliver(event("e-1", {"text": "a"}), seq=5000)  # replayed
    await until("its credit back", lambda: sum(credit["events"] for credit in broker.of("CREDIT")[1:]) == 4)
    assert (consumer.counters.handled, consumer.counters.duplicate) == (1, 3)
    await consumer._purge(oldest=5001)
    assert await database.read(lambda reader: reader.all("SELECT * FROM atoll_inbox")) == []
