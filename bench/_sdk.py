"""Worker: the whole promise, through the SDK. Outbox, relay and inbox as a service has them; no HTTP, no telemetry.

Role `publisher`: one transaction an event, 128 at once, as that many requests would make them. Role `consumer`: a
handler that leaves one row an event; the rows are what is checked, since an effect counts only when it is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import _events
import msgspec
from _processes import RunFailedError, say, work
from _report import percentile
from aiohttp import web

import atoll
from atoll import web as atoll_web

WRITERS = 128
_LOOK_SECONDS = 0.01
_EFFECTS = "CREATE TABLE effects (position INTEGER PRIMARY KEY, number INTEGER NOT NULL, subject TEXT NOT NULL) STRICT;"


class Job(msgspec.Struct):
    """What to do, as in `_wire`; `folder` is empty and this service's own."""

    role: str
    bus: str
    keys: Path
    folder: Path
    events: int
    rate: int = 0


def _options(job: Job, name: str) -> atoll.Options:
    """A service's folders, with the contract that it must have."""
    direction = "publishes" if job.role == "publisher" else "consumes"
    contract, migrations = job.folder / "contract", job.folder / "migrations"
    (contract / direction).mkdir(parents=True)
    (contract / direction / f"{_events.TOPIC}.schema.json").write_bytes(msgspec.json.encode(_events.SCHEMA))
    migrations.mkdir()
    (migrations / "0001-effects.sql").write_text(_EFFECTS)
    options = atoll.Options(
        slot=f"{name}/1", host="127.0.0.1", port=0, data=job.folder / "data", keys=job.keys, bus=job.bus,
        log_level="error", contract=contract, migrations=migrations,
    )  # fmt: skip
    atoll.logs.configure(options)
    return options


@contextlib.asynccontextmanager
async def _service(
    options: atoll.Options, database: atoll.Database, events: atoll.SubscriptionTable | None = None
) -> AsyncIterator[None]:
    """The service, up; drained at the end."""
    app = web.Application()
    attachment = atoll_web.attach(app, options, database=database, events=events)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await attachment.session.wait_up(10)
        yield
    finally:
        await runner.cleanup()


async def _until(database: atoll.Database, holds: Callable[[atoll.Reader], bool]) -> None:
    """Looks into the database until it is so: what another process makes of our events rings no bell here."""
    while True:
        if await database.read(holds):
            return
        await asyncio.sleep(_LOOK_SECONDS)


# ---- publishing --------------------------------------------------------------------------------------------------


async def _publish(job: Job) -> None:
    options = _options(job, "publisher")
    database = atoll.Database(options.data / "publisher.db", options.migrations)
    async with _service(options, database):
        began = time.monotonic()
        await (_publish_steadily(database, job) if job.rate else _publish_at_once(database, job))
        committed = time.monotonic()
        await _until(database, lambda reader: not _waiting(reader))
    say(began=began, committed_seconds=committed - began, acked_seconds=time.monotonic() - began)


def _waiting(reader: atoll.Reader) -> int:
    """Rows in the outbox. Raises RunFailedError if the broker has refused one."""
    row = reader.one("SELECT count(*), count(code), max(text) FROM atoll_outbox")
    assert row is not None
    if row[1]:
        raise RunFailedError(f"{row[1]} events were refused: {row[2]}")
    return int(row[0])


async def _publish_one(database: atoll.Database, number: int) -> None:
    data = _events.measured(number, time.monotonic_ns())
    await database.write(lambda tx: tx.publish(_events.TOPIC, _events.subject(number), data))


async def _publish_at_once(database: atoll.Database, job: Job) -> None:
    numbers = iter(range(job.events))

    async def writer(numbers: Iterable[int]) -> None:
        for number in numbers:  # drawn and queued without an await between: commits come in the order of numbers
            await _publish_one(database, number)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(WRITERS):
            tasks.create_task(writer(numbers))


async def _publish_steadily(database: atoll.Database, job: Job) -> None:
    """On a schedule, whatever is not yet committed; an event is stamped when it is really published."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(job.events):
            await asyncio.sleep(began + number / job.rate - time.monotonic())
            tasks.create_task(_publish_one(database, number))


# ---- consuming ---------------------------------------------------------------------------------------------------


async def _consume(job: Job) -> None:
    options = _options(job, "consumer")
    database = atoll.Database(options.data / "consumer.db", options.migrations)
    events = atoll.SubscriptionTable()
    waits: list[int] = []

    @events.on(_events.TOPIC, _events.Measured)
    def handle(event: atoll.Event[_events.Measured], tx: atoll.Transaction) -> None:
        waits.append(time.monotonic_ns() - event.data.sent_ns)
        tx.execute("INSERT INTO effects (number, subject) VALUES (?, ?)", event.data.number, event.subject)

    async with _service(options, database, events):
        say(ready=True)
        await _until(database, lambda reader: _effects(reader) >= job.events)
        ended = time.monotonic()
    _check(database.path, job.events)
    say(ended=ended, p50_ms=percentile(waits, 0.5) / 1e6, p99_ms=percentile(waits, 0.99) / 1e6, max_ms=max(waits) / 1e6)


def _effects(reader: atoll.Reader) -> int:
    row = reader.one("SELECT max(position) FROM effects")  # as good as a count, and costs nothing
    return int(row[0] or 0) if row is not None else 0


def _check(path: Path, events: int) -> None:
    """After the service has drained: what is in the database is what the events did."""
    ledger = _events.Ledger(events)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for number, subject in connection.execute("SELECT number, subject FROM effects ORDER BY position"):
            ledger.take(subject, number)
    if not ledger.complete:
        raise RunFailedError(f"{ledger.taken} effects of {events} events")


def _main(job: Job) -> None:
    asyncio.run({"publisher": _publish, "consumer": _consume}[job.role](job))


if __name__ == "__main__":
    work(Job, _main)
