"""Collects what the next group commit shall write. The core fills it; the shell's writer thread flushes it.

Events, marks and kept values make a commit due at once, for somebody waits for them. Floors, acks and attempts may lag,
so they wait up to ACK_DELAY_SECONDS for a commit that goes anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from .storage import (
    Gap,
    Lease,
    LetterDrop,
    LetterPut,
    LettersReplay,
    ProducerRecord,
    Step,
    StoredEvent,
    WriteBatch,
)

ACK_DELAY_SECONDS: Final = 0.05


class Waiting(msgspec.Struct):
    """Somebody who waits for the disk. `refused` is for whom a full disk is an answer; the others wait on."""

    done: Callable[[], None]
    refused: Callable[[], None] | None = None


class Commit(msgspec.Struct):
    """A batch, and who waits for it to be on disk."""

    batch: WriteBatch
    then: list[Waiting]


class Journal:
    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._batch = WriteBatch()
        self._then: list[Waiting] = []
        self._urgent = False
        self._dirty_since: float | None = None
        self._dirty = False

    def event(self, event: StoredEvent) -> None:
        self._batch.events.append(event)
        self._urgent = True

    def producer(self, name: str, record: ProducerRecord) -> None:
        self._batch.producers[name] = record
        self._urgent = True

    def keep(self, kind: str, value: bytes) -> None:
        self._batch.kept[kind] = value
        self._urgent = True

    def after_commit(self, done: Callable[[], None], refused: Callable[[], None] | None = None) -> None:
        """`done` runs once everything said before is on disk; `refused`, if given, if the disk was full."""
        self._then.append(Waiting(done, refused))
        self._urgent = True

    def lease(self, group: str, seq: int, lease: Lease | None) -> None:
        """A lease that lasts, or its end. One that ends before it was written is never written."""
        self._batch.leases[group, seq] = lease
        self._dirty = True

    def gap(self, group: str, gap: Gap) -> None:
        self._batch.gaps.append((group, gap))
        self._urgent = True

    def detached(self, group: str, detached: bool) -> None:
        self._batch.detached[group] = detached
        self._urgent = True

    def step(self, step: Step) -> None:
        self._batch.steps.append(step)
        self._dirty = True

    def trim(self, below: int) -> None:
        self._batch.trim_below = below
        self._dirty = True

    def floor(self, group: str, floor: int) -> None:
        self._batch.floors[group] = floor
        self._dirty = True

    def acked(self, group: str, seq: int) -> None:
        self._batch.acked.append((group, seq))
        self._dirty = True

    def attempt(self, group: str, seq: int, attempt: int) -> None:
        self._batch.attempts[group, seq] = attempt
        self._dirty = True

    def letter(self, change: LetterPut | LettersReplay | LetterDrop) -> None:
        self._batch.letters.append(change)
        self._dirty = True

    def is_due(self, now: float) -> bool:
        if self._dirty and self._dirty_since is None:
            self._dirty_since = now
        waited = self._dirty_since is not None and now - self._dirty_since >= ACK_DELAY_SECONDS
        return self._urgent or waited

    @property
    def is_empty(self) -> bool:
        return not (self._urgent or self._dirty)

    def put_back(self, commit: Commit) -> list[Waiting]:
        """A full disk wrote nothing of it. What publishers sent is dropped, they send it again; the rest is written
        with the next commit, before what has been said since. Whose answer is a refusal."""
        older, newer = commit.batch, self._batch
        newer.events, newer.producers = [], {}
        newer.kept = older.kept | newer.kept
        newer.floors = older.floors | newer.floors
        newer.attempts = older.attempts | newer.attempts
        newer.leases = older.leases | newer.leases
        newer.detached = older.detached | newer.detached
        for name in ("acked", "letters", "gaps", "steps"):
            setattr(newer, name, getattr(older, name) + getattr(newer, name))
        waiting = commit.then + self._then
        self._then = [one for one in waiting if one.refused is None]
        self._dirty = True
        return [one for one in waiting if one.refused is not None]

    def take(self) -> Commit:
        floors = self._batch.floors
        self._batch.acked = [(group, seq) for group, seq in self._batch.acked if seq > floors.get(group, 0)]
        commit = Commit(self._batch, self._then)
        self._reset()
        return commit
