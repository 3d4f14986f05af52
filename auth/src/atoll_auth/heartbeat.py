"""Once a second: turn the keys, publish them where they have changed, and publish the revocations.

The revocations are the heartbeat by which the gateway knows that nothing revoked is missing from its list, so they go
out each second, changed or not, and at once after a revocation. With the broker away nothing is lost: the next beat
that gets through carries everything, and the key set goes with it again.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog

import atoll
from atoll_token import Revocations

from . import store
from .keyring import KeyRing

BEAT_SECONDS = 1.0
_PUT_SECONDS_MAX = 5.0
_BEATS_BETWEEN_TIDYING = 60
_log = structlog.get_logger(__name__)


class Bus(Protocol):
    """What is needed of atoll.Session."""

    async def put(self, kind: str, value: object) -> None: ...


class Heartbeat:
    def __init__(self, database: atoll.Database, ring: KeyRing, bus: Bus, clock: Callable[[], float]) -> None:
        self._database = database
        self._ring = ring
        self._bus = bus
        self._clock = clock
        self._boot = secrets.token_hex(8)
        self._beat = 0
        self._published = ""
        self._why_not: str | None = None
        self._poked = asyncio.Event()

    def poke(self) -> None:
        """Something was revoked: do not wait for the next second."""
        self._poked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.beat()
            except Exception:  # a beat that fails must not be the last one
                _log.exception("heartbeat failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), BEAT_SECONDS)
            self._poked.clear()

    async def beat(self) -> None:
        self._beat += 1
        await self._ring.turn()
        if self._beat % _BEATS_BETWEEN_TIDYING == 0:
            await self._database.write(lambda tx: store.tidy(tx, int(self._clock())))
        try:
            async with asyncio.timeout(_PUT_SECONDS_MAX):
                await self._publish()
        except (atoll.BusUnavailableError, atoll.BusRefusedError, TimeoutError) as error:
            self._published = ""  # whoever comes back may have lost it
            self._say(f"{type(error).__name__}: {error}")
        else:
            self._say(None)

    async def _publish(self) -> None:
        document = self._ring.document
        if document != self._published:
            await self._bus.put("keys", document)
            await self._ring.mark_published(document)
            self._published = document
        tokens, subjects = await self._database.read(lambda db: store.revocations(db, int(self._clock())))
        value = Revocations(boot=self._boot, beat=self._beat, tokens=tokens, subjects=subjects)
        await self._bus.put("revocations", msgspec.to_builtins(value))

    def _say(self, why_not: str | None) -> None:
        """Log a change, not each second of it."""
        if why_not == self._why_not:
            return
        self._why_not = why_not
        if why_not is None:
            _log.info("keys and revocations reach the broker")
        else:
            _log.warning("keys and revocations do not reach the broker", why=why_not)
