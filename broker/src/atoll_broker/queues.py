"""The queues of a group: one for each key, and the heads of them that may go out.

Only the head of a key is ever out, so keys run in parallel and none is reordered. A head is either *ready*, that is in
the line of its topic, or with a member, or delayed; the rest of its queue waits behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from .entries import Entry, Phase


class KeyQueues:
    """Unfinished entries by key (subject); the ready ones by topic too."""

    def __init__(self, topics: Iterable[str]) -> None:
        self.ready = 0
        self._queues: dict[str, deque[Entry]] = {}
        self._ready: dict[str, deque[Entry]] = {topic: deque() for topic in topics}

    def __contains__(self, subject: str) -> bool:
        return subject in self._queues

    def __iter__(self) -> Iterator[Entry]:
        """Every entry, key after key."""
        return (entry for queue in self._queues.values() for entry in queue)

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def append(self, entry: Entry) -> None:
        """To the end of its key; alone there it is ready."""
        queue = self._queues.get(entry.subject)
        if queue is None:
            self.begin(entry)
            self.make_ready(entry)
        else:
            queue.append(entry)

    def begin(self, entry: Entry) -> None:
        """A key's first entry, which is not ready: it is in somebody's hand."""
        self._queues[entry.subject] = deque((entry,))

    def make_ready(self, head: Entry) -> None:
        """It may go out."""
        head.phase = Phase.WAITING
        ready = self._ready.get(head.topic)
        if ready is None:  # a replayed letter of a topic that the group no longer names
            ready = self._ready[head.topic] = deque()
        ready.append(head)
        self.ready += 1

    def pop_ready(self, topics: Iterable[str]) -> Entry | None:
        """The oldest ready head of these topics, no longer ready."""
        best: deque[Entry] | None = None
        for topic in topics:
            ready = self._ready[topic]
            if ready and (best is None or ready[0].seq < best[0].seq):
                best = ready
        if best is None:
            return None
        self.ready -= 1
        return best.popleft()

    def pop_head(self, entry: Entry) -> None:
        """It is finished: the next of its key is ready."""
        queue = self._queues[entry.subject]
        assert queue[0] is entry, "only the head of a key is ever out"
        queue.popleft()
        if queue:
            self.make_ready(queue[0])
        else:
            del self._queues[entry.subject]

    def pop_key(self, subject: str) -> deque[Entry]:
        """The whole queue of a key whose head is out."""
        return self._queues.pop(subject)

    def remove(self, entry: Entry) -> None:
        """From anywhere in its key; if it was ready, the next is."""
        queue = self._queues[entry.subject]
        queue.remove(entry)
        if not queue:
            del self._queues[entry.subject]
        if entry.phase is Phase.WAITING and entry in self._ready[entry.topic]:
            self._ready[entry.topic].remove(entry)
            self.ready -= 1
            if queue:
                self.make_ready(queue[0])

    def clear(self) -> None:
        self._queues.clear()
        self.ready = 0
        for ready in self._ready.values():
            ready.clear()

    def untaken(self, taken: set[str]) -> list[str]:
        """Topics with something ready that are not among these."""
        return sorted(topic for topic, ready in self._ready.items() if ready and topic not in taken)
