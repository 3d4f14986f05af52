"""Slows guessing down, per account and per address.

Each has a bucket of attempts that refills slowly. An attempt takes one before the secret is looked at (so that parallel
guesses count too) and gets it back if it was right, so a client that knows its secret is never slowed by itself. An
account's bucket delays an attacker from many addresses; an address's bucket one who tries many accounts. Nobody is
locked out for longer than one refill takes.

In memory: a restart forgives, and the account's bucket then allows twenty more guesses.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

ENTRIES_MAX = 20_000


class Limit(NamedTuple):
    attempts: int
    refill_seconds: float  # for one attempt


# More than there are places in the pool (passwords.py), or a burst of right attempts would be taken for guessing.
ACCOUNT = Limit(attempts=20, refill_seconds=15.0)
ADDRESS = Limit(attempts=30, refill_seconds=3.0)


class Throttle:
    """Buckets by name, at most ENTRIES_MAX of them; the one used least recently is forgotten first."""

    def __init__(self, limit: Limit, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # name → attempts left, when

    def wait_seconds(self, name: str) -> int:
        """0 if there is an attempt left; else whole seconds until there is one, at least 1."""
        left = self._left(name)
        return 0 if left >= 1 else max(1, math.ceil((1 - left) * self._limit.refill_seconds))

    def take(self, name: str) -> None:
        """Use an attempt up."""
        self._put(name, self._left(name) - 1)

    def give_back(self, name: str) -> None:
        """The attempt was a right one."""
        self._put(name, self._left(name) + 1)

    def _left(self, name: str) -> float:
        now = self._clock()
        left, then = self._buckets.get(name, (self._limit.attempts, now))
        return min(self._limit.attempts, left + (now - then) / self._limit.refill_seconds)

    def _put(self, name: str, left: float) -> None:
        self._buckets[name] = (min(self._limit.attempts, left), self._clock())
        self._buckets.move_to_end(name)
        if len(self._buckets) > ENTRIES_MAX:
            self._buckets.popitem(last=False)


class Guard:
    """Both throttles as one: all or nothing is taken."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._account = Throttle(ACCOUNT, clock)
        self._address = Throttle(ADDRESS, clock)

    def enter(self, account: str, address: str) -> int:
        """0 and an attempt is taken of both; or the seconds to wait, and nothing is taken."""
        wait = max(self._account.wait_seconds(account), self._address.wait_seconds(address))
        if wait == 0:
            self._account.take(account)
            self._address.take(address)
        return wait

    def forgive(self, account: str, address: str) -> None:
        """The attempt that `enter` took was a right one."""
        self._account.give_back(account)
        self._address.give_back(address)
