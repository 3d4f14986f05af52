"""The consumer against a broker that says what it is told to: what is a duplicate, and what is nobody's fault."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator

import pytest
from scripted import Notes, ScriptedBroker, event, until

import atoll
from atoll import _consumer, _outbox
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


class Disk:
    """Under the database: while it is full, no commit succeeds."""

    def __init__(self) -> None:
        self.full = False
        self.failed = 0

    def append(self, connection: sqlite3.Connection, events: object) -> None:
        """The last step before a commit."""
        if self.full:
            self.failed += 1
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(_outbox, "append", disk.append)
    monkeypatch.setattr(_consumer, "_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(_consumer, "AWAY_SECONDS", (0.05, 0.1))
    return disk


async def test_with_a_full_disk_it_hands_back_what_it_has_and_joins_again_when_there_is_room(
    consumer: Consumer, broker: ScriptedBroker, database: atoll.Database, disk: Disk
) -> None:
    """Leases that run out are attempts, and after the last of them events that nobody is to blame for are dead."""
    disk.full = True
    broker.deliver(event("e-1", {"text": "a"}), event("e-2", {"text": "b"}, subject="o-2"))
    await until("BYE", lambda: broker.of("BYE"))
    assert "disk is full" in broker.of("BYE")[0]["reason"]
    assert (consumer.in_flight, "disk is full" in str(consumer.away)) == (0, True)
    await until("the next session", lambda: len(broker.of("HELLO")) == 2)
    failed = disk.failed
    await until("more looks", lambda: disk.failed >= failed + 3)
    assert (len(broker.of("SUB")), len(broker.of("BYE"))) == (1, 1), "the relay has its session; no event comes"
    disk.full = False
    await until("another SUB", lambda: len(broker.of("SUB")) == 2)
    assert consumer.away is None
    broker.deliver(event("e-1", {"text": "a"}))
    await until("an ack", lambda: broker.of("ACK"))
    assert not broker.of("NACK")
    assert not broker.of("TERM")
    assert await database.read(lambda reader: reader.all("SELECT * FROM atoll_inbox WHERE id = ''")) == []


async def test_a_moment_without_room_costs_no_session(consumer: Consumer, broker: ScriptedBroker, disk: Disk) -> None:
    disk.full = True
    broker.deliver(event("e-1", {"text": "a"}))
    await until("a failure", lambda: disk.failed == 1)
    disk.full = False
    await until("the ack", lambda: broker.of("ACK"))
    assert not broker.of("BYE")


async def test_the_next_session_is_not_left_for_the_last_ones_failure(
    consumer: Consumer, broker: ScriptedBroker, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, gate = asyncio.get_running_loop(), threading.Event()

    def append(connection: sqlite3.Connection, events: object) -> None:
        if disk.failed == 1:
            loop.call_soon_threadsafe(broker.lose)
            gate.wait(5)
        disk.append(connection, events)

    monkeypatch.setattr(_outbox, "append", append)
    disk.full = True
    broker.deliver(event("e-1", {"text": "a"}))
    await until("the next session", lambda: len(broker.of("CREDIT")) == 2)
    gate.set()
    await until("the failure", lambda: disk.failed == 2)
    disk.full = False
    broker.deliver(event("e-1", {"text": "a"}))
    await until("the ack", lambda: broker.of("ACK"))
    assert not broker.of("BYE")


async def test_who_is_away_can_be_drained(consumer: Consumer, broker: ScriptedBroker, disk: Disk) -> None:
    disk.full = True
    broker.deliver(event("e-1", {"text": "a"}))
    await until("the next session", lambda: len(broker.of("HELLO")) == 2)
    async with asyncio.timeout(1):
        await consumer.drain(5)
    assert not broker.of("DRAIN"), "it is no member"
    disk.full = False
    await until("room", lambda: consumer.away is None)
    assert len(broker.of("SUB")) == 1


async def test_a_constraint_that_fails_at_the_commit_is_the_events_own_fault(
    consumer: Consumer, broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handed back without an attempt it would come again for ever."""
    tried = 0

    def append(connection: sqlite3.Connection, events: object) -> None:
        nonlocal tried
        tried += 1
        raise sqlite3.IntegrityError("FOREIGN KEY constraint failed")

    monkeypatch.setattr(_consumer, "_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(_outbox, "append", append)
    broker.deliver(event("e-1", {"text": "a"}))
    await until("more tries", lambda: tried >= 4)
    assert not broker.of("BYE")
    assert consumer.in_flight == 1
