"""Asking a part how it is, over its own HTTP port. No HTTP library: the agent starts at once and stays small.

`python -m atoll_ops.probe PORT` is a container's health check: it exits 0 when the part is ready, else 1, saying why.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass

from atoll_ops.ports import HOST

_ANSWER_BYTES_MAX = 64 * 1024


@dataclass(frozen=True)
class Health:
    """What `/ready` said."""

    ready: bool
    why: str = ""
    degraded: tuple[str, ...] = ()


async def health(port: int, timeout_seconds: float, path: str = "/ready") -> Health | None:
    """What the part on this port says of itself; None if it gives no answer in time."""
    try:
        async with asyncio.timeout(timeout_seconds):
            status, body = await _get(port, path)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        return None
    return _read(status, body, path)


async def _get(port: int, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(HOST, port, limit=_ANSWER_BYTES_MAX)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        body = await reader.read(_ANSWER_BYTES_MAX)  # one read: a health answer fits a segment; the rest is not needed
        return int(head[0].split()[1]), body
    except IndexError as error:
        raise ValueError("no HTTP answer") from error
    finally:
        writer.close()


def _read(status: int, body: bytes, path: str) -> Health:
    try:
        said = json.loads(body)
        return Health(status == 200, str(said.get("why", "")), tuple(map(str, said.get("degraded", ()))))
    except (ValueError, AttributeError, TypeError):
        return Health(status == 200, "" if status == 200 else f"{path} answers {status}")


def main(words: list[str]) -> int:
    """The health check; its exit code."""
    if len(words) != 1 or not words[0].isdecimal():
        print("expected: python -m atoll_ops.probe PORT", file=sys.stderr)
        return 2
    found = asyncio.run(health(int(words[0]), timeout_seconds=2.0))
    print("no answer" if found is None else found.why or "ready" if found.ready else found.why or "not ready")
    return 0 if found is not None and found.ready else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
