"""Worker: an HTTP server of the measurement. Role `upstream` answers a small JSON; role `proxy` passes it on, bare.

The bare proxy is what the gateway is measured against: the same server, client and loop, and nothing that a gateway is
for. It streams the answer; it looks at no token, no route, no limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import uvloop
from _processes import say, work
from aiohttp import web

BODY = b'{"id":"7","status":"confirmed","customer":"17850","country":"Norway","total":"15.30","units":6}'
_CHUNK_BYTES = 65_536


class Job(msgspec.Struct):
    """What to be. `upstream`: base URL, for the proxy."""

    role: str
    upstream: str = ""


async def _answer(_: web.Request) -> web.Response:
    return web.Response(body=BODY, content_type="application/json")


def _upstream(_: Job) -> web.Application:
    app = web.Application()
    app.router.add_get("/bench/{id}", _answer)
    return app


def _proxy(job: Job) -> web.Application:
    client: aiohttp.ClientSession | None = None

    async def lifetime(_: web.Application) -> AsyncIterator[None]:
        nonlocal client
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as client:
            yield

    async def forward(request: web.Request) -> web.StreamResponse:
        assert client is not None
        headers = {name: value for name, value in request.headers.items() if name not in ("Host", "Authorization")}
        async with client.request(request.method, job.upstream + request.path_qs, headers=headers) as upstream:
            response = web.StreamResponse(status=upstream.status)
            for name in ("Content-Type", "Content-Length"):
                response.headers[name] = upstream.headers[name]
            await response.prepare(request)
            async for chunk in upstream.content.iter_chunked(_CHUNK_BYTES):
                await response.write(chunk)
            return response

    app = web.Application()
    app.cleanup_ctx.append(lifetime)
    app.router.add_route("*", "/{path:.*}", forward)
    return app


async def _serve(job: Job) -> None:
    runner = web.AppRunner({"upstream": _upstream, "proxy": _proxy}[job.role](job), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    say(url=f"http://127.0.0.1:{runner.addresses[0][1]}")
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


def _main(job: Job) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(job))


if __name__ == "__main__":
    work(Job, _main)
