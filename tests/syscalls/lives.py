"""Many crashes, one after the other over the same data, two such lives at a time."""

from __future__ import annotations

import queue
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Protocol

from measured import say
from syscalls.points import Tally, again, chosen, seed
from syscalls.processes import Nursery, Point

WORKERS = 2
#: Crashes that one data directory lives through; then a new one, so that a failure has a short history.
CRASHES_A_LIFE = 20
#: Rounds that are counted; a usual one has what is tried. One that batched oddly has calls that no other makes.
COUNTS = 3
#: (role of the thread, syscall) -> calls.
Counts = Counter[tuple[str, str]]


class Life(Protocol):
    """One data directory, and the processes that die over it one after the other."""

    @property
    def acked(self) -> int:
        """Events that were acknowledged to their publishers."""

    def count(self) -> Counts:
        """One round of the script without a kill: how often each role makes each call."""

    def crash(self, point: Point) -> bool:
        """One round with a kill at that point, then what is left of it, and all of it checked. Whether it hit."""

    def end(self) -> None:
        """Everything goes."""


class Nurseries:
    """A worker's nurseries, started when first asked for."""

    def __init__(self) -> None:
        self._started: dict[tuple[str, str], Nursery] = {}

    def of(self, environment: str, module: str, path: Path | None = None) -> Nursery:
        """The one of this module."""
        if (environment, module) not in self._started:
            self._started[environment, module] = Nursery(environment, module, path)
        return self._started[environment, module]

    def end(self) -> None:
        """End them, and what they have started."""
        for nursery in self._started.values():
            nursery.end()


Begin = Callable[[Nurseries, Path], Life]


@dataclass
class Trial:
    """One script and the crashes in it. `test` is the test's name, for the command that repeats a point."""

    title: str
    test: str
    begin: Begin
    folder: Path
    roles: tuple[str, ...] = ()
    """Points of these roles alone; none: of all."""
    crashes_a_life: int = CRASHES_A_LIFE
    kinds: tuple[str, ...] = ()
    """Kinds of calls that at least one kill must hit."""
    points_max: int | None = None
    """For a control, which need not try them all."""
    seed: int = field(default_factory=seed)
    acked: int = 0
    total: int = 0
    tally: Tally = field(default_factory=Tally)

    def run(self) -> None:
        """Count, choose, try every chosen point, and say what came of it."""
        began = time.monotonic()
        counts = self._count()
        self.total = sum(counts.values())
        points = chosen(counts)
        if self.points_max is not None and len(points) > self.points_max:
            points = random.Random(self.seed).sample(points, self.points_max)
        assert points, f"{self.title}: no such call was made: {counts}"
        self._try_all(points)
        say(f"{self.title}: {len(points)} of {self.total} points, {self.tally.kills} kills hit, seed {self.seed}")
        say(f"{self.title}: {self.tally.by_kind()}")
        lost = f"lost {len(self.tally.failures)}"
        say(f"{self.title}: {self.acked} events acked, {lost}, {time.monotonic() - began:.0f} s")

    def assert_word_kept(self) -> None:
        """Nothing failed, and most kills hit."""
        assert not self.tally.failures, "\n".join(self.tally.failures)
        self.tally.assert_enough(self.kinds)

    def _count(self) -> Counts:
        nurseries, rounds = Nurseries(), []
        try:
            for number in range(COUNTS):
                life = self.begin(nurseries, self.folder / f"counting-{number}")
                try:
                    rounds.append(life.count())
                finally:
                    life.end()
        finally:
            nurseries.end()
        kinds = {kind for counts in rounds for kind in counts if not self.roles or kind[0] in self.roles}
        return Counter({kind: median(counts[kind] for counts in rounds) for kind in kinds})

    def _try_all(self, points: list[Point]) -> None:
        waiting: queue.SimpleQueue[Point] = queue.SimpleQueue()
        for point in points:
            waiting.put(point)
        with ThreadPoolExecutor(WORKERS) as pool:
            for tally, acked in pool.map(lambda number: self._work(number, waiting), range(WORKERS)):
                self.tally.merge(tally)
                self.acked += acked

    def _work(self, worker: int, waiting: queue.SimpleQueue[Point]) -> tuple[Tally, int]:
        tally, acked, lives = Tally(), 0, 0
        nurseries = Nurseries()
        try:
            while not waiting.empty():
                lives += 1
                life = self.begin(nurseries, self.folder / f"{worker}-{lives}")
                try:
                    self._live(life, waiting, tally)
                finally:
                    acked += life.acked
                    life.end()
        finally:
            nurseries.end()
        return tally, acked

    def _live(self, life: Life, waiting: queue.SimpleQueue[Point], tally: Tally) -> None:
        """Crash after crash. A failure ends this life: what came after it would be about the same damage."""
        for _ in range(self.crashes_a_life):
            try:
                point = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                # Two runs make not quite the same calls: one that was not reached is tried once more.
                tally.add(point, hit=life.crash(point) or life.crash(point))
            except AssertionError as error:
                tally.add(point, hit=True)
                tally.failures.append(f"{point}: {str(error)[:600]}\n  again: {again(self.test, point, self.seed)}")
                return
