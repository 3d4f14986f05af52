"""Which instance gets a request, how many a service may have, and whether a failed one may be tried again.

- Least in flight by power of two choices: of two random instances the one with fewer requests in progress. Compared
  with "the least of all" it does not send a herd to the one that has just become idle (Mitzenmacher 1996).
- An instance that refused a connection sits out `eject_seconds`, but never the last one: a wrong guess must not take
  a service down.
- Bulkhead: at most `concurrency_max` in progress for one service; the rest is refused at once, not queued, so that a
  stalled service costs its own clients an answer and nobody else a connection.
- Retry budget: each request earns `retry_ratio_max` of a retry, up to a small stock, so that retries stay a fixed
  share of the traffic however much of it fails.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from .problems import Problem

RETRY_STOCK_MAX = 10.0


class Load:
    """The requests in progress for one service."""

    def __init__(
        self,
        service: str,
        *,
        concurrency_max: int,
        retry_ratio_max: float,
        eject_seconds: float,
        clock: Callable[[], float],
        choose: random.Random,
    ) -> None:
        self._service = service
        self._concurrency_max = concurrency_max
        self._retry_ratio_max = retry_ratio_max
        self._eject_seconds = eject_seconds
        self._clock = clock
        self._choose = choose
        self._in_flight: Counter[str] = Counter()
        self._ejected_until: dict[str, float] = {}
        self._retries = RETRY_STOCK_MAX if retry_ratio_max else 0.0
        self.total = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """One request of the service; raises Problem 503 above the limit."""
        if self.total >= self._concurrency_max:
            detail = f"{self._service} has {self.total} requests in progress, which is its limit"
            raise Problem(503, "overloaded", detail, headers={"Retry-After": "1"})
        self.total += 1
        self._retries = min(self._retries + self._retry_ratio_max, RETRY_STOCK_MAX)
        try:
            yield
        finally:
            self.total -= 1

    @contextmanager
    def at(self, slot: str) -> Iterator[None]:
        """One request at an instance."""
        self._in_flight[slot] += 1
        try:
            yield
        finally:
            self._in_flight[slot] -= 1
            if not self._in_flight[slot]:
                del self._in_flight[slot]  # instances come and go; counters must not pile up

    def pick(self, slots: Collection[str]) -> str | None:
        """An instance of those that may be asked; None if there is none."""
        if not slots:
            return None
        now = self._clock()
        self._ejected_until = {slot: until for slot, until in self._ejected_until.items() if until > now}
        here = sorted(slot for slot in slots if slot not in self._ejected_until) or sorted(slots)
        if len(here) == 1:
            return here[0]
        two = here if len(here) <= 2 else self._choose.sample(here, 2)
        return min(two, key=lambda slot: (self._in_flight[slot], self._choose.random()))

    def failed(self, slot: str) -> None:
        """The instance refused a connection."""
        self._ejected_until[slot] = self._clock() + self._eject_seconds

    def may_retry(self) -> bool:
        """Takes one retry out of the budget, if there is one."""
        if self._retries < 1:
            return False
        self._retries -= 1
        return True
