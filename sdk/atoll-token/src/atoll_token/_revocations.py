"""Tokens that are refused before their time.

Auth publishes the whole list each second (WATCH(revocations)); each publication carries a higher `beat`, which makes it
the heartbeat as well: as long as beats arrive, nothing revoked more than a second ago is missing from the list.
"""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from ._claims import Claims


class Revocations(msgspec.Struct, frozen=True, kw_only=True):
    """The value under `revocations` on the bus. Times are seconds since 1970.

    `boot` names the publishing process, `beat` rises by one a publication. `tokens` maps a revoked jti to its exp.
    `subjects` maps a subject to its not_before: its tokens with a lower iat are revoked.
    """

    boot: str
    beat: int
    tokens: dict[str, int] = {}
    subjects: dict[str, int] = {}

    def covers(self, claims: Claims) -> bool:
        not_before = self.subjects.get(claims.sub)
        return claims.jti in self.tokens or (not_before is not None and claims.iat < not_before)


class RevocationList:
    """The newest list that a watcher has, and how long ago auth last gave a sign of life.

    A value that arrives is not a sign of life by itself: on (re)connection the broker repeats the last one, however
    old. Only a beat that differs from the one before is. `clock` is monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest: Revocations | None = None
        self._heard: float | None = None
        self._restored = False

    def update(self, value: Any) -> None:
        """Take the value of WATCH(revocations). ValueError if it is not one; the list stays as it was."""
        new = msgspec.convert(value, Revocations)
        before = self._latest
        if not self._restored and before is not None and (new.boot, new.beat) != (before.boot, before.beat):
            self._heard = self._clock()
        self._restored = False
        self._latest = new

    def restore(self, value: Any) -> None:
        """Take a list that was stored by an earlier process, before the first `update`. ValueError as there.

        The value that arrives next differs from it and may be old all the same, so it is no sign of life yet.
        """
        self._latest = msgspec.convert(value, Revocations)
        self._restored = True

    def is_revoked(self, claims: Claims) -> bool:
        """By the newest list that has arrived. With no list at all nothing is revoked: ask `silent_seconds` too."""
        return self._latest is not None and self._latest.covers(claims)

    def silent_seconds(self) -> float:
        """Seconds since the last sign of life; infinite before the first (which takes two beats, so about a second)."""
        return float("inf") if self._heard is None else self._clock() - self._heard
