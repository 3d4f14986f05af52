"""Client connections: what aiohttp's server leaves open to slow and malformed clients.

aiohttp 3.14 refuses smuggling by itself (repeated Content-Length, Content-Length with Transfer-Encoding, folded lines,
bare LF, NUL, 50,000 headers). It does not limit how long a head may take (2,000 half-sent ones were still open after
15 s), nor the connections, and each malformed request logs a traceback and gets a text/plain answer. A subclass of its
protocol mends these; the listener makes protocols of that class for an ordinary AppRunner.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

import structlog
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from .metrics import Metrics
from .policy import Policy
from .problems import Problem

# What a refused request's unread body may still take, so that the client reads the refusal instead of a reset.
_LINGERING_SECONDS = 2.0
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Shared:
    """What the connections of one listener have in common."""

    policy: Policy
    metrics: Metrics
    open: int = 0


class _Connection(web.RequestHandler):
    """One client connection.

    Two things of aiohttp's are looked at (tests/test_hostile_clients.py fails if a new one changes them): `_messages`,
    the heads that are complete, or refused, and not taken up yet; `_waiter`, a future that is pending exactly while the
    connection waits for the next of them.
    """

    __slots__ = ("_had_head", "_head_timer", "_shared")

    def __init__(self, manager: web.Server, shared: _Shared, loop: asyncio.AbstractEventLoop) -> None:
        policy = shared.policy
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=policy.keepalive_seconds,
            access_log=None,  # type: ignore[arg-type]  # documented: None switches it off
            max_line_size=policy.head_line_bytes_max,
            max_field_size=policy.head_line_bytes_max,
            lingering_time=_LINGERING_SECONDS,
            auto_decompress=False,  # an 815 KB bomb stalls the loop for seconds; bodies are passed on as they are
        )
        self._shared = shared
        self._head_timer: asyncio.TimerHandle | None = None
        self._had_head = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._shared.open += 1
        self._shared.metrics.connections.set(self._shared.open)
        if self._shared.open > self._shared.policy.connections_max:
            self._cut("too_many")
        else:
            self._start_head_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        self._shared.open -= 1
        self._shared.metrics.connections.set(self._shared.open)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._waits_for_head():
            self._stop_head_timer()
        elif data and self._head_timer is None:
            self._start_head_timer()

    def _waits_for_head(self) -> bool:
        # Under uvloop bytes arrive before aiohttp's task has begun, and so before there is a future to look at.
        self._had_head = self._had_head or bool(self._messages)
        if not self._had_head:
            return True
        return self._waiter is not None and not self._waiter.done()

    def _start_head_timer(self) -> None:
        self._head_timer = self._loop.call_later(self._shared.policy.head_seconds_max, self._head_overdue)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_overdue(self) -> None:
        self._head_timer = None
        if self._waits_for_head():
            self._cut("head_timeout")

    def _cut(self, why: str) -> None:
        self._shared.metrics.cut(why)
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's text repeats the client's bytes
    ) -> web.StreamResponse:
        """The answer to what the parser refused, and to an exception that no handler caught."""
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer has been sent: the connection can only be closed")
        if status == 400:
            problem = _malformed(exc)
            self._shared.metrics.malformed.inc()
            _log.info("a malformed request was refused", client=request.remote, error=type(exc).__name__)
        else:
            problem = Problem(500, "internal", "the gateway failed; its log has the cause")
            _log.error("a request failed", exc_info=exc)
        response = problem.response()
        response.headers["Server"] = "atoll"
        response.force_close()
        return response


def _malformed(error: BaseException | None) -> Problem:
    if isinstance(error, LineTooLong):
        return Problem(431, "head_too_large", "a line of the request's head is too long")
    # One class for all of these; its text is compared and not passed on, since it repeats the client's bytes elsewhere.
    text = error.message if isinstance(error, BadHttpMessage) else ""
    if text.startswith("Too many headers"):
        return Problem(431, "head_too_large", "the request has too many headers")
    if text.startswith(("Missing 'Host'", "Duplicate 'Host'")):
        return Problem(400, "bad_host", "expected exactly one Host header", field="Host")
    return Problem(400, "malformed_request", "the request is not well-formed HTTP/1.1")


class Listener:
    """Accepts connections for an AppRunner that has been set up."""

    def __init__(self, runner: web.AppRunner, policy: Policy, metrics: Metrics) -> None:
        assert runner.server is not None, "the runner must be set up first"
        self._manager = runner.server
        self._shared = _Shared(policy, metrics)
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Listens; raises OSError if the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self._manager, self._shared, loop), host, port, backlog=1024, reuse_address=True
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are listened on; port 0 has become a real one."""
        assert self._server is not None
        listening: socket.socket = self._server.sockets[0]
        host, port = listening.getsockname()[:2]
        return host, port

    def close(self) -> None:
        """Accepts no more; open connections are the runner's to end."""
        if self._server is not None:
            self._server.close()
