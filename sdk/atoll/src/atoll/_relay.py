"""The relay: moves the outbox to the broker, in order, as fast as the broker takes it.

One a database. It sends batches from `mark + 1`, as many events unacknowledged as the broker's credit allows:

    WELCOME mark ─▶ next = mark + 1 ─▶ PUB next… ─▶ PUBACK upto: rows ≤ upto leave the outbox, the refused ones stay
                         ▲                 │
                         └─ go back ◀──────┴── BUSY (wait first) or EXPECTED

Sending something twice is harmless (the broker takes exactly the next number), skipping something is impossible (the
same). So whenever in doubt it goes back. What it must not do is talk to a broker whose log is not the one that it
knows: after a restored backup on either side, numbers mean other events. Then it stops, loudly, and the outbox fills.
"""

from __future__ import annotations

import asyncio
import datetime
import random
import sqlite3
from collections import deque
from typing import NamedTuple

import msgspec
import structlog
from opentelemetry.trace import Span

from . import _codec as wire
from . import _outbox, _tracing
from ._counters import RelayCounters
from ._database import Database, Reader, Transaction, connection_of
from ._errors import AtollError, OverloadedError, StorageError
from ._session import Link

SETTLE_SECONDS = 0.005
"""Acknowledgements that come within it share one clean-up of the outbox; nothing waits for that."""
_RETRY_SECONDS = 1.0
_log = structlog.get_logger("atoll.relay")


class _Sent(NamedTuple):
    pseq: int
    bytes: int
    span: Span | None


class _Trace(msgspec.Struct):
    time: datetime.datetime
    subject: str
    traceparent: str | None = None


_TRACE = msgspec.json.Decoder(_Trace)


