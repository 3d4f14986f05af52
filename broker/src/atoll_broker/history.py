"""What happened to each event in each group, so that `why` can tell one event's whole story.

Failures, dead letters, replays and what was let go are rare and worth keeping: they go to disk with the next commit.
Deliveries and acks are as many as events times groups, and writing them would cost as much as the log itself, so the
last of them are kept in memory alone; `complete_since_ms` says how far back they reach.

Steps are in the order of `n` (boot x 2**32 + a counter), never of the wall clock, which may jump.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from .journal import Journal
from .storage import Step

ROUTINE_STEPS_MAX: Final = 50_000  # about 10 MiB
TEXT_MAX: Final = 500

Routine = tuple[int, int, str, str, int, str, int]
"""n, at_ms, group, what, attempt, slot, fence: a tuple and no Step, for there are so many."""


class History:
    def __init__(self, boot: int, journal: Journal, wall_ms: Callable[[], int]) -> None:
        self._n = boot << 32
        self._journal = journal
        self._wall_ms = wall_ms
        self._order: deque[int] = deque()
        self._routine: dict[int, list[Routine]] = {}
        self.complete_since_ms = wall_ms()

    def routine(self, seq: int, group: str, what: str, attempt: int, slot: str, fence: int) -> None:
        """leased, done, duplicate."""
        self._n += 1
        step = (self._n, self._wall_ms(), group, what, attempt, slot, fence)
        steps = self._routine.get(seq)
        if steps is None:
            self._routine[seq] = [step]
        else:
            steps.append(step)
        self._order.append(seq)
        if len(self._order) > ROUTINE_STEPS_MAX:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        seq = self._order.popleft()
        steps = self._routine[seq]
        self.complete_since_ms = steps.pop(0)[1]
        if not steps:
            del self._routine[seq]

    def failure(self, seq: int, group: str, what: str, attempt: int, slot: str, fence: int, text: str) -> None:
        """Everything else: on disk with the next commit."""
        self._n += 1
        self._journal.step(Step(self._n, seq, group, self._wall_ms(), what, attempt, slot, fence, text[:TEXT_MAX]))

    def of(self, seq: int, stored: list[Step]) -> list[Step]:
        """All steps of one event, those on disk among them, in order."""
        routine = [
            Step(n, seq, group, at_ms, what, attempt, slot, fence, "")
            for n, at_ms, group, what, attempt, slot, fence in self._routine.get(seq, ())
        ]
        return sorted(routine + stored, key=lambda step: step.n)
