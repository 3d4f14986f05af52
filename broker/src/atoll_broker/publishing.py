"""PUB's way in: admit, check, number, hand to the journal; and after the commit, the PUBACK.

Everything that is taken has its place in the log and its pseq before it is on disk; only the answer waits. A batch is
taken as a whole or answered BUSY as a whole, so the bounds hold and nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Raw

from . import codec, events
from .commands import Header, Pub, PubAck, PubBusy, PubExpected, Refusal, Window
from .errors import EventRefusedError, WireError
from .journal import Journal
from .log import Log
from .mesh import Bus
from .producers import Producer
from .rates import Bucket
from .sessions import Session
from .storage import ProducerRecord, StoredEvent, WriteBatch

RETRY_PENDING_MS: Final = 50
RETRY_LOG_FULL_MS: Final = 2000
DISK_FULL_SECONDS: Final = 1.0
OPERATOR: Final = "operator"  # the outbox, so to speak, of what operators publish


class Publishing:
    def __init__(
        self, bus: Bus, log: Log, journal: Journal, records: dict[str, ProducerRecord], wall_ms: Callable[[], int]
    ) -> None:
        self.window = Window(bus.publish_events_max, bus.publish_bytes_max)
        self.pending_events = 0
        self.refused_total = 0
        self._bus = bus
        self._log = log
        self._journal = journal
        self._wall_ms = wall_ms
        self._next_seq = log.last + 1
        self._pending_bytes = 0
        self._producers = {name: Producer(name, record) for name, record in records.items()}
        self._due: set[str] = set()
        self._buckets: dict[str, Bucket] = {}
        self.full_until: float | None = None  # the disk is full; then it is tried again

    def reconfigure(self, bus: Bus) -> None:
        """Bounds on the log that may change while it runs."""
        self._bus = bus

    # ---- sessions ----------------------------------------------------------------------------------------------------

    def open(self, name: str) -> Producer:
        """Raises WireError LIMIT."""
        producer = self._producers.get(name)
        if producer is None:
            if len(self._producers) >= self._bus.producers_max:
                raise WireError("LIMIT", f"the broker knows {self._bus.producers_max} producers, its bound", "producer")
            producer = self._producers[name] = Producer(name, ProducerRecord(0, None))
        return producer

    def close(self, name: str) -> None:
        """A producer that never published is not worth remembering."""
        if (producer := self._producers.get(name)) is not None and producer.taken == 0:
            del self._producers[name]
            self._buckets.pop(name, None)

    # ---- PUB ---------------------------------------------------------------------------------------------------------

    def take(self, session: Session, pub: Pub, payload: bytes, rate: float, now: float) -> Header | None:
        """The answer, if it can be given now; `rate` is the producer's, in events a second. Raises WireError."""
        batch = codec.decode_batch(payload, self._bus.batch_events_max, self._bus.batch_bytes_max)
        producer = self._producers[pub.producer]
        if pub.first > producer.next:
            return PubExpected(producer.name, producer.next)
        fresh = batch[producer.next - pub.first :]
        if fresh and (busy := self._busy(producer, fresh, rate, now)) is not None:
            return busy
        if len(fresh) < len(batch):
            self._repeated(producer, pub.first, pub.first + len(batch) - 1)
        if fresh:
            self._take_all(session, producer, fresh)
        return None

    def _repeated(self, producer: Producer, first: int, last: int) -> None:
        """Duplicates. Those that are still on their way get their ack with the commit, and not before."""
        producer.repeat(first)
        if last <= producer.mark:
            self._due.add(producer.name)

    def _busy(self, producer: Producer, fresh: Sequence[Raw], rate: float, now: float) -> PubBusy | None:
        if self.full_until is not None and now < self.full_until:
            return PubBusy(producer.name, int(DISK_FULL_SECONDS * 1000))
        busy = self._out_of_bounds(producer, fresh)
        return busy if busy is not None else self._too_fast(producer, len(fresh), rate, now)

    def _too_fast(self, producer: Producer, events: int, rate: float, now: float) -> PubBusy | None:
        bucket = self._buckets.get(producer.name)
        if bucket is None:
            bucket = self._buckets[producer.name] = Bucket(rate)
        elif bucket.rate != rate:
            bucket.set_rate(rate, now)
        if not bucket.room(now):
            return PubBusy(producer.name, bucket.wait_ms())
        bucket.take(events)
        return None

    def _out_of_bounds(self, producer: Producer, fresh: Sequence[Raw]) -> PubBusy | None:
        size = sum(len(memoryview(event)) for event in fresh)
        if self._log.bytes + self._pending_bytes + size > self._bus.log_bytes_max:
            return PubBusy(producer.name, RETRY_LOG_FULL_MS)
        if (
            producer.pending + len(fresh) > self._bus.publish_events_max
            or producer.taken_bytes + size > self._bus.publish_bytes_max
            or self.pending_events + len(fresh) > self._bus.pending_events_max
            or self._pending_bytes + size > self._bus.pending_bytes_max
        ):
            return PubBusy(producer.name, RETRY_PENDING_MS)
        return None

    def _take_all(self, session: Session, producer: Producer, fresh: Sequence[Raw]) -> None:
        stored_ms = self._wall_ms()
        for event in fresh:
            try:
                envelope = events.check(event, session.contract, self._bus.event_bytes_max, session.identity)
            except EventRefusedError as refused:
                self._refuse(producer, refused)
            else:
                self._store(producer, envelope, bytes(event), stored_ms)
        self._journal.producer(producer.name, producer.record())

    def _refuse(self, producer: Producer, refused: EventRefusedError) -> None:
        self.refused_total += 1
        self.pending_events += 1
        producer.take(None, Refusal(producer.next, refused.code, refused.field, refused.text))

    def _store(self, producer: Producer, envelope: events.Envelope, body: bytes, stored_ms: int) -> None:
        pseq = producer.take(envelope.id, None)
        producer.taken_bytes += len(body)
        self._pending_bytes += len(body)
        self.pending_events += 1
        self._journal.event(
            StoredEvent(
                self._next_seq, envelope.type, envelope.subject, envelope.id, producer.name, pseq, stored_ms, body
            )
        )
        self._next_seq += 1

    def publish(self, identity: str, event: Raw, contract: events.Contract, now: float) -> int:
        """An operator's own event, checked as anybody's; its seq, true once the commit is on disk. Raises WireError and
        EventRefusedError."""
        producer = self.open(f"{identity}/{OPERATOR}")
        if self._busy(producer, [event], 0, now) is not None:
            raise WireError("BUSY", "what waits for the disk, the log or the disk itself is full: try again later")
        envelope = events.check(event, contract, self._bus.event_bytes_max, None)
        self._store(producer, envelope, bytes(event), self._wall_ms())
        self._journal.producer(producer.name, producer.record())
        return self._next_seq - 1

    # ---- after the commit --------------------------------------------------------------------------------------------

    def disk_full(self, now: float) -> list[PubBusy]:
        """Nothing of what was taken since the last commit has been written: it counts as never sent. Who must hear."""
        self.full_until = now + DISK_FULL_SECONDS
        self._next_seq = self._log.last + 1
        self.pending_events = self._pending_bytes = 0
        waiting = [name for name, producer in self._producers.items() if producer.take_back()]
        return [PubBusy(name, int(DISK_FULL_SECONDS * 1000)) for name in waiting]

    def committed(self, batch: WriteBatch) -> None:
        self.full_until = None
        for event in batch.events:
            self._pending_bytes -= len(event.body)
            self._producers[event.producer].taken_bytes -= len(event.body)
        for name, record in batch.producers.items():
            producer = self._producers[name]
            self.pending_events -= record.mark - producer.mark
            producer.committed(record)
            self._due.add(name)

    def take_acks(self) -> list[PubAck]:
        """One for each producer whose mark moved, or who asked again."""
        due, self._due = self._due, set()
        return [self._producers[name].ack(self.window) for name in due if name in self._producers]
