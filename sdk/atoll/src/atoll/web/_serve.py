"""Runs an application as a process: listen, serve, drain, exit.

    SIGTERM ─▶ say "draining" ─▶ accept no more, finish requests ─▶ finish events, flush the outbox, BYE ─▶ last spans
               0.25 s             ≤ 3 s                              ≤ 2 s + 2 s + 0.5 s + 1 s              ≤ 1 s: < 10

The socket is bound and listens before anything else starts, so that a taken port is found first, and no request that
the gateway sends after the registry has named us is refused.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys

from aiohttp import web

from .. import logs, telemetry
from .._errors import FatalError, PortTakenError
from .._options import Options
from ._attach import ATTACHMENT, PORT
from ._hardening import WatchedSite

REQUESTS_SECONDS = 3.0
_LAST_REQUESTS_SECONDS = 0.25
"""Between telling the registry and closing the door: the gateway hears of it by then."""
_KEEPALIVE_SECONDS = 60.0
_TELEMETRY_SECONDS = 1.0


def serve(app: web.Application, options: Options) -> None:
    """Runs `app` until SIGTERM or SIGINT, drains, and returns. Sets up logs and telemetry.

    What keeps it from running ends the process with one line on stderr and a documented exit code: 64 configuration,
    69 port taken, 74 storage, 75 database locked.
    """
    logs.configure(options)
    telemetry.start(options)
    try:
        asyncio.run(_run(app, options))
    except FatalError as error:
        sys.stderr.write(f"{options.slot}: {error}\n")
        raise SystemExit(error.exit_code) from None
    finally:
        telemetry.shutdown(_TELEMETRY_SECONDS)


async def _run(app: web.Application, options: Options) -> None:
    listening = _listen(options)
    app[PORT] = listening.getsockname()[1]
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=_KEEPALIVE_SECONDS,
        shutdown_timeout=REQUESTS_SECONDS,
    )
    stop = _stop_signals()
    attachment = app.get(ATTACHMENT)
    if attachment is not None:
        attachment.on_failure = stop.set
    try:
        await runner.setup()
        await WatchedSite(runner, listening).start()
        await stop.wait()
        if attachment is not None:
            attachment.drain()
            attachment.session.tell()
            await asyncio.sleep(_LAST_REQUESTS_SECONDS)
    finally:
        await runner.cleanup()
        listening.close()
    if attachment is not None and attachment.failure is not None:
        raise attachment.failure


def _listen(options: Options) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family, backlog=512)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(f"port {options.port} is taken: change ATOLL_PORT") from None
        raise PortTakenError(f"ATOLL_HOST {options.host!r}, ATOLL_PORT {options.port}: {error.strerror}") from None


def _stop_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
