"""How much of the log is kept once every group has handled it: so many bytes, so many events, for so long.

Whichever bound is passed first trims, a bounded number of events a commit. It never passes the floor of a group that
holds it, nor a dead letter that may be replayed; a detached group holds nothing. Age goes by the wall clock: a clock
that jumps ahead shortens what is kept of the handled past, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from .groups import Group
from .log import Log
from .mesh import Bus

TRIM_EVENTS_MAX: Final = 512
LOOK_SECONDS: Final = 1.0


class Retention:
    def __init__(self, log: Log, groups: Mapping[str, Group], wall_ms: Callable[[], int]) -> None:
        self._log = log
        self._groups = groups
        self._wall_ms = wall_ms
        self._looked_at = 0.0
        self._needed = log.oldest
        self._aged = log.oldest

    def tick(self, now: float, bus: Bus) -> None:
        """Looks, once a second, what is still needed and what has grown too old."""
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        self.look(bus)

    def look(self, bus: Bus) -> None:
        """Also when something old is needed anew: a replay, a group that is attached again."""
        self._needed = self._oldest_needed()
        self._aged = self._first_younger(self._wall_ms() - int(bus.log_seconds_kept * 1000))

    def due(self, bus: Bus) -> int | None:
        """Up to which seq (excluded) the next commit shall trim, if it shall."""
        log = self._log
        by_count = log.last + 1 - bus.log_events_kept
        wanted = max(by_count, self._aged)
        if log.bytes > bus.log_bytes_trimmed:
            wanted = log.last + 1
        below = min(wanted, self._needed, log.oldest + TRIM_EVENTS_MAX)
        return below if below > log.oldest else None

    def _oldest_needed(self) -> int:
        needed = [group.needs_from for group in self._groups.values() if not group.detached]
        return min(needed, default=self._log.last + 1)

    def _first_younger(self, before_ms: int) -> int:
        """The first of the next TRIM_EVENTS_MAX events that was stored after that; by halves, for they lie in order."""
        low = self._log.first_readable
        high = min(self._log.last + 1, low + TRIM_EVENTS_MAX)
        if low >= high or self._log.event(low).stored_ms >= before_ms:
            return low
        while low < high:
            middle = (low + high) // 2
            if self._log.event(middle).stored_ms < before_ms:
                low = middle + 1
            else:
                high = middle
        return low
