"""The agent's last snapshot, fresh to a fifth of a second, for any number of lookers.

Whoever looks waits a little for a fresh one, together with all others who look, and gets the last known with the
reason why it is not fresh where the agent does not answer. So a hung agent costs nobody more than that little.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog

from atoll_ops.agency import Agency
from atoll_ops.errors import AgentGoneError

FRESH_SECONDS = 0.2
WAIT_SECONDS = 0.5
#: Of several agents each has so long, well within that: one that hangs must not make the others look lost.
EACH_SECONDS = 0.35
_NONSENSE = "the agent talks nonsense"
_log = structlog.get_logger("atoll.control")

Snapshot = dict[str, Any]


class AgentWatch:
    """What the agent said last, and whether it still speaks."""

    def __init__(self, agency: Agency) -> None:
        self.known: Snapshot | None = None
        self.lost: str | None = None
        """Why nothing newer is known, or None."""
        self._agency = agency
        self._asked_at = -FRESH_SECONDS
        self._fresh_from = 0.0
        self._asking: asyncio.Task[None] | None = None

    def expire(self) -> None:
        """Something has happened: what was asked before is old now."""
        self._fresh_from = time.monotonic()

    async def look(self) -> Snapshot | None:
        """The agent's snapshot, not older than FRESH_SECONDS if it answers in time; None if it never answered."""
        await self._freshen()
        if self.lost is None and self._asked_at < self._fresh_from:
            await self._freshen()  # what came in was asked for before something happened
        return self.known

    async def _freshen(self) -> None:
        old = time.monotonic() - self._asked_at >= FRESH_SECONDS or self._asked_at < self._fresh_from
        if self._asking is None and old:
            self._asked_at = time.monotonic()
            self._asking = asyncio.create_task(self._ask(), name="ask the agent")
        asking = self._asking
        if asking is not None:
            patience = self._asked_at + WAIT_SECONDS - time.monotonic()
            await asyncio.wait([asking], timeout=max(0.0, patience))
            if not asking.done():
                self.lost = "the agent does not answer"

    async def _ask(self) -> None:
        try:
            seen = await self._agency.ask(EACH_SECONDS, do="snapshot")
            if not isinstance(seen.get("parts"), list):
                raise AgentGoneError(_NONSENSE)
            self.known, self.lost = seen, None
        except AgentGoneError as gone:
            self.lost = str(gone)
        except Exception:  # whatever it is, what is known is not fresh, and nobody may be shown that it were
            if self.lost != _NONSENSE:
                _log.exception("the agent's answer could not be read")
            self.lost = _NONSENSE
        finally:
            self._asking = None

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
