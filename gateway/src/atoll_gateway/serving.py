"""Start, serve, drain: the named steps of the process."""

from __future__ import annotations

import asyncio
import errno
import gc
import resource
import signal

import structlog
from aiohttp import web

import atoll

from . import __version__
from .app import make_app
from .listener import Listener
from .parts import PARTS, Feed
from .settings import Settings

# Two halves of the 10 s that a drain may take: aiohttp waits so long for requests to end by themselves, then cancels
# them and waits again for that.
_DRAIN_SECONDS = 4.5
_log = structlog.get_logger(__name__)


class Gateway:
    """A gateway that listens. `async with` starts it and drains it."""

    def __init__(self, settings: Settings, feed: Feed) -> None:
        self._settings = settings
        self.app = make_app(settings, feed)
        self._runner = web.AppRunner(self.app, handler_cancellation=True, shutdown_timeout=_DRAIN_SECONDS)
        self._listener: Listener | None = None

    async def __aenter__(self) -> Gateway:
        """Restores, follows the broker, listens. Raises atoll.PortTakenError or atoll.StorageError."""
        options = self._settings.options
        try:
            await self._runner.setup()
            self._listener = Listener(self._runner, self._settings.policy, self.app[PARTS].metrics)
            await self._listener.start(options.host, options.port)
        except BaseException as error:
            await self._runner.cleanup()
            if isinstance(error, OSError):
                raise _start_error(error, options) from error
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        """Accepts no more, lets requests end, closes."""
        parts = self.app[PARTS]
        parts.draining = True
        if self._listener is not None:
            self._listener.close()
        parts.streams.drain()
        await self._runner.cleanup()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        assert self._listener is not None
        return self._listener.address


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    session = atoll.Session(settings.options)
    session.profile.version = __version__
    async with Gateway(settings, session) as gateway:
        host, port = gateway.address
        _log.info("listening", host=host, port=port)
        _settle_memory()
        await stop.wait()
        _log.info("draining")


def _settle_memory() -> None:
    """Takes what the start has made out of the garbage collector's sight, and lets it look less often.

    A full collection went over all modules again and again, in the middle of requests; requests leave few cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def raise_file_limit(connections_max: int) -> None:
    """Lets the process have as many descriptors as its connections need: one to the client, one to a service.

    Shells often give 1,024; beyond it accepting fails for everybody.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections_max + 256
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _start_error(error: OSError, options: atoll.Options) -> atoll.FatalError:
    if error.errno in {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL}:
        return atoll.PortTakenError(f"ATOLL_PORT: cannot listen on {options.host}:{options.port}: {error.strerror}")
    return atoll.StorageError(f"ATOLL_DATA: {error}")
