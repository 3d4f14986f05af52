"""Taps: ephemeral looks at the log. They hold nothing up, are acked by nobody, and say what they lost.

A tap that asks for history reads the log at its own pace until it has caught up; from then on each committed event
that matches waits in a bounded buffer for the reader's credit. When the buffer is full the oldest is dropped and
counted, and the next MSG says how many were lost before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from . import grants
from .entries import CREDIT_BYTES_MAX, CREDIT_EVENTS_MAX
from .log import Log
from .storage import Gap, StoredEvent

TAPS_MAX: Final = 8  # a session
BUFFER_EVENTS_MAX: Final = 2048
BUFFER_BYTES_MAX: Final = 4_194_304


class Tap:
    def __init__(self, name: str, patterns: Sequence[str], after: int | None, log: Log) -> None:
        self.name = name
        self.events = 0
        self.bytes = 0
        self.lost = 0
        self.gap: Gap | None = None
        self.patterns = list(patterns)
        self._log = log
        self._position = log.last if after is None else min(after, log.last)
        self._reading = after is not None
        self._buffer: deque[StoredEvent] = deque()
        self._buffer_bytes = 0

    def add_credit(self, events: int, size: int) -> None:
        self.events = min(self.events + events, CREDIT_EVENTS_MAX)
        self.bytes = min(self.bytes + size, CREDIT_BYTES_MAX)

    def matches(self, topic: str) -> bool:
        return any(grants.matches(pattern, topic) for pattern in self.patterns)

    def committed(self, events: Sequence[StoredEvent]) -> None:
        """New events; one that still reads history comes to them by itself."""
        if self._reading:
            return
        for event in events:
            if self.matches(event.topic):
                self._keep(event)

    def take(self, events_max: int, bytes_max: int, at_ms: int) -> tuple[list[StoredEvent], int]:
        """What may go out now, and how many were lost before it. `more` tells whether to ask again."""
        if self._reading:
            self._read_on(at_ms)
        taken: list[StoredEvent] = []
        size = 0
        while self._buffer and len(taken) < min(events_max, self.events) and self.bytes > 0:
            if taken and size + len(self._buffer[0].body) + 1 > bytes_max:
                break
            event = self._buffer.popleft()
            self._buffer_bytes -= len(event.body)
            size += len(event.body) + 1
            self.bytes -= len(event.body)
            taken.append(event)
        self.events -= len(taken)
        lost = self.lost if taken else 0
        self.lost -= lost
        return taken, lost

    @property
    def more(self) -> bool:
        """Could `take` give more at once?"""
        return self.events > 0 and self.bytes > 0 and (bool(self._buffer) or (self._reading and not self._is_under_way))

    @property
    def _is_under_way(self) -> bool:
        """Is what it would read next being trimmed? Whether it is gone is known when the disk has answered."""
        return self._position + 1 < self._log.first_readable

    def _read_on(self, at_ms: int) -> None:
        """A piece of history into the buffer, when the last one has gone out."""
        if self._buffer or not (self.events > 0 and self.bytes > 0):
            return
        first = self._log.oldest
        if self._position < first - 1:
            self.gap = Gap(self._position + 1, first - 1, "retention took it away before it was read", at_ms)
            self._position = first - 1
        if self._is_under_way:
            return
        found = self._log.read(self._position)
        for event in found:
            if self.matches(event.topic):
                self._keep(event)
        if found:
            self._position = found[-1].seq
        self._reading = self._position < self._log.last

    def _keep(self, event: StoredEvent) -> None:
        self._buffer.append(event)
        self._buffer_bytes += len(event.body)
        while len(self._buffer) > BUFFER_EVENTS_MAX or self._buffer_bytes > BUFFER_BYTES_MAX:
            self._buffer_bytes -= len(self._buffer.popleft().body)
            self.lost += 1
