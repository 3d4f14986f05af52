"""`/live`, `/ready`, `/metrics` by a few lines of HTTP/1.1, in the loop that does the work.

If that hangs, nobody answers, which is how the agent finds out.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import shutil
import socket

from atoll_journal.errors import PortTakenError
from atoll_journal.ledger import Ledger
from atoll_journal.settings import Settings
from atoll_journal.witness import Witness

HEAD_BYTES_MAX = 8192
HEAD_SECONDS = 5.0
CONNECTIONS_MAX = 64


class Health:
    """Serves until it is closed."""

    def __init__(self, settings: Settings, witness: Witness, ledger: Ledger) -> None:
        self._witness = witness
        self._ledger = ledger
        self._data = settings.data
        self._address = (settings.host, settings.port)
        self._open: dict[asyncio.Task[None], None] = {}  # the longest silent first
        self._server: asyncio.Server | None = None
        self.draining = False

    async def start(self) -> None:
        """Raises PortTakenError."""
        host, port = self._address
        try:
            listening = socket.create_server(
                self._address, family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=64
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTakenError(f"port {port} is taken: change ATOLL_PORT") from None
            raise PortTakenError(f"ATOLL_HOST {host!r}, ATOLL_PORT {port}: {error.strerror}") from None
        self._server = await asyncio.start_server(self._serve, sock=listening, limit=HEAD_BYTES_MAX)

    @property
    def port(self) -> int:
        """Where it listens, if that was left open."""
        assert self._server is not None, "start it first"
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= CONNECTIONS_MAX:
            next(iter(self._open)).cancel()  # who says nothing makes room: the agent's question must never be the one
        self._open[task] = None
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # a client that does not come to the point, or has gone
        finally:
            self._open.pop(task, None)
            with contextlib.suppress(OSError):
                writer.close()

    def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response("400 Bad Request", "text/plain", "expected GET /live HTTP/1.1\n")
        method, path = words[0], words[1].partition(b"?")[0]
        pages = {b"/live": self._live, b"/ready": self._ready, b"/metrics": self._metrics}
        if path not in pages:
            return _response("404 Not Found", "text/plain", "here are /live, /ready and /metrics\n")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", "text/plain", "GET\n", "Allow: GET, HEAD\r\n")
        status, kind, body = pages[path]()
        return _response(status, kind, body, with_body=method == b"GET")

    def _live(self) -> tuple[str, str, str]:
        return "200 OK", "application/json", json.dumps({"live": True})

    def _ready(self) -> tuple[str, str, str]:
        why = "draining" if self.draining else ""
        body = {"ready": not why, "why": why, "degraded": self._witness.degraded}
        return ("503 Service Unavailable" if why else "200 OK"), "application/json", json.dumps(body)

    def _metrics(self) -> tuple[str, str, str]:
        return "200 OK", "text/plain; version=0.0.4; charset=utf-8", "".join(self._samples())

    def _samples(self) -> list[str]:
        witness, ledger = self._witness, self._ledger
        size = ledger.path.stat().st_size if ledger.path.exists() else 0
        return [
            _metric("atoll_session_up", "gauge", "1 while there is a session with the broker.", {"": int(witness.up)}),
            _metric("atoll_sessions_total", "counter", "Sessions that were opened.", {"": witness.sessions}),
            _metric(
                "atoll_events_total", "counter", "Deliveries by what became of them.",
                {f'{{outcome="{name}"}}': count for name, count in sorted(witness.counts.items())},
            ),
            _metric("atoll_journal_events", "gauge", "Events that are kept.", {"": ledger.position}),
            _metric("atoll_journal_violations", "gauge", "Promises that the bus broke.", {"": ledger.violations}),
            _metric("atoll_journal_no_room", "gauge", "1 while the disk is full.", {"": int(bool(witness.no_room))}),
            _metric("atoll_journal_bytes", "gauge", "Size of the database, without its write-ahead log.", {"": size}),
            _metric(
                "atoll_journal_free_bytes", "gauge", "Room on its disk.", {"": shutil.disk_usage(self._data).free}
            ),
        ]  # fmt: skip


def _metric(name: str, kind: str, text: str, samples: dict[str, int]) -> str:
    lines = "".join(f"{name}{labels} {value}\n" for labels, value in samples.items())
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n{lines}"


def _response(status: str, kind: str, body: str, headers: str = "", *, with_body: bool = True) -> bytes:
    content = body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n{headers}"
    return f"{head}Connection: close\r\n\r\n".encode() + (content if with_body else b"")
