"""The storage protocol in memory: the same promises but durability. For tests of the core and of clients."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from .errors import StorageFailedError
from .storage import (
    DeadLetter,
    DeadMark,
    Gap,
    GroupRecord,
    Lease,
    LetterDrop,
    LetterPut,
    LettersReplay,
    Place,
    ProducerRecord,
    Recovered,
    Step,
    StoredEvent,
    Trimmed,
    WriteBatch,
    gap_of_retention,
)

STEPS_KEPT = 10_000


class MemoryStorage:
    """Survives `open` again, as a disk survives a restart."""

    def __init__(self, log_id: str = "memory") -> None:
        self.log_id = log_id
        self.boot = 0
        self.events: dict[int, StoredEvent] = {}
        self.oldest = 1
        self.next_seq = 1
        self.topics: Counter[str] = Counter()
        self.producers: dict[str, ProducerRecord] = {}
        self.floors: dict[str, int] = {}
        self.acked: dict[str, set[int]] = {}
        self.attempts: dict[tuple[str, int], int] = {}
        self.letters: dict[tuple[str, int], tuple[DeadLetter, bool]] = {}
        self.kept: dict[str, bytes] = {}
        self.leases: dict[tuple[str, int], Lease] = {}
        self.gaps: dict[str, dict[int, Gap]] = {}
        self.detached: set[str] = set()
        self.history: list[Step] = []

    def open(self, groups: dict[str, tuple[list[str], Literal["earliest", "latest"]]], at_ms: int) -> Recovered:
        self.boot += 1
        for name, (_, first) in groups.items():
            start = self.oldest - 1 if first == "earliest" else self.next_seq - 1
            floor = self.floors.get(name, max(start, self.oldest - 1))
            if floor < self.oldest - 1:
                gap = gap_of_retention(floor, self.oldest, at_ms, detached=name in self.detached)
                self.gaps.setdefault(name, {})[gap.first] = gap
            self.floors[name] = max(floor, self.oldest - 1)
        return Recovered(
            boot=self.boot,
            log_id=self.log_id,
            oldest=self.oldest,
            next_seq=self.next_seq,
            log_bytes=self._log_bytes(),
            topics=dict(self.topics),
            producers=dict(self.producers),
            groups={name: self._group(name, topics) for name, (topics, _) in groups.items()},
            kept=dict(self.kept),
        )

    def commit(self, batch: WriteBatch) -> Trimmed | None:
        for event in batch.events:
            self.events[event.seq] = event
            self.topics[event.topic] += 1
            self.next_seq = event.seq + 1
        self.producers.update(batch.producers)
        self.kept.update(batch.kept)
        self._commit_groups(batch)
        return self._trim(batch.trim_below) if batch.trim_below is not None else None

    @property
    def checkpoint_due(self) -> bool:
        return False

    def checkpoint(self) -> None:
        """Nothing to tidy."""

    def read(self, after: int, events_max: int, bytes_max: int) -> list[StoredEvent]:
        found: list[StoredEvent] = []
        size = 0
        for seq in range(after + 1, min(after + 1 + events_max, self.next_seq)):
            event = self.read_one(seq)
            size += len(event.body)
            if found and size > bytes_max:
                break
            found.append(event)
        return found

    def read_one(self, seq: int) -> StoredEvent:
        if seq not in self.events:
            raise StorageFailedError(f"event {seq} is not in the log")
        return self.events[seq]

    def dead_letters(self, group: str, subject: str | None, after: int, limit: int) -> list[DeadLetter]:
        found = [letter for (name, seq), (letter, _) in self.letters.items() if name == group and seq > after]
        waiting = [letter for letter in found if not self.letters[group, letter.seq][1]]
        chosen = [letter for letter in waiting if subject in (None, letter.subject)]
        return sorted(chosen, key=lambda letter: letter.seq)[:limit]

    def find(self, event_id: str) -> StoredEvent | None:
        found = [event for event in self.events.values() if event.event_id == event_id]
        return max(found, key=lambda event: event.seq, default=None)

    def steps(self, seq: int) -> list[Step]:
        return [step for step in self.history if step.seq == seq]

    def select(self, topics: list[str], first: int, last: int, subject: str | None) -> list[Place]:
        return [
            Place(event.seq, event.topic, event.subject, event.event_id)
            for seq, event in sorted(self.events.items())
            if first <= seq <= last and event.topic in topics and subject in (None, event.subject)
        ]

    def close(self) -> None:
        """Nothing to let go."""

    def _commit_groups(self, batch: WriteBatch) -> None:
        self.floors.update(batch.floors)
        for group, seq in batch.acked:
            self.acked.setdefault(group, set()).add(seq)
        for group, floor in batch.floors.items():
            self.acked[group] = {seq for seq in self.acked.get(group, ()) if seq > floor}
        for key, attempt in batch.attempts.items():
            self.attempts.pop(key, None)
            if attempt:
                self.attempts[key] = attempt
        for change in batch.letters:
            self._change_letter(change)
        for place, lease in batch.leases.items():
            self.leases.pop(place, None)
            if lease is not None:
                self.leases[place] = lease
        for name, gap in batch.gaps:
            self.gaps.setdefault(name, {})[gap.first] = gap
        for name, detached in batch.detached.items():
            (self.detached.add if detached else self.detached.discard)(name)
        self.history += batch.steps
        del self.history[:-STEPS_KEPT]

    def _change_letter(self, change: LetterPut | LettersReplay | LetterDrop) -> None:
        if isinstance(change, LetterPut):
            self.letters[change.letter.group, change.letter.seq] = (change.letter, change.replaying)
        elif isinstance(change, LetterDrop):
            self.letters.pop((change.group, change.seq), None)
        else:
            for seq in change.seqs:
                self.letters[change.group, seq] = (self.letters[change.group, seq][0], True)

    def _trim(self, below: int) -> Trimmed:
        for seq in range(self.oldest, below):
            self.topics[self.events.pop(seq).topic] -= 1
        self.oldest = max(self.oldest, below)
        self.history = [step for step in self.history if step.seq >= below]
        self.letters = {place: letter for place, letter in self.letters.items() if place[1] >= below}
        return Trimmed(self.oldest, self._log_bytes(), dict(self.topics))

    def _log_bytes(self) -> int:
        return sum(len(event.body) for event in self.events.values())

    def _group(self, name: str, topics: list[str]) -> GroupRecord:
        floor, acked = self.floors[name], set(self.acked.get(name, ()))
        dead = [
            DeadMark(seq, letter.topic, letter.subject, replaying)
            for (group, seq), (letter, replaying) in sorted(self.letters.items())
            if group == name and seq >= self.oldest
        ]
        done = acked | {mark.seq for mark in dead}
        waiting = sum(1 for e in self.events.values() if e.seq > floor and e.topic in topics and e.seq not in done)
        attempts = {seq: attempt for (group, seq), attempt in self.attempts.items() if group == name}
        leases = {seq: lease for (group, seq), lease in self.leases.items() if group == name}
        return GroupRecord(
            floor,
            acked,
            attempts,
            dead,
            waiting + sum(mark.replaying for mark in dead),
            leases,
            sorted(self.gaps.get(name, {}).values(), key=lambda gap: gap.first),
            name in self.detached,
        )
