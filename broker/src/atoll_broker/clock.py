"""The two clocks of the broker, and the one that liveness and leases go by.

A broker that was stopped for a minute (SIGSTOP, a suspended laptop, a slow disk) was not reading for a minute. Had its
clock run on, everybody would look silent and every lease would be over at the first turn after. So the core counts
*served* time: real time, but at most TURN_SECONDS_MAX for each turn of the loop.
"""

from __future__ import annotations

import time
from typing import Final, Protocol

TURN_SECONDS_MAX: Final = 0.25


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds, never going back."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970; for what people read, never for durations."""


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class ServedClock:
    """Seconds in which the broker was reading."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock.monotonic()
        self.now = 0.0

    def turn(self) -> float:
        current = self._clock.monotonic()
        self.now += min(max(0.0, current - self._last), TURN_SECONDS_MAX)
        self._last = current
        return self.now
