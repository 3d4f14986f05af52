"""Speaking to the agent from control's event loop."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from atoll_ops import sockets
from atoll_ops.errors import AgentGoneError

_SECONDS = 5.0
_ANSWER_BYTES_MAX = 4 * 1024 * 1024


class Agency:
    """The agent, by its socket. Every call is a connection of its own: an agent may be replaced between two."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    async def ask(self, **request: Any) -> dict[str, Any]:
        """One request, one answer. Raises AgentGoneError if nobody answers in time."""
        try:
            async with asyncio.timeout(_SECONDS):
                return await self._exchange(request)
        except (OSError, ValueError, TimeoutError) as error:
            raise AgentGoneError("the agent is gone; ./atoll up starts one, which adopts what runs") from error

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        address = sockets.address(self._path)
        reader, writer = await asyncio.open_unix_connection(address, limit=_ANSWER_BYTES_MAX)
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            await writer.drain()
            answer: dict[str, Any] = json.loads(await reader.readline())
            return answer
        finally:
            writer.close()
