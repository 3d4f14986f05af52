"""Which points there are, what became of them, and what is said when one of them fails."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from syscalls.processes import Point

#: Two runs of one script make not quite the same calls: they may batch differently. More misses than this prove little.
MISSED_SHARE_MAX = 0.15
#: `main:write:17` tries that point alone.
ONLY = "SYSCALL_POINT"


def seed() -> int:
    """ATOLL_SEED, or a fresh one."""
    return int(os.environ.get("ATOLL_SEED") or random.SystemRandom().randrange(1 << 32))


def chosen(counts: Mapping[tuple[str, str], int]) -> list[Point]:
    """Every call of every role, in a stable order; or the one that SYSCALL_POINT names."""
    if only := os.environ.get(ONLY):
        return [Point.parse(only)]
    return [
        Point(role, syscall, call) for (role, syscall), count in sorted(counts.items()) for call in range(1, count + 1)
    ]


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

    def assert_enough(self, kinds: Collection[str]) -> None:
        """A run whose kills mostly came too late says nothing, nor one in which some kind of call was never hit."""
        tried = sum(self.tried.values())
        assert tried, "no points"
        assert self.kills >= tried * (1 - MISSED_SHARE_MAX), f"only {self.kills} of {tried} kills hit: {self.by_kind()}"
        missing = set(kinds) - {call for (_, call), hits in self.hit.items() if hits}
        assert not missing or ONLY in os.environ, f"no kill hit a {missing}: {self.by_kind()}"

    def by_kind(self) -> str:
        """`main write 12/12, …`: hits of tries."""
        return ", ".join(
            f"{role} {call} {self.hit[role, call]}/{tried}" for (role, call), tried in sorted(self.tried.items())
        )


def again(test: str, point: Point, number: int) -> str:
    """The command that tries one point again."""
    return f"ATOLL_SEED={number} {ONLY}={point} ./atoll test tests/syscalls -k {test}"
