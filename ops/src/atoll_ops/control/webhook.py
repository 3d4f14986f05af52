"""One POST for each alarm that is raised or cleared, to the address in OPS_ALARM_WEBHOOK, if there is one.

    {"event": "raised" | "cleared", "at": …, "alarm": {"kind", "target", "text", "since"}}

Nothing waits for the receiver: alarms go into a bounded queue that drops its oldest, and a task of its own sends them
in order. A receiver that is away, hangs, or answers 429 or 5xx is tried again three times; any other answer is final.
So each is sent at least once where the receiver is away for seconds, and given up, and logged, after half a minute.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog

import atoll
from atoll_ops.control.alarms import Alarm

SETTING = "OPS_ALARM_WEBHOOK"
WAITING_MAX = 100
ATTEMPT_SECONDS = 5.0
PAUSES_SECONDS = (1.0, 2.0, 4.0)
_TOO_MANY, _SERVER_ERROR = 429, 500
_log = structlog.get_logger("atoll.control")


class _AgainError(Exception):
    """This attempt failed in a way that another may not."""


class Webhook:
    """The queue and its sender. `outcomes` counts posts: delivered, refused, failed, dropped."""

    def __init__(self, url: str, pauses_seconds: tuple[float, ...] = PAUSES_SECONDS) -> None:
        """Raises ConfigurationError for anything but an http or https address; which does not repeat it, since a
        webhook's address is a secret and logs are for everybody."""
        if not _is_web_address(url):
            raise atoll.ConfigurationError(f"{SETTING} is no web address: expected http://HOST/… or https://HOST/…")
        self.outcomes: Counter[str] = Counter(delivered=0, refused=0, failed=0, dropped=0)
        self._url = url
        self._pauses = pauses_seconds
        self._waiting: deque[dict[str, Any]] = deque()
        self._something = asyncio.Event()

    def tell(self, raised: bool, alarm: Alarm) -> None:
        """Queue a change. Returns at once."""
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
            self.outcomes["dropped"] += 1
        event = "raised" if raised else "cleared"
        self._waiting.append({"event": event, "at": time.time(), "alarm": msgspec.to_builtins(alarm)})
        self._something.set()

    async def run(self) -> NoReturn:
        """Send until cancelled."""
        timeout = aiohttp.ClientTimeout(total=ATTEMPT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                await self._something.wait()
                self._something.clear()
                while self._waiting:
                    outcome = await self._deliver(session, self._waiting.popleft())
                    self.outcomes[outcome] += 1

    async def _deliver(self, session: aiohttp.ClientSession, message: dict[str, Any]) -> str:
        for pause in (*self._pauses, None):
            try:
                return await self._post(session, message)
            except (_AgainError, aiohttp.ClientError, OSError, TimeoutError) as error:
                why = str(error) or f"no answer within {ATTEMPT_SECONDS:.0f} s"
                if pause is not None:
                    await asyncio.sleep(pause)
        _log.warning("an alarm could not be posted", alarm_event=message["event"], alarm=message["alarm"], why=why)
        return "failed"

    async def _post(self, session: aiohttp.ClientSession, message: dict[str, Any]) -> str:
        async with session.post(self._url, json=message, allow_redirects=False) as answer:
            if answer.status == _TOO_MANY or answer.status >= _SERVER_ERROR:
                raise _AgainError(f"it answers {answer.status}")
            if answer.ok:
                return "delivered"
            _log.warning("the alarm webhook refuses", status=answer.status)
            return "refused"


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:  # half an IPv6 address
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
