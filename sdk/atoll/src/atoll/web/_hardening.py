"""What aiohttp leaves to its user: clients that begin to send and then do not go on.

Without it 2,000 connections with half a header each were all still open after 15 s. A connection has `HEADER_SECONDS`
from its first byte to the end of the header, a body `BODY_SECONDS` from there. Idle keep-alive connections are
aiohttp's own affair. One timer for all connections, not one each.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

from aiohttp import web
from aiohttp.typedefs import Handler

HEADER_SECONDS = 10.0
BODY_SECONDS = 20.0
_SWEEP_SECONDS = 1.0
_BACKLOG = 512


@web.middleware
async def slow_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers 408 when the body has not come in time; also tells the connection's watch that the header has."""
    with _header_complete(request), _body_deadline(request):
        return await handler(request)


@contextlib.contextmanager
def _header_complete(request: web.Request) -> Iterator[None]:
    watched = request.transport.get_protocol() if request.transport is not None else None
    if not isinstance(watched, WatchedProtocol):  # aiohttp's own test server
        yield
        return
    watched.serving += 1
    watched.waiting_since = None
    try:
        yield
    finally:
        watched.serving -= 1


@contextlib.contextmanager
def _body_deadline(request: web.Request) -> Iterator[None]:
    if not request.can_read_body:
        yield
        return

    def expire() -> None:
        if not request.content.is_eof():
            request.content.set_exception(web.HTTPRequestTimeout(reason="The body did not come in time"))

    timer = asyncio.get_running_loop().call_later(BODY_SECONDS, expire)
    try:
        yield
    finally:
        timer.cancel()


class WatchedProtocol(asyncio.Protocol):
    """aiohttp's protocol, with a note of since when the connection owes the rest of a header."""

    def __init__(self, inner: asyncio.Protocol, watched: set[WatchedProtocol]) -> None:
        self._inner = inner
        self._watched = watched
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.serving = 0
        self.waiting_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection owes a header from its beginning."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.waiting_since = self._loop.time()
        self._watched.add(self)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """The first byte after an answer begins a header."""
        if self.waiting_since is None and not self.serving:
            self.waiting_since = self._loop.time()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """See asyncio."""
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._watched.discard(self)
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """See asyncio."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._inner.resume_writing()

    def abort_if_late(self, now: float) -> None:
        """Drops the connection if its header is overdue."""
        if self.waiting_since is not None and now - self.waiting_since > HEADER_SECONDS and self._transport is not None:
            self._transport.abort()


class WatchedSite(web.BaseSite):
    """Serves a listening socket, watching its connections."""

    def __init__(self, runner: web.AppRunner, listening: socket.socket) -> None:
        super().__init__(runner)
        self._socket = listening
        self._watched: set[WatchedProtocol] = set()
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """Its address."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}"

    async def start(self) -> None:
        """Begins to accept."""
        await super().start()
        server = self._runner.server
        assert server is not None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: WatchedProtocol(server(), self._watched), sock=self._socket, backlog=_BACKLOG
        )
        self._sweeper = asyncio.create_task(self._sweep(), name="atoll http: late headers")

    async def stop(self) -> None:
        """Accepts no more; what is being answered goes on."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await super().stop()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = loop.time()
            for watched in list(self._watched):
                watched.abort_if_late(now)
