"""Events a second: a bucket that fills at the rate, holds a second's worth, and may go into debt for one batch.

Debt instead of refusal, because a batch larger than a second's worth could else never pass; the debt is waited off
before the next one.
"""

from __future__ import annotations

from typing import Final

UNBOUNDED: Final = 1 << 30


class Bucket:
    def __init__(self, rate: float) -> None:
        """`rate` in events a second; 0 for no bound."""
        self.rate = rate
        self._level = max(1.0, rate)
        self._at = 0.0

    def set_rate(self, rate: float, now: float) -> None:
        """From now on; a debt of before is waited off at the new rate."""
        self._fill(now)
        self.rate = rate
        self._level = min(self._level, max(1.0, rate))

    def room(self, now: float) -> int:
        """How many events may pass now."""
        if not self.rate:
            return UNBOUNDED
        self._fill(now)
        return max(0, int(self._level))

    def take(self, events: int) -> None:
        """They passed."""
        if self.rate:
            self._level -= events

    def wait_ms(self) -> int:
        """After how long the next one may pass; of what `room` saw last."""
        return 0 if not self.rate else max(0, int((1.0 - self._level) / self.rate * 1000) + 1)

    def _fill(self, now: float) -> None:
        self._level = min(max(1.0, self.rate), self._level + (now - self._at) * self.rate)
        self._at = now
