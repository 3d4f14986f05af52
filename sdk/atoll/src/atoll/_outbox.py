"""The outbox: events wait in the service's own database until the broker has fsynced them.

State and event are one commit, so an event is published if and only if what it tells of has happened.

Each event has a `pseq`, taken from a counter row in the last step of the transaction: numbers follow the order of
commits and have no gaps, even when transactions roll back. The broker takes exactly the next number, so a batch that is
sent twice is a duplicate and a batch that is lost is noticed. Rows are deleted once acknowledged. A refused row stays,
with the broker's code, for a human: it is a bug in a contract or a grant.
"""

from __future__ import annotations

import datetime
import re
import sqlite3
import uuid
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from . import _tracing
from ._errors import DatabaseLockedError, EventTooLargeError, UndeclaredTopicError

EVENT_BYTES_MAX = 262_144
"""Until the broker has said its own limit in WELCOME."""
SUBJECT_LENGTH_MAX = 256
_TOPIC = re.compile(r"[a-z][a-z0-9_-]{0,39}(\.[a-z][a-z0-9_-]{0,39}){1,6}\.v[1-9][0-9]{0,2}")


class Appended(NamedTuple):
    """An event ready for the outbox; it has no number yet."""

    id: str
    topic: str
    event: bytes


class Envelope(msgspec.Struct, omit_defaults=True):
    """A CloudEvents 1.0 event as it is stored, sent and kept: these bytes never change."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: str
    data: msgspec.Raw
    traceparent: str | None = None


class Publisher:
    """Makes events: checks the topic against the contract and the size against the bus's limit."""

    def __init__(self) -> None:
        self._service: str | None = None
        self._topics: Collection[str] | None = None
        self.event_bytes_max = EVENT_BYTES_MAX
        self._encoder = msgspec.json.Encoder(decimal_format="string")

    def bind(self, service: str, topics: Collection[str]) -> None:
        """Sets who publishes and what it may. Unbound (a store tested alone) any well-formed topic is taken."""
        self._service, self._topics = service, frozenset(topics)

    def event(self, topic: str, subject: str, data: msgspec.Struct) -> Appended:
        """Builds the event. Raises UndeclaredTopicError, EventTooLargeError or ValueError."""
        self._check(topic, subject)
        event_id = str(uuid.uuid4())
        with _tracing.publishing(topic, event_id, subject) as traceparent:
            envelope = Envelope(
                specversion="1.0",
                id=event_id,
                source=f"/{self._service or topic.partition('.')[0]}",
                type=topic,
                subject=subject,
                time=_now(),
                datacontenttype="application/json",
                data=msgspec.Raw(self._encoder.encode(data)),
                traceparent=traceparent,
            )
            encoded = msgspec.json.encode(envelope)
        if len(encoded) > self.event_bytes_max:
            raise EventTooLargeError(f"{topic}: {len(encoded)} bytes, the bus takes {self.event_bytes_max}")
        return Appended(event_id, topic, encoded)

    def _check(self, topic: str, subject: str) -> None:
        if self._topics is not None and topic not in self._topics:
            raise UndeclaredTopicError(f"{topic} is not in contract/publishes")
        if not _TOPIC.fullmatch(topic):
            raise ValueError(f"topic {topic!r}: expected service.noun.past-tense.v1")
        if not 0 < len(subject) <= SUBJECT_LENGTH_MAX:
            raise ValueError(f"subject has {len(subject)} characters: expected 1 to {SUBJECT_LENGTH_MAX}")


def append(connection: sqlite3.Connection, events: Sequence[Appended]) -> None:
    """The last step of a transaction: numbers the events and inserts them."""
    if not events:
        return
    row = connection.execute(
        "UPDATE atoll_producer SET next_pseq = next_pseq + ? RETURNING next_pseq", (len(events),)
    ).fetchone()
    first = row[0] - len(events)
    connection.executemany(
        "INSERT INTO atoll_outbox (pseq, id, topic, event) VALUES (?, ?, ?, ?)",
        [(first + i, event.id, event.topic, event.event) for i, event in enumerate(events)],
    )


class Producer(NamedTuple):
    """The producer row: who the outbox is and how far it got."""

    uuid: str
    next_pseq: int
    acked_pseq: int
    acked_id: str | None
    log: str | None


class Waiting(NamedTuple):
    """One unacknowledged row."""

    pseq: int
    id: str
    topic: str
    event: bytes


class Refused(NamedTuple):
    """A final refusal by the broker; its number is spent."""

    pseq: int
    code: str
    field: str | None
    text: str


def adopt(connection: sqlite3.Connection, service: str) -> None:
    """Writes the service's name into a new database. Raises DatabaseLockedError if it is another service's."""
    connection.execute("UPDATE atoll_producer SET service = coalesce(service, ?)", (service,))
    owner = connection.execute("SELECT service FROM atoll_producer").fetchone()[0]
    if owner != service:
        raise DatabaseLockedError(f"this database belongs to {owner!r}, not to {service!r}")


def producer(connection: sqlite3.Connection) -> Producer:
    """The producer row."""
    return Producer(
        *connection.execute("SELECT uuid, next_pseq, acked_pseq, acked_id, log FROM atoll_producer").fetchone()
    )


def waiting(connection: sqlite3.Connection, first: int, events_max: int, bytes_max: int) -> list[Waiting]:
    """Rows from `first` on, a run without gaps: at most so many, at most so many bytes (one at least)."""
    taken: list[Waiting] = []
    size = 0
    rows = connection.execute(
        "SELECT pseq, id, topic, event FROM atoll_outbox WHERE pseq >= ? AND code IS NULL ORDER BY pseq LIMIT ?",
        (first, events_max),
    )
    for row in rows:
        size += len(row["event"]) + 1
        if taken and size > bytes_max:
            break
        taken.append(Waiting(*row))
    assert not taken or taken[0].pseq == first, "the outbox has a gap"
    return taken


def counts(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many rows wait, how many were refused."""
    row = connection.execute("SELECT count(*), count(code) FROM atoll_outbox").fetchone()
    return row[0] - row[1], row[1]


def id_of(connection: sqlite3.Connection, pseq: int) -> str | None:
    """The event id of a row that is still there."""
    row = connection.execute("SELECT id FROM atoll_outbox WHERE pseq = ?", (pseq,)).fetchone()
    return None if row is None else str(row[0])


def acknowledge(connection: sqlite3.Connection, log: str, upto: int, refused: Sequence[Refused]) -> None:
    """Deletes what the broker has fsynced, keeps what it refused, and moves the mark. Repeating it does nothing."""
    connection.executemany(
        "UPDATE atoll_outbox SET code = ?, field = ?, text = ? WHERE pseq = ?",
        [(row.code, row.field, row.text, row.pseq) for row in refused],
    )
    connection.execute(
        "UPDATE atoll_producer SET log = ?1, acked_pseq = ?2,"
        " acked_id = coalesce((SELECT id FROM atoll_outbox WHERE pseq = ?2), acked_id) WHERE acked_pseq < ?2",
        (log, upto),
    )
    connection.execute("DELETE FROM atoll_outbox WHERE pseq <= ? AND code IS NULL", (upto,))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
