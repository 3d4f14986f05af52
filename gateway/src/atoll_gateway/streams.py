"""Answers that are still being sent, so that a revocation reaches them too.

A request is judged when it arrives; an event stream may outlive that judgement by hours. So each streamed answer is
remembered with its claims: when the token or the subject is revoked its connection is cut, and an endless stream ends
when its token does (the client comes back with a new one).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

from atoll_token import LEEWAY_SECONDS, Claims

from .metrics import Metrics


class Streams:
    """The streamed answers in progress."""

    def __init__(
        self, metrics: Metrics, covers: Callable[[Claims], bool], wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._metrics = metrics
        self._covers = covers
        self._wall_clock = wall_clock
        self._open: dict[asyncio.Transport, tuple[Claims | None, bool]] = {}
        self._draining = False

    @contextlib.contextmanager
    def open(self, transport: asyncio.Transport | None, claims: Claims | None, *, endless: bool) -> Iterator[None]:
        """Remembers one answer for as long as it is being sent. `endless`: an event stream; cut at once in a drain."""
        if transport is None:  # the client has left already; the first write will find out
            yield
            return
        self._open[transport] = (claims, endless)
        if endless and self._draining:  # asked for before the drain, its head came after
            self._cut(transport, "drained")
        expiry = self._at_expiry(transport, claims) if endless and claims is not None else None
        try:
            yield
        finally:
            self._open.pop(transport, None)
            if expiry is not None:
                expiry.cancel()

    def cut_revoked(self) -> None:
        """Called when the revocations have changed."""
        for transport, (claims, _) in list(self._open.items()):
            if claims is not None and self._covers(claims):
                self._cut(transport, "revoked")

    def drain(self) -> None:
        """From now on no event stream goes on or begins: it would hold the drain up to its last second."""
        self._draining = True
        for transport, (_, endless) in list(self._open.items()):
            if endless:
                self._cut(transport, "drained")

    def _at_expiry(self, transport: asyncio.Transport, claims: Claims) -> asyncio.TimerHandle:
        left = max(claims.exp + LEEWAY_SECONDS - self._wall_clock(), 0.0)
        return asyncio.get_running_loop().call_later(left, self._cut, transport, "expired")

    def _cut(self, transport: asyncio.Transport, why: str) -> None:
        self._open.pop(transport, None)
        self._metrics.cut(why)
        transport.abort()
