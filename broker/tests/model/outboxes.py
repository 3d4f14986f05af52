"""The log and its producers, as spec/wire-1.md §6 has them: a mark that goes up by one, and nothing that is skipped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .violations import must


@dataclass(slots=True, frozen=True)
class Event:
    """What a publisher sends. `flaw`: what is wrong with it in itself, if anything: large, envelope, source, data."""

    body: bytes
    topic: str
    subject: str
    id: str
    flaw: str = ""

    def refusal(self, announced: tuple[str, ...]) -> tuple[str, str] | None:
        """(code, field) of the verdict in a session that announced those topics; in the order of spec §4."""
        if self.flaw == "large":
            return "TOO_LARGE", ""
        if self.flaw == "envelope":
            return "SCHEMA", "subject"
        if self.flaw == "source":
            return "SCHEMA", "source"
        if self.topic not in announced:
            return "ACL", "type"
        return ("SCHEMA", "data.n") if self.flaw == "data" else None


@dataclass(slots=True, frozen=True)
class Stored:
    """An event with its place in the log."""

    seq: int
    event: Event
    producer: str
    pseq: int
    at_ms: int


@dataclass(slots=True, frozen=True)
class Refusal:
    pseq: int
    code: str
    field: str


@dataclass(slots=True, frozen=True)
class Mark:
    """What a commit writes of a producer."""

    mark: int = 0
    last_id: str | None = None
    refused: tuple[Refusal, ...] = ()


@dataclass(slots=True)
class Outbox:
    """One producer. `taken` is what was taken, `mark` what of it is on disk."""

    name: str
    kept: Mark = field(default_factory=Mark)
    taken: Mark = field(default_factory=Mark)
    report_from: int = 1
    bytes_pending: int = 0

    @property
    def next(self) -> int:
        return self.taken.mark + 1

    @property
    def pending(self) -> int:
        return self.taken.mark - self.kept.mark

    def take(self, event: Event, refusal: tuple[str, str] | None) -> int:
        """Spends the next pseq, whatever becomes of the event."""
        pseq, refused = self.next, self.taken.refused
        if refusal is not None:
            refused = (*refused, Refusal(pseq, *refusal))
        self.taken = Mark(pseq, None if refusal else event.id, refused)
        return pseq

    def verdicts(self) -> list[Refusal]:
        """What the PUBACK that is sent now must tell: all since the last one, and what was asked for again."""
        told = [refusal for refusal in self.kept.refused if refusal.pseq >= self.report_from]
        self.report_from = self.kept.mark + 1
        return told


@dataclass(slots=True)
class Log:
    """`events` holds what was taken, too; `last` is the last one on disk."""

    events: dict[int, Stored] = field(default_factory=dict)
    oldest: int = 1
    last: int = 0
    next: int = 1
    bytes: int = 0

    def take(self, event: Event, producer: str, pseq: int, at_ms: int) -> None:
        self.events[self.next] = Stored(self.next, event, producer, pseq, at_ms)
        self.next += 1

    def coming(self, upto: int) -> list[Stored]:
        return [self.events[seq] for seq in range(self.last + 1, upto + 1)]

    def commit(self, upto: int) -> list[Stored]:
        """What is on disk from now on."""
        new = self.coming(upto)
        self.last = upto
        self.bytes += size_of(new)
        return new

    def trim(self, oldest: int) -> None:
        must(self.oldest <= oldest <= self.last + 1, "the log is cut at its old end alone", self.oldest, oldest)
        for seq in range(self.oldest, oldest):
            self.bytes -= len(self.events.pop(seq).event.body)
        self.oldest = oldest

    def first_younger(self, at_ms: int) -> int:
        """The first event that was stored then or later."""
        young = (seq for seq, stored in self.events.items() if stored.at_ms >= at_ms)
        return min(next(young, self.last + 1), self.last + 1)

    def forget_after(self, last: int) -> None:
        """A crash: what was not on disk never was."""
        for seq in range(last + 1, self.next):
            del self.events[seq]
        self.next, self.last = last + 1, last
        self.bytes = size_of(self.events.values())


def size_of(stored: Iterable[Stored]) -> int:
    return sum(len(one.event.body) for one in stored)
