"""The committed log as the loop sees it: its extent, and its tail in memory for the groups that keep up."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

from .storage import Recovered, Storage, StoredEvent, Trimmed

READ_EVENTS_MAX: Final = 256
READ_BYTES_MAX: Final = 1_048_576


class Log:
    def __init__(self, storage: Storage, recovered: Recovered, cache_bytes_max: int) -> None:
        self.oldest = recovered.oldest
        self._trimming_below = 0
        self.last = recovered.next_seq - 1
        self.bytes = recovered.log_bytes
        self.topics: Counter[str] = Counter(recovered.topics)
        self.stored: Counter[str] = Counter()  # by topic since the boot; it never falls, so a rate can be read off it
        self._storage = storage
        self._tail: deque[StoredEvent] = deque()
        self._by_seq: dict[int, StoredEvent] = {}
        self._tail_bytes = 0
        self._tail_bytes_max = cache_bytes_max

    def extend(self, events: Sequence[StoredEvent]) -> None:
        """What was just committed."""
        for event in events:
            assert event.seq == self.last + 1, "the log has no holes"
            self.last = event.seq
            self.bytes += len(event.body)
            self.topics[event.topic] += 1
            self.stored[event.topic] += 1
            self._tail.append(event)
            self._by_seq[event.seq] = event
            self._tail_bytes += len(event.body)
        while self._tail_bytes > self._tail_bytes_max:
            gone = self._tail.popleft()
            del self._by_seq[gone.seq]
            self._tail_bytes -= len(gone.body)

    @property
    def first_readable(self) -> int:
        """A trim that is on its way may be on the disk before the loop hears of it: what it takes is read no more."""
        return max(self.oldest, self._trimming_below)

    def trimming(self, below: int | None) -> None:
        """A commit with this trim is on its way; or came back, and has trimmed nothing."""
        self._trimming_below = below or 0

    def trimmed(self, trimmed: Trimmed) -> None:
        self.oldest, self.bytes = trimmed.oldest, trimmed.log_bytes
        self.topics = Counter(trimmed.topics)

    def read(self, after: int) -> Sequence[StoredEvent]:
        """Some events from after + 1 on, at least one if there is any; from memory where they still are."""
        if after >= self.last:
            return []
        if after + 1 not in self._by_seq:
            # The disk may be a commit ahead of the loop, which has not heard of it yet.
            read = self._storage.read(after, READ_EVENTS_MAX, READ_BYTES_MAX)
            return [event for event in read if event.seq <= self.last]
        found: list[StoredEvent] = []
        size = 0
        for seq in range(after + 1, min(self.last, after + READ_EVENTS_MAX) + 1):
            found.append(self._by_seq[seq])
            size += len(found[-1].body)
            if size > READ_BYTES_MAX:
                break
        return found

    def event(self, seq: int) -> StoredEvent:
        return self._by_seq.get(seq) or self._storage.read_one(seq)