class Relay:
    """Sends the outbox of one database; a Part of the session. `run` is its task."""

    def __init__(self, database: Database, service: str) -> None:
        self._database = database
        self._service = service
        self._link: Link | None = None
        self._producer = ""
        self._bell = asyncio.Event()
        self._settle_bell = asyncio.Event()
        self._credit = wire.Window(0, 0)
        self._sent: deque[_Sent] = deque()
        self._sent_bytes = 0
        self._next = 0
        self._sent_upto = 0
        """The highest number that this process has sent; what is not above it and sent is sent again."""
        self._acked = 0
        self._settled = 0
        self._acked_before = 0
        """What earlier sessions had acknowledged when this one began; the broker's mark cannot be below it."""
        self._refusals: list[_outbox.Refused] = []
        self._wait_until = 0.0
        self.counters = RelayCounters()
        self.stopped: str | None = None
        """Why the outbox and the broker's log do not fit."""
        self.refused_rows = 0

    async def open(self) -> str:
        """Checks that the database is this service's own; returns the producer id. Raises DatabaseLockedError."""

        def work(tx: Transaction) -> _outbox.Producer:
            connection = connection_of(tx)
            _outbox.adopt(connection, self._service)
            return _outbox.producer(connection)

        producer = await self._database.write(work)
        self._producer = f"{self._service}/{producer.uuid}"
        self._acked = self._settled = producer.acked_pseq
        self.refused_rows = (await self.counts())[1]
        self._database.on_commit = self._bell.set
        return self._producer

    async def counts(self) -> tuple[int, int]:
        """Rows that wait, rows that were refused."""
        return await self._database.read(lambda reader: _outbox.counts(connection_of(reader)))

    async def run(self) -> None:
        """Sends and settles until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_loop(), name="atoll relay: send")
            tasks.create_task(self._settle_loop(), name="atoll relay: settle")

    async def flush(self, timeout_seconds: float) -> bool:
        """Waits until the outbox is empty, for at most so long; false if something is left for the next start."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while (await self.counts())[0] > 0:
            if self._link is None or self.stopped or asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    # ---- Part --------------------------------------------------------------------------------------------------

    def welcomed(self, link: Link) -> None:
        """Compares the broker's mark with the outbox, then sends from there."""
        self._link = link
        self._credit = link.welcome.credit
        self._database.publisher.event_bytes_max = link.welcome.limits.event_bytes
        self._acked_before = self._acked
        self._next = 0  # unknown until the comparison, which reads the database
        self._bell.set()

    def received(self, message: wire.Incoming, frames: list[bytes]) -> None:  # noqa: ARG002 - Part
        """PUBACK, PUBNACK."""
        match message:
            case wire.PubAck():
                self._credit = message.credit
                self._acknowledged(message.upto, message.refused)
            case wire.PubNack(code="BUSY"):
                self.counters.busy += 1
                self._pause(message.retry_after_ms / 1000)
                self._go_back(self._acked + 1)
            case wire.PubNack(code="EXPECTED"):
                self.counters.went_back += 1
                self._expected(message.expected)

    def lost(self) -> None:
        """Forgets what was in flight; it is sent again."""
        self._link = None
        self._go_back(0)

    # ---- sending -----------------------------------------------------------------------------------------------

    async def _send_loop(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            try:
                while await self._send_some():
                    pass
            except (AtollError, sqlite3.Error) as error:
                _log.warning("the relay could not read the outbox", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
                self._bell.set()

    async def _send_some(self) -> bool:
        """Sends one batch; false if there is nothing to send, or no leave to."""
        link = self._link
        if link is None or (self._next == 0 and not await self._compare(link)):
            return False
        first = self._next
        room = self._room(link)
        if self.stopped or room.events <= 0 or room.bytes <= 0 or asyncio.get_running_loop().time() < self._wait_until:
            return False
        rows = await self._database.read(
            lambda reader: _outbox.waiting(connection_of(reader), first, room.events, room.bytes)
        )
        if not rows or link is not self._link or first != self._next:
            return bool(rows)
        link.send(wire.Pub(self._producer, first), wire.batch(row.event for row in rows))
        self._sent.extend(
            _Sent(row.pseq, len(row.event), _span(row, again=row.pseq <= self._sent_upto)) for row in rows
        )
        self._sent_bytes += sum(len(row.event) for row in rows)
        self._next = rows[-1].pseq + 1
        self._sent_upto = max(self._sent_upto, rows[-1].pseq)
        return True

    def _room(self, link: Link) -> wire.Window:
        limits = link.welcome.limits
        return wire.Window(
            min(self._credit.events - len(self._sent), limits.batch_events),
            min(self._credit.bytes - self._sent_bytes, limits.batch_bytes - 2),
        )

    async def _compare(self, link: Link) -> bool:
        """Does the broker's mark fit this outbox? If so, what is up to it is settled, and sending begins after it."""
        theirs = link.welcome.producer or wire.ProducerMark(0)

        def work(reader: Reader) -> tuple[_outbox.Producer, str | None]:
            connection = connection_of(reader)
            return _outbox.producer(connection), _outbox.id_of(connection, theirs.mark)

        ours, id_there = await self._database.read(work)
        if link is not self._link:
            return False
        misfit = _misfit(ours, max(ours.acked_pseq, self._acked_before), id_there, theirs, link.welcome.log)
        if misfit:
            self._stop(misfit)
            return False
        self.stopped = None
        # What was under way to the broker when the old session went may have been acknowledged to this one meanwhile.
        self._next = max(theirs.mark, self._acked) + 1
        self._acknowledged(theirs.mark, [one for one in theirs.refused if one.pseq > ours.acked_pseq])
        return True

    def _stop(self, why: str) -> None:
        if self.stopped != why:
            _log.error("the relay has stopped: outbox and broker do not fit", why=why, alarm=True)
        self.stopped = why

    # ---- answers -----------------------------------------------------------------------------------------------

    def _acknowledged(self, upto: int, refused: list[wire.Refusal]) -> None:
        verdicts = {one.pseq: one for one in refused}
        while self._sent and self._sent[0].pseq <= upto:
            sent = self._sent.popleft()
            self._sent_bytes -= sent.bytes
            _end(sent, verdicts.get(sent.pseq))
        self.counters.acked += max(0, upto - self._acked)
        self._acked = max(self._acked, upto)
        self._next = max(self._next, upto + 1) if self._next else 0
        self._refusals += [_outbox.Refused(one.pseq, one.code, one.field, one.text) for one in refused]
        self._settle_bell.set()
        self._bell.set()

    def _expected(self, expected: int) -> None:
        if expected <= self._acked:
            self._stop(f"the broker expects event {expected}; the outbox has none before {self._acked + 1}")
            return
        if expected < self._next:
            self._go_back(expected)

    def _go_back(self, pseq: int) -> None:
        """Forgets what was sent from `pseq` on; it goes out again, if the comparison has said that it may."""
        while self._sent and self._sent[-1].pseq >= pseq:
            sent = self._sent.pop()
            self._sent_bytes -= sent.bytes
            if sent.span is not None:
                _tracing.fail(sent.span, "not acknowledged; sent again", "not_acknowledged")
                sent.span.end()
        self._next = pseq if self._next else 0
        self._bell.set()

    def _pause(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        wait = seconds * random.uniform(1.0, 1.5)  # noqa: S311 - jitter, no secret
        self._wait_until = loop.time() + wait
        loop.call_later(wait + 0.001, self._bell.set)

    # ---- settling ----------------------------------------------------------------------------------------------

    async def _settle_loop(self) -> None:
        """Cleans the outbox up behind the acknowledgements, many of them in one commit."""
        while True:
            await self._settle_bell.wait()
            await asyncio.sleep(SETTLE_SECONDS)
            self._settle_bell.clear()
            try:
                await self._settle()
            except (StorageError, OverloadedError) as error:
                _log.warning("the outbox could not be cleaned up", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
                self._settle_bell.set()

    async def _settle(self) -> None:
        upto, refused, link = self._acked, list(self._refusals), self._link
        if link is None or (upto <= self._settled and not refused):
            return
        if self._next == 0:  # until the comparison the rows are what it compares with; it rings again
            return
        log = link.welcome.log
        await self._database.write(lambda tx: _outbox.acknowledge(connection_of(tx), log, upto, refused))
        self._settled = upto
        del self._refusals[: len(refused)]
        if refused:
            await self._alarm(refused)

    async def _alarm(self, refused: list[_outbox.Refused]) -> None:
        self.counters.refused += len(refused)
        self.refused_rows = (await self.counts())[1]
        for one in refused:
            _log.error("an event was refused", pseq=one.pseq, code=one.code, field=one.field, text=one.text, alarm=True)


def _misfit(
    ours: _outbox.Producer, acked: int, id_there: str | None, theirs: wire.ProducerMark, log: str
) -> str | None:
    """Why the broker's mark cannot be about this outbox, if so."""
    made = ours.next_pseq - 1
    if theirs.mark > made:
        return f"the broker has event {theirs.mark}, the outbox made {made}: was this database restored from a backup?"
    if theirs.mark < acked:
        what = "another log" if ours.log not in (None, log) else "its log"
        return f"the broker acked event {acked} and has {theirs.mark} in {what}: was its disk replaced?"
    ours_id = ours.acked_id if theirs.mark == ours.acked_pseq else id_there
    if theirs.mark and theirs.last_id and ours_id and theirs.last_id != ours_id:
        return f"event {theirs.mark} is {theirs.last_id} at the broker and {ours_id} here"
    return None


def _span(row: _outbox.Waiting, *, again: bool) -> Span | None:
    stored = _TRACE.decode(row.event)
    if not stored.traceparent:
        return None
    # From the append, to show the wait; once more from now, or two spans that came one after the other would overlap.
    began = None if again else stored.time
    return _tracing.relaying(row.topic, row.id, stored.subject, stored.traceparent, began)


def _end(sent: _Sent, verdict: wire.Refusal | None) -> None:
    if sent.span is None:
        return
    if verdict is not None:
        _tracing.fail(sent.span, f"{verdict.code}: {verdict.text}", verdict.code)
    sent.span.end()
