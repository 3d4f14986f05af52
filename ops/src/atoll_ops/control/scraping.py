"""Asking every part for its /metrics, all at once and each for a second at most.

A part may be dead, stand still with its port open, send without end, or talk nonsense: each costs its own entry and no
other's. Who is asked follows the agent's snapshot, the only place that knows where a part listens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import aiohttp

from atoll_ops.control import rates
from atoll_ops.ports import HOST

EVERY_SECONDS = 2.0
_TIMEOUT = aiohttp.ClientTimeout(total=1.0)
_BYTES_MAX = 1_048_576
_CHUNK_BYTES = 65_536
_PARTS_MAX = 256

Key = tuple[str, int]
"""A slot: name, instance."""


class Scraper:
    """Windows of samples by slot. Open it for its HTTP session; `sweep` is called on a timer."""

    def __init__(self) -> None:
        self.windows: dict[Key, rates.Window] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Scraper:
        # Not an instrumented session: nobody wants a trace of being looked at.
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def sweep(self, parts: Iterable[dict[str, Any]]) -> None:
        """Ask each part once; forget those that are no longer there."""
        targets = {
            (part["name"], part["instance"]): part for part in list(parts)[:_PARTS_MAX] if part["kind"] != "tool"
        }
        for gone in self.windows.keys() - targets.keys():
            del self.windows[gone]
        async with asyncio.TaskGroup() as group:
            for key, part in targets.items():
                window = self.windows.setdefault(key, rates.Window())
                if part["pid"] is not None and part["state"] != "paused":
                    group.create_task(self._ask(window, part))

    async def _ask(self, window: rates.Window, part: dict[str, Any]) -> None:
        try:
            text = await self._fetch(f"http://{part.get('host') or HOST}:{part['port']}/metrics")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return  # its last sample grows old, and says so
        window.add(rates.sample(text, time.monotonic(), part["pid"]))

    async def _fetch(self, url: str) -> str:
        assert self._session is not None, "the scraper is open"
        async with self._session.get(url, allow_redirects=False, headers={"Accept": "text/plain"}) as answer:
            if answer.status != 200:
                raise ValueError(f"/metrics answers {answer.status}")
            body = bytearray()
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                body += chunk
                if len(body) > _BYTES_MAX:
                    raise ValueError("/metrics is too long")
            return body.decode("utf-8", "replace")
