"""Plain numbers that the parts count up; `web` shows them at `/metrics`.

Not prometheus-client's own types: a part that has no HTTP face need not have that library either. All are written by
one thread each and read by another, which Python's integers bear.
"""

from __future__ import annotations

import bisect

SECONDS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class SpanCounters:
    """What became of ended spans."""

    def __init__(self) -> None:
        self.dropped = 0
        """Not taken: the queue was full."""
        self.failed = 0
        """Taken, and not exported: the collector was away, hung or refused them."""
        self.exported = 0


class Histogram:
    """Counts of seconds in fixed bounds, and their sum."""

    def __init__(self, bounds: tuple[float, ...] = SECONDS_BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one observation."""
        self.counts[bisect.bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative (upper bound, count), the last one `+Inf`."""
        total = 0
        out: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            out.append((bound, total))
        return out


class RelayCounters:
    """Outbox → broker."""

    def __init__(self) -> None:
        self.acked = 0
        self.refused = 0
        self.busy = 0
        """Times that the broker said BUSY."""
        self.went_back = 0
        """Times that it said EXPECTED and the relay sent again from there."""


class ConsumerCounters:
    """Broker → handlers. Each delivery is counted once, by what became of it."""

    def __init__(self) -> None:
        self.handled = 0
        self.duplicate = 0
        self.rejected = 0
        self.retried = 0
        self.stale = 0
        """Answers that came after the lease was over; the event was or will be delivered again."""
        self.seconds: dict[str, Histogram] = {}
        """By topic: time in the handler."""
