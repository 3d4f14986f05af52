"""Worker: load on one URL. So many connections, each sends its next request when the answer to its last has come.

A client library would cost more than what it measures, on the same cores; so this one speaks just enough HTTP: a fixed
request, an answer with a Content-Length. Every answer is checked to the byte.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import cast
from urllib.parse import urlsplit

import msgspec
import uvloop
from _processes import RunFailedError, say, work
from _report import percentile

WARM_UP_SECONDS = 0.3
"""Asked and checked, not counted: connections are made, and caches filled."""
_ANSWER_SECONDS_MAX = 10.0
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")


class Job(msgspec.Struct):
    """What to ask for, and what must come back, always with status 200. An empty token is none."""

    url: str
    token: str
    expected: str
    connections: int
    seconds: float


class _Connection(asyncio.Protocol):
    """One client: asks, checks, notes the time, asks again until told to stop."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._asked = 0.0
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, but no subclass of it
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        self._asked = time.monotonic()
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end_of_head = self._received.find(b"\r\n\r\n")
        if end_of_head < 0:
            return
        length = _LENGTH.search(self._received, 0, end_of_head + 2)
        if length is None:
            self._load.fail(f"an answer without Content-Length: {bytes(self._received[:200])!r}")
            return
        if len(self._received) >= end_of_head + 4 + int(length[1]):
            self._check(end_of_head)

    def _check(self, end_of_head: int) -> None:
        status_is_good = self._received.startswith(b"HTTP/1.1 200 ")
        if not status_is_good or self._received[end_of_head + 4 :] != self._load.expected:
            self._load.fail(f"an answer that is wrong: {bytes(self._received[:400])!r}")
            return
        self._received.clear()
        if self._load.note(self._asked):
            self._ask()
        else:
            self._ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended:
            self._load.fail(f"a connection was lost: {exc or 'closed'}")

    def close(self) -> None:
        """Closes without complaint."""
        self._ended = True
        if self._transport is not None:
            self._transport.close()


class _Load:
    """All connections, and what they note."""

    def __init__(self, job: Job) -> None:
        split = urlsplit(job.url)
        bearer = f"Authorization: Bearer {job.token}\r\n" if job.token else ""
        self.request = f"GET {split.path} HTTP/1.1\r\nHost: {split.netloc}\r\n{bearer}\r\n".encode()
        self.expected = job.expected.encode()
        self.seconds: list[float] = []
        self.answers = 0
        self._job = job
        self._host, self._port = split.hostname or "", split.port or 80
        self._counted_from = self._until = 0.0
        self._open = job.connections
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Raises RunFailedError for the first answer that is not as it must be."""
        loop = asyncio.get_running_loop()
        self._counted_from = time.monotonic() + WARM_UP_SECONDS
        self._until = self._counted_from + self._job.seconds
        made = [
            (await loop.create_connection(lambda: _Connection(self), self._host, self._port))[1]
            for _ in range(self._job.connections)
        ]
        try:
            async with asyncio.timeout(WARM_UP_SECONDS + self._job.seconds + _ANSWER_SECONDS_MAX):
                await self._over
        except TimeoutError:
            raise RunFailedError(f"{self._open} answers did not come") from None
        finally:
            for connection in made:
                connection.close()

    def note(self, asked: float) -> bool:
        """Counts an answer; whether its connection should ask again."""
        now = time.monotonic()
        self.answers += 1
        if self._counted_from <= asked and now < self._until:
            self.seconds.append(now - asked)
        if now < self._until:
            return True
        self._open -= 1
        if self._open == 0 and not self._over.done():
            self._over.set_result(None)
        return False

    def fail(self, why: str) -> None:
        """Ends the run."""
        if not self._over.done():
            self._over.set_exception(RunFailedError(why))


async def _run(job: Job) -> None:
    load = _Load(job)
    await load.run()
    if not load.seconds:
        raise RunFailedError("no answer came in the time that counts")
    say(
        answers=load.answers,
        per_second=len(load.seconds) / job.seconds,
        p50_ms=percentile(load.seconds, 0.5) * 1000,
        p99_ms=percentile(load.seconds, 0.99) * 1000,
    )


def _main(job: Job) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(job))


if __name__ == "__main__":
    work(Job, _main)
