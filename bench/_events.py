"""What is sent: events of 256 B of data in a full envelope, and the book that is kept about their arrival."""

from __future__ import annotations

from typing import Any

import msgspec
from _processes import RunFailedError

TOPIC = "publisher.bench.measured.v1"
SUBJECTS = 1_000
DATA_BYTES = 256
BATCH_EVENTS_MAX = 128
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["number", "sent_ns", "filler"],
    "properties": {
        "number": {"type": "integer", "minimum": 0},
        "sent_ns": {"type": "integer", "minimum": 0},
        "filler": {"type": "string", "maxLength": DATA_BYTES},
    },
}


class Measured(msgspec.Struct):
    """The data. `sent_ns`: CLOCK_MONOTONIC when it was published, which all processes of a host share."""

    number: int
    sent_ns: int
    filler: str


class Arrived(msgspec.Struct):
    """As much of an event as has to be read on arrival."""

    subject: str
    data: Measured


def subject(number: int) -> str:
    """The ordering key of the event with that number."""
    return f"subject-{number % SUBJECTS}"


def measured(number: int, sent_ns: int = 0) -> Measured:
    """Data of exactly DATA_BYTES, encoded."""
    bare = msgspec.json.encode(Measured(number, sent_ns, ""))
    return Measured(number, sent_ns, "x" * (DATA_BYTES - len(bare)))


def event(number: int, sent_ns: int = 0) -> bytes:
    """A CloudEvent with every attribute that the SDK writes, and a trace."""
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": f"00000000-0000-4000-8000-{number:012d}",
            "source": "/publisher",
            "type": TOPIC,
            "subject": subject(number),
            "time": "2026-01-01T00:00:00.000000Z",
            "datacontenttype": "application/json",
            "data": measured(number, sent_ns),
            "traceparent": f"00-{number + 1:032x}-{number + 1:016x}-00",
        }
    )


def batch(events: list[bytes]) -> bytes:
    """The payload of a PUB."""
    return b"[" + b",".join(events) + b"]"


class Ledger:
    """Checks that each of `events` arrives once, and those of a subject in order: the next one, or the run is void.

    Numbers are dealt to subjects round robin, so the next of a subject is always the last one plus SUBJECTS: one
    comparison finds what is lost, repeated and overtaken.
    """

    def __init__(self, events: int) -> None:
        self._events = events
        self._next = {subject(number): number for number in range(SUBJECTS)}
        self.taken = 0

    @property
    def complete(self) -> bool:
        """Whether all have come."""
        return self.taken == self._events

    def take(self, of_subject: str, number: int) -> None:
        """Notes one arrival. Raises RunFailedError if it is not the one that must come next."""
        expected = self._next.get(of_subject)
        if number != expected or number >= self._events:
            raise RunFailedError(f"{of_subject}: event {number} came, {expected} had to be next")
        self._next[of_subject] = number + SUBJECTS
        self.taken += 1
