"""Which points there are, which of them are tried, and what is said when one of them fails."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from syscalls.processes import Point

#: Of the calls of one thread role and kind, all of the first so many are tried …
FIRST = 60
#: … and of the rest an even sample of at most so many, its phase from the seed.
SAMPLED = 20
#: Two runs of one script make not quite the same calls: they may batch differently. More misses than this prove little.
MISSED_SHARE_MAX = 0.15
#: `main:write:17` tries that point alone.
ONLY = "SYSCALL_POINT"


def seed() -> int:
    """ATOLL_SEED, or a fresh one."""
    return int(os.environ.get("ATOLL_SEED") or random.SystemRandom().randrange(1 << 32))


def chosen(
    counts: Mapping[tuple[str, str], int], number: int, first: int = FIRST, sampled: int = SAMPLED
) -> list[Point]:
    """The points to try, in a stable order. `number` is the seed."""
    if only := os.environ.get(ONLY):
        return [Point.parse(only)]
    return [
        Point(role, syscall, call)
        for (role, syscall), count in sorted(counts.items())
        for call in _calls(count, random.Random(f"{number} {role} {syscall}"), first, sampled)
    ]


def _calls(count: int, chance: random.Random, first: int, sampled: int) -> Iterable[int]:
    yield from range(1, min(count, first) + 1)
    rest = count - first
    if rest <= sampled:
        yield from range(first + 1, count + 1)
        return
    step = rest / sampled
    phase = chance.random()
    yield from (first + 1 + int((index + phase) * step) for index in range(sampled))


@dataclass
class Tally:
    """What became of the points of a run."""

    tried: Counter[tuple[str, str]] = field(default_factory=Counter)
    hit: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, point: Point, *, hit: bool) -> None:
        """Note one point, whether its kill hit or the script ended before it."""
        self.tried[point.role, point.syscall] += 1
        self.hit[point.role, point.syscall] += hit

    def merge(self, other: Tally) -> None:
        """Add what another worker has done."""
        self.tried.update(other.tried)
        self.hit.update(other.hit)
        self.failures += other.failures

    @property
    def kills(self) -> int:
        """How many kills hit."""
        return sum(self.hit.values())

    def assert_enough(self) -> None:
        """A run whose kills mostly came too late says nothing."""
        tried = sum(self.tried.values())
        assert tried, "no points"
        assert self.kills >= tried * (1 - MISSED_SHARE_MAX), f"only {self.kills} of {tried} kills hit: {self.by_kind()}"

    def by_kind(self) -> str:
        """`main write 12/12, …`: hits of tries."""
        return ", ".join(
            f"{role} {call} {self.hit[role, call]}/{tried}" for (role, call), tried in sorted(self.tried.items())
        )


def again(test: str, point: Point, number: int) -> str:
    """The command that tries one point again."""
    return f"ATOLL_SEED={number} {ONLY}={point} ./atoll test tests/syscalls -k {test}"
