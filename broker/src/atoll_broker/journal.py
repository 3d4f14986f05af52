"""Collects what the next group commit shall write. The core fills it; the shell's writer thread flushes it.

Events, marks and kept values make a commit due at once, for somebody waits for them. Floors, acks and attempts may lag,
so they wait up to ACK_DELAY_SECONDS for a commit that goes anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from .storage import LetterDrop, LetterPut, LettersReplay, ProducerRecord, StoredEvent, WriteBatch

ACK_DELAY_SECONDS: Final = 0.05


class Commit(msgspec.Struct):
    """A batch, and what to do once it is on disk."""

    batch: WriteBatch
    then: list[Callable[[], None]]


class Journal:
    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._batch = WriteBatch()
        self._then: list[Callable[[], None]] = []
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

    def after_commit(self, action: Callable[[], None]) -> None:
        """Runs once everything said before is on disk."""
        self._then.append(action)
        self._urgent = True

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

    def take(self) -> Commit:
        floors = self._batch.floors
        self._batch.acked = [(group, seq) for group, seq in self._batch.acked if seq > floors.get(group, 0)]
        commit = Commit(self._batch, self._then)
        self._reset()
        return commit
