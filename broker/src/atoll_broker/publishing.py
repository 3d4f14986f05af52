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
from .sessions import Session
from .storage import ProducerRecord, StoredEvent, WriteBatch

RETRY_PENDING_MS: Final = 50
RETRY_LOG_FULL_MS: Final = 2000


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

    # ---- PUB ---------------------------------------------------------------------------------------------------------

    def take(self, session: Session, pub: Pub, payload: bytes) -> Header | None:
        """The answer, if it can be given now. Raises WireError."""
        if pub.producer != session.hello.producer:
            raise WireError("PRODUCER", f"this session opened {session.hello.producer}", "producer")
        batch = codec.decode_batch(payload, self._bus.batch_events_max, self._bus.batch_bytes_max)
        producer = self._producers[pub.producer]
        if pub.first > producer.next:
            return PubExpected(producer.name, producer.next)
        fresh = batch[producer.next - pub.first :]
        if fresh and (busy := self._busy(producer, fresh)) is not None:
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

    def _busy(self, producer: Producer, fresh: Sequence[Raw]) -> PubBusy | None:
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
                envelope = events.check(event, session.contract, self._bus.event_bytes_max)
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

    # ---- after the commit --------------------------------------------------------------------------------------------

    def committed(self, batch: WriteBatch) -> None:
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
