"""The consumer: one batch of deliveries, one commit, one acknowledgement.

    MSG ─▶ queue (bounded by credit) ─▶ writer thread: per event claim the inbox row, run the handler, each in its own
    savepoint ─▶ one COMMIT ─▶ ACK done + duplicate, NACK, TERM ─▶ CREDIT for what was handled

The verdict on an event is what its handler raised: nothing → done; `Reject` → TERM, a dead letter at once; `Retry` →
NACK with its delay; anything else → NACK with the group's backoff. An ACK goes out only after the commit. If the
session ends before it, the event is delivered again and found in the inbox: a duplicate, without effect.

While events are held, WIP extends their leases (the broker allows ten in all), so a slow batch is not delivered twice.

With a full disk there is no verdict, and no event is to blame; but leases that run out count as attempts, and after the
last of them all that came would be dead letters. So the consumer leaves: BYE hands everything back with its attempts
unchanged. BYE ends the session, and there is one for all parts: the relay and the watches are in the next one at once,
while the consumer subscribes there only after a commit has succeeded.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import structlog

from . import _codec as wire
from . import _inbox, _tracing
from ._counters import ConsumerCounters, Histogram
from ._database import Database, Outcome, Transaction, connection_of
from ._errors import OverloadedError, Reject, Retry, StorageError
from ._events import Event, SubscriptionTable
from ._session import Link

IN_FLIGHT_EVENTS_MAX = 256
IN_FLIGHT_BYTES_MAX = 8_388_608
"""What the broker may have sent and not got back as credit."""
BATCH_EVENTS_MAX = 128
"""Events in one commit: beyond it fsync is no longer what costs, and HTTP writes wait for the batch."""
BATCH_SECONDS = 1.0
"""About so long a batch may take, as the last one went: what is slow is acknowledged as it goes on, not all at its end.
Else a handler that is merely slow would look as if it hung, and leases would end before the last event is handled."""
COMMIT_TRIES_MAX = 2
"""Of a batch before it is handed back: a moment without room is not worth a session."""
AWAY_SECONDS = (5.0, 10.0)
"""From one look for room to the next; apart, since parts that share a disk find it full together."""
ERROR_LENGTH_MAX = 500
_RETRY_SECONDS = 1.0
_PURGE_PAUSE_SECONDS = 0.05
_log = structlog.get_logger("atoll.consumer")


class _Delivery(NamedTuple):
    arrival: wire.Arrival
    bytes: int
    seq: int
    attempt: int
    fence: int
    at: float

    @property
    def key(self) -> wire.SeqFence:
        return self.seq, self.fence


class Consumer:
    """Handles the events of one group; a Part of the session. `run` is its task."""

    def __init__(self, group: str, table: SubscriptionTable, database: Database) -> None:
        self._group = group
        self._table = table
        self._database = database
        self._link: Link | None = None
        self._queue: deque[_Delivery] = deque()
        self._held: dict[wire.SeqFence, _Delivery] = {}
        self._bell = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._lease_seconds = 30.0  # until SUBOK says
        self._lease_bell = asyncio.Event()
        self._draining = False
        self._batch_events = BATCH_EVENTS_MAX
        self.counters = ConsumerCounters()
        for topic in table.topics:
            self.counters.seconds[topic] = Histogram()
        self.gaps: dict[int, int] = {}
        """What this group will never get: first seq → last seq of the broker's log."""
        self.refused: str | None = None
        """Why the broker refused the subscription."""
        self.away: str | None = None
        """Why it has handed everything back and takes nothing for now: no commit succeeds."""

    @property
    def in_flight(self) -> int:
        """Deliveries that are here and not answered."""
        return len(self._held)

    @property
    def oldest_ms(self) -> int:
        """For how long the oldest of them has been here."""
        first = next(iter(self._held.values()), None)
        return 0 if first is None else int((time.monotonic() - first.at) * 1000)

    async def run(self) -> None:
        """Handles and extends leases until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._handle_loop(), name="atoll consumer: handle")
            tasks.create_task(self._extend_loop(), name="atoll consumer: leases")
            tasks.create_task(self._purge_loop(), name="atoll consumer: purge")

    async def drain(self, timeout_seconds: float) -> None:
        """Takes nothing new and finishes what is here, for at most so long; BYE hands back the rest."""
        self._draining = True
        if self.away is None:
            self._send(wire.Drain(self._group))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()

    # ---- Part --------------------------------------------------------------------------------------------------

    def welcomed(self, link: Link) -> None:
        """Subscribes, unless it has left the group."""
        self._link = link
        self._subscribe()

    def received(self, message: wire.Incoming, frames: list[bytes]) -> None:
        """SUBOK, MSG, STALE, GAP, and ERR about the group."""
        match message:
            case wire.SubOk(group=self._group):
                self._subscribed(message)
            case wire.Msg(group=self._group):
                self._arrived(message, frames)
            case wire.Stale(group=self._group):
                self.counters.stale += len(message.messages)
            case wire.Gap(group=self._group):
                self._note_gaps(message.gaps)
            case wire.Err(code="GROUP" | "ACL"):
                self.refused = f"{message.code}: {message.text}"

    def _note_gaps(self, gaps: Sequence[wire.GapSaid]) -> None:
        """The broker says them again at each SUB, and one may have grown meanwhile."""
        for gap in gaps:
            if self.gaps.get(gap.first) != gap.last:
                self.gaps[gap.first] = gap.last
                _log.error("events will never come", first=gap.first, last=gap.last, why=gap.why, alarm=True)

    def lost(self) -> None:
        """Forgets what was delivered: its leases died with the session, and it comes again."""
        self._link = None
        self._queue.clear()
        self._held.clear()

    def _subscribe(self) -> None:
        """Credit comes with SUBOK."""
        if self.away is None and not self._draining:
            self._send(wire.Sub(self._group, self._table.topics, IN_FLIGHT_EVENTS_MAX))

    def _subscribed(self, message: wire.SubOk) -> None:
        self.refused = None
        self._lease_seconds = message.lease_ms / 1000
        self._lease_bell.set()
        self._send(wire.Credit(self._group, IN_FLIGHT_EVENTS_MAX, IN_FLIGHT_BYTES_MAX))

    def _arrived(self, message: wire.Msg, frames: list[bytes]) -> None:
        now = time.monotonic()
        events = wire.decode_batch(frames, len(message.messages))
        for (arrival, size), (seq, attempt, _, fence) in zip(events, message.messages, strict=True):
            delivery = _Delivery(arrival, size, seq, attempt, fence, now)
            self._held[delivery.key] = delivery
            self._queue.append(delivery)
        self._idle.clear()
        self._bell.set()

    # ---- handling ----------------------------------------------------------------------------------------------

    async def _handle_loop(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch_events))]
                began = time.monotonic()
                await self._handle(batch)
                affordable = int(len(batch) * BATCH_SECONDS / max(time.monotonic() - began, 0.001))
                self._batch_events = max(1, min(affordable, BATCH_EVENTS_MAX))
            self._idle.set()

    async def _handle(self, batch: Sequence[_Delivery]) -> None:
        """Runs a batch and answers it; if the database cannot commit, tries again, then leaves."""
        link = self._link
        tries = 0
        while link is not None and link is self._link:
            try:
                outcomes = await self._database.write_each([self._work(delivery) for delivery in batch])
            except OverloadedError:
                await asyncio.sleep(_PURGE_PAUSE_SECONDS)
                continue
            failure = next((one.error for one in outcomes if isinstance(one.error, StorageError)), None)
            if failure is None:
                self._answer(link, batch, outcomes)
                return
            _log.error("a batch could not be committed", error=str(failure), events=len(batch))
            tries += 1
            if tries < COMMIT_TRIES_MAX or _is_constraint(failure):
                await asyncio.sleep(_RETRY_SECONDS)
            elif link is self._link:
                await self._stay_away(link, failure)

    async def _stay_away(self, link: Link, failure: StorageError) -> None:
        """Hands back all deliveries, and subscribes again once a commit succeeds."""
        self.away = str(failure)
        _log.error("no commit succeeds: what was delivered is handed back", why=self.away, alarm=True)
        link.send(wire.ClientBye(_sayable(f"storage: {failure}")))
        self.lost()
        self._idle.set()
        while self.away is not None:
            await asyncio.sleep(random.uniform(*AWAY_SECONDS))  # noqa: S311 - jitter, no secret
            with contextlib.suppress(StorageError, OverloadedError):
                await self._database.write(_probe)
                self.away = None
        _log.info("commits succeed again")
        self._subscribe()

    def _work(self, delivery: _Delivery) -> Any:
        """The work of one event; its value is whether it was new."""

        def work(tx: Transaction) -> bool:
            arrival = delivery.arrival
            with _tracing.processing(
                arrival.type, arrival.id, arrival.subject, self._group, delivery.attempt, arrival.traceparent
            ) as span:
                if not _inbox.claim(connection_of(tx), arrival.source, arrival.id, delivery.seq):
                    _tracing.duplicate(span)
                    return False
                subscription = self._table.get(arrival.type)
                if subscription is None:
                    raise Reject(f"no handler for {arrival.type}")
                started = time.perf_counter()
                subscription.handler(_event(delivery, subscription.decode(arrival.data)), tx)
            self.counters.seconds[arrival.type].observe(time.perf_counter() - started)
            return True

        return work

    def _answer(self, link: Link, batch: Sequence[_Delivery], outcomes: Sequence[Outcome]) -> None:
        """Sends the verdicts of a committed batch, then its credit. Into a session that is gone they go unheard."""
        if link is not self._link:
            return
        done: list[wire.SeqFence] = []
        duplicate: list[wire.SeqFence] = []
        for delivery, outcome in zip(batch, outcomes, strict=True):
            if outcome.error is not None:
                self._refuse(delivery, outcome.error)
            else:
                (done if outcome.value else duplicate).append(delivery.key)
            self._held.pop(delivery.key, None)
        self.counters.handled += len(done)
        self.counters.duplicate += len(duplicate)
        if done or duplicate:
            self._send(wire.Ack(self._group, done, duplicate))
        self._send(wire.Credit(self._group, len(batch), sum(delivery.bytes for delivery in batch)))

    def _refuse(self, delivery: _Delivery, error: Exception) -> None:
        text = _sayable(f"{type(error).__name__}: {error}")
        where = {"topic": delivery.arrival.type, "event_id": delivery.arrival.id, "attempt": delivery.attempt}
        if isinstance(error, Reject):
            self.counters.rejected += 1
            _log.error("event rejected", error=text, **where)
            self._send(wire.Term(self._group, [delivery.key], _sayable(error.reason), text))
            return
        self.counters.retried += 1
        delay_ms = int(error.after_seconds * 1000) if isinstance(error, Retry) else None
        if delay_ms is None:
            _log.warning("handler failed", error=text, **where, exc_info=error)
        self._send(wire.Nack(self._group, [delivery.key], delay_ms, text))

    def _send(self, message: wire.Outgoing) -> None:
        if self._link is not None:
            self._link.send(message)

    # ---- upkeep ------------------------------------------------------------------------------------------------

    async def _extend_loop(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):  # or the bell: a shorter lease than the one that it sleeps for
                async with asyncio.timeout(self._lease_seconds / 3):
                    await self._lease_bell.wait()
            self._lease_bell.clear()
            if self._held:
                self._send(wire.Wip(self._group, list(self._held)))

    async def _purge_loop(self) -> None:
        """After each WELCOME forgets inbox rows that are older than the log, a bounded number a commit."""
        purged: Link | None = None
        while True:
            await asyncio.sleep(_RETRY_SECONDS)
            link = self._link
            if link is None or link is purged:
                continue
            with contextlib.suppress(StorageError, OverloadedError):
                await self._purge(link.welcome.oldest)
                purged = link

    async def _purge(self, oldest: int) -> None:
        gone = _inbox.PURGE_ROWS_MAX
        while gone == _inbox.PURGE_ROWS_MAX:
            gone = await self._database.write(lambda tx: _inbox.purge(connection_of(tx), oldest))
            await asyncio.sleep(_PURGE_PAUSE_SECONDS)


def _is_constraint(failure: StorageError) -> bool:
    """Deferred to the commit it is a handler's fault: handed back without an attempt, the event would come for ever."""
    return isinstance(failure.__cause__, sqlite3.IntegrityError)


def _probe(tx: Transaction) -> None:
    """Writes a row and takes it away again: the commit needs room for the pages. A batch that needs more fails anew."""
    tx.execute("INSERT INTO atoll_inbox (source, id, seq) VALUES ('', '', 0)")
    tx.execute("DELETE FROM atoll_inbox WHERE source = '' AND id = ''")


def _sayable(text: str) -> str:
    """Bounded, and without what UTF-8 has no bytes for (part of a file's name, say): it must not stop the verdict."""
    return text[:ERROR_LENGTH_MAX].encode(errors="replace").decode()


def _event(delivery: _Delivery, data: Any) -> Event[Any]:
    arrival = delivery.arrival
    return Event(
        id=arrival.id,
        source=arrival.source,
        type=arrival.type,
        subject=arrival.subject,
        time=arrival.time,
        data=data,
        attempt=delivery.attempt,
        traceparent=arrival.traceparent,
    )
