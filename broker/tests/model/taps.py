"""Taps, rates and faults: what lies beside the groups and may not disturb them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .violations import must
from .words import TAP_EVENTS_MAX


def matches(pattern: str, topic: str) -> bool:
    return topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern


@dataclass(slots=True)
class Tap:
    """An ephemeral look at the log from `last` on; with `history` it reads what the log still has."""

    patterns: tuple[str, ...]
    last: int
    history: bool
    events: int = 0
    bytes: int = 0

    def unsent(self, topics: dict[int, str]) -> list[int]:
        """Of all events ever stored, by seq, those that match and have not been sent, nor been told to be lost."""
        return [
            seq for seq, topic in topics.items() if seq > self.last and any(matches(p, topic) for p in self.patterns)
        ]

    def sent(self, seqs: Sequence[int], sizes: Sequence[int], lost: int, topics: dict[int, str]) -> None:
        """A MSG: in order, none left out but the oldest, which are counted."""
        unsent = self.unsent(topics)
        too_many = max(0, len(unsent) - TAP_EVENTS_MAX)
        must(lost <= too_many and (self.history or lost == too_many), "a tap loses what its buffer can not hold", lost)
        must(
            list(seqs) == unsent[lost : lost + len(seqs)],
            "a tap tells how many it lost, and loses no other",
            seqs,
            unsent,
        )
        for size in sizes:
            must(self.events > 0 and self.bytes > 0, "a tap sends within its credit", self.events, self.bytes)
            self.events -= 1
            self.bytes -= size
        self.last = seqs[-1]

    @property
    def state(self) -> str:
        """Its row in the coverage table."""
        return "with credit" if self.events > 0 and self.bytes > 0 else "without credit"


@dataclass(slots=True)
class Allowance:
    """So many events a second: it fills at the rate, to a second's worth, and one batch may overdraw it."""

    rate: float
    at: float = 0.0
    level: float = field(init=False)

    def __post_init__(self) -> None:
        self.level = max(1.0, self.rate)

    def room(self, now: float) -> bool:
        """May another event pass now?"""
        self.level = min(max(1.0, self.rate), self.level + (now - self.at) * self.rate)
        self.at = now
        return self.level >= 1

    def take(self, events: int) -> None:
        self.level -= events


@dataclass(slots=True)
class Fault:
    """What an operator does to the deliveries of a group, for a while. It hits every one of them here."""

    group: str
    kind: str
    topic: str | None
    delay: float
    until: float
    hits: int = 0
