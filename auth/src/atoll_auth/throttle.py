"""Slows guessing down, per account and per address.

Each has a bucket of attempts that refills slowly. An attempt takes one before the secret is looked at (so that parallel
guesses count too) and gets it back if it was right, so a client that knows its secret is never slowed by itself. An
account's bucket delays an attacker from many addresses; an address's bucket one who tries many accounts.

Alone, these two would let anybody lock an owner out by guessing without a pause. So an account that was entered from an
address before has a bucket of its own there, which nobody's guesses elsewhere, or at other accounts, can empty. Whoever
comes from a new address while his account is being guessed at waits for a refill like everybody.

In memory: a restart forgives and forgets, and an account's bucket then allows twenty more guesses.
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


class Attempt(NamedTuple):
    """An attempt that may be made if `wait_seconds` is 0; nothing was taken otherwise."""

    wait_seconds: int
    pair: str
    taken: tuple[tuple[Throttle, str], ...]


class Guard:
    """All throttles as one: all or nothing is taken."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._account = Throttle(ACCOUNT, clock)
        self._address = Throttle(ADDRESS, clock)
        self._pair = Throttle(ACCOUNT, clock)
        self._known: OrderedDict[str, None] = OrderedDict()  # pairs; of the last ENTRIES_MAX right attempts

    def enter(self, account: str, address: str) -> Attempt:
        """An attempt at the account from the address. Give it to `forgive` if it was a right one."""
        pair = f"{account} {address}"
        asked = self._asked(pair, account, address)
        wait = max(throttle.wait_seconds(name) for throttle, name in asked)
        if wait:
            return Attempt(wait, pair, ())
        for throttle, name in asked:
            throttle.take(name)
        return Attempt(0, pair, asked)

    def _asked(self, pair: str, account: str, address: str) -> tuple[tuple[Throttle, str], ...]:
        """The buckets that decide. Who knew the secret once is not to pay for strangers' guesses at it."""
        if pair in self._known:
            return ((self._pair, pair),)
        return (self._account, account), (self._address, address)

    def forgive(self, attempt: Attempt) -> None:
        """It was a right one: what it took goes back to where it came from, and its pair is known from now on."""
        for throttle, name in attempt.taken:
            throttle.give_back(name)
        self._known[attempt.pair] = None
        self._known.move_to_end(attempt.pair)
        if len(self._known) > ENTRIES_MAX:
            self._known.popitem(last=False)
