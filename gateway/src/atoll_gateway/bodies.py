"""A client's request body on its way to a service: never whole in memory, bounded in size and in time.

The HTTP client pulls the chunks, so a slow service slows the client down and not the gateway. When the client breaks a
bound the pull fails, which breaks the connection to the service too; what is answered is then in `failure`, because
the HTTP client reports only that sending failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from .problems import Problem

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Body:
    """The body of one request. Raises Problem 413 at once when its declared length is too much."""

    def __init__(self, request: web.Request, bytes_max: int, idle_seconds_max: float) -> None:
        self._request = request
        self._bytes_max = bytes_max
        self._idle_seconds_max = idle_seconds_max
        self.present = request.body_exists
        self.length = request.content_length if self.present else None
        self.complete = not self.present
        self.waiting = False  # whether the client is being waited for, rather than the service
        self.failure: Problem | None = None
        self.on_complete: Callable[[], None] = lambda: None
        if self.length is not None and self.length > bytes_max:
            raise self._too_large()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises Problem 400, 408 or 413, which is in `failure` then."""
        await self._invite()
        total = 0
        async for chunk in self._arriving():
            total += len(chunk)
            if total > self._bytes_max:
                raise self._failed(self._too_large())
            yield chunk
        self.complete = True
        self.on_complete()

    def late(self) -> Problem:
        """The client did not send its body in time."""
        return Problem(408, "body_timeout", "the request body did not arrive in time")

    async def _arriving(self) -> AsyncIterator[bytes]:
        content = self._request.content
        while True:
            self.waiting = True
            try:
                async with asyncio.timeout(self._idle_seconds_max):
                    chunk = await content.readany()
            except TimeoutError:
                raise self._failed(self.late()) from None
            except web.RequestPayloadError:
                problem = Problem(400, "malformed_body", "the request body ended early or is not well-formed")
                raise self._failed(problem) from None
            finally:
                self.waiting = False
            if not chunk:
                return
            yield chunk

    async def _invite(self) -> None:
        """`100 Continue` only now that the request is admitted: a refused client need not send its body at all."""
        if self._request.headers.get("Expect", "").lower() == "100-continue":
            await self._request.writer.write(_CONTINUE)
            self._request.writer.output_size = 0  # the answer proper has not begun

    def _too_large(self) -> Problem:
        detail = f"the request body is larger than body_bytes_max = {self._bytes_max} bytes"
        return Problem(413, "body_too_large", detail)

    def _failed(self, problem: Problem) -> Problem:
        self.failure = problem
        return problem
