"""The demo as a client of the gateway: one token, patient with whatever is only temporary.

Every request is idempotent by its invoice or reference, so an answer that was lost is asked for again without fear.
"""

from __future__ import annotations

import asyncio
import random
import time
from decimal import Decimal
from typing import Any

import aiohttp

from atoll_ops.errors import OperationError

RETRY_SECONDS_MAX = 5.0
#: How long one request is tried again: longer than a part needs to come back.
PATIENCE_SECONDS = 60.0
_TIMEOUT_SECONDS = 15.0
_TOKEN_MARGIN_SECONDS = 30.0


class RefusedError(OperationError):
    """The gateway or a service said no for good: sending it again would change nothing."""


class Shop:
    """Calls through the gateway with the demo client's token."""

    def __init__(self, session: aiohttp.ClientSession, credentials: dict[str, str]) -> None:
        self._session = session
        self._credentials = credentials
        self._base = credentials["gateway"].rstrip("/")
        self._token = ""
        self._token_until = 0.0
        self._token_lock = asyncio.Lock()
        self.retries = 0

    async def post(self, path: str, body: dict[str, Any]) -> tuple[Any, str]:
        """Post JSON until it is accepted; the answer and its Location. Raises RefusedError."""
        return await self._persist("POST", path, body)

    async def get(self, path: str) -> Any:
        """Get JSON. Raises RefusedError."""
        return (await self._persist("GET", path, None))[0]

    async def sales(self) -> tuple[int, int, Decimal]:
        """Orders, units and revenue that sales counts by now."""
        total = (await self.get("/sales?by=country"))["total"]
        return int(total["orders"]), int(total["units"]), Decimal(str(total["revenue"]))

    async def _persist(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[Any, str]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        attempt = 0
        while True:
            wait: float
            try:
                status, answer, headers = await self._once(method, path, body)
                if status < 400:
                    return answer, headers.get("Location", "")
                why, wait = _problem(method, path, status, answer), _wait(status, headers, attempt)
                if wait < 0:
                    raise RefusedError(why)
            except (aiohttp.ClientError, TimeoutError) as error:
                why, wait = f"{method} {path}: {error or type(error).__name__}", _jitter(attempt)
            if time.monotonic() + wait > deadline:
                raise RefusedError(f"{why} (tried for {PATIENCE_SECONDS:.0f} s)")
            attempt += 1
            self.retries += 1
            await asyncio.sleep(wait)

    async def _once(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any, Any]:
        headers = {"Authorization": f"Bearer {await self._fresh_token()}"}
        async with self._session.request(
            method, self._base + path, json=body, headers=headers, timeout=aiohttp.ClientTimeout(_TIMEOUT_SECONDS)
        ) as response:
            answer = await response.json(content_type=None) if response.status != 204 else None
            if response.status == 401:
                self._token_until = 0.0  # revoked or rotated: the next try asks for a new one
            return response.status, answer, response.headers

    async def _fresh_token(self) -> str:
        async with self._token_lock:
            if time.monotonic() >= self._token_until:
                await self._renew()
            return self._token

    async def _renew(self) -> None:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._credentials["client_id"],
            "client_secret": self._credentials["client_secret"],
        }
        async with self._session.post(
            f"{self._base}/auth/token", data=form, timeout=aiohttp.ClientTimeout(_TIMEOUT_SECONDS)
        ) as response:
            answer = await response.json(content_type=None)
            if response.status in (400, 401, 403):
                raise RefusedError(_problem("POST", "/auth/token", response.status, answer))
            response.raise_for_status()
        self._token = str(answer["access_token"])
        self._token_until = time.monotonic() + max(5.0, float(answer["expires_in"]) - _TOKEN_MARGIN_SECONDS)


def _wait(status: int, headers: Any, attempt: int) -> float:
    """Seconds until the next try; negative where there is no point in one."""
    if status == 401 and attempt == 0:
        return 0.0
    if status != 429 and status < 500:
        return -1.0
    asked = headers.get("Retry-After", "")
    return float(asked) * random.uniform(1, 1.2) if asked.isdecimal() else _jitter(attempt)  # noqa: S311 - spreads retries


def _jitter(attempt: int) -> float:
    return random.uniform(0.05, min(RETRY_SECONDS_MAX, 0.2 * 2**attempt))  # noqa: S311 - spreads retries, guards nothing


def _problem(method: str, path: str, status: int, answer: Any) -> str:
    said = answer if isinstance(answer, dict) else {}
    words = (said.get(name) for name in ("detail", "error_description", "error", "title"))
    text = next((word for word in words if word), "no reason given")
    field = f" ({said['field']})" if said.get("field") else ""
    trace = f", trace {said['instance']}" if said.get("instance") else ""
    return f"{method} {path}: {status} {text}{field}{trace}"
