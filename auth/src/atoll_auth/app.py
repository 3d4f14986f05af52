"""Wiring and lifetimes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from aiohttp import web

import atoll
from atoll import web as atoll_web

from . import routes, seeds, settings, store
from .authentication import Authentication
from .heartbeat import Heartbeat
from .issuer import Issuer
from .keyring import KeyRing
from .messages import Seed
from .passwords import Passwords
from .settings import Settings
from .throttle import Guard

BODY_BYTES_MAX = 16_384


def make_app(
    options: atoll.Options,
    own: Settings,
    *,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> web.Application:
    """The application. Raises atoll.ConfigurationError for keys or a seed that are missing or wrong."""
    root = settings.root_key(options.keys)
    seed = seeds.load(options.keys)
    gateway = settings.gateway_key(options.keys)
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.add_routes(routes.routes)
    database = atoll.Database(options.data / store.FILE_NAME, options.migrations)
    attachment = atoll_web.attach(app, options, database=database, prefixes=("/auth",))
    app.middlewares.append(routes.front_door(options.name, gateway))  # inside those that attach has added
    app.on_response_prepare.append(routes.forbid_caching)

    ring = KeyRing(database, root, own.schedule, clock)
    passwords = Passwords()
    heartbeat = Heartbeat(database, ring, attachment.session, clock)
    app[routes.SETTINGS] = own
    app[routes.RING] = ring
    app[routes.ISSUER] = Issuer(database, ring, own, clock)
    app[routes.AUTHENTICATION] = Authentication(database, passwords, Guard(monotonic))
    app[routes.HEARTBEAT] = heartbeat
    app.cleanup_ctx.append(_lifetime(database, seed, passwords, heartbeat, ring, clock))
    return app


def _lifetime(
    database: atoll.Database,
    seed: Seed,
    passwords: Passwords,
    heartbeat: Heartbeat,
    ring: KeyRing,
    clock: Callable[[], float],
) -> Callable[[web.Application], AsyncIterator[None]]:
    """After attach's own (the database is open then), and ended before it."""

    async def lifetime(_: web.Application) -> AsyncIterator[None]:
        await seeds.sow(database, seed, int(clock()))
        await ring.turn()  # no request before there is a key to sign with
        task = asyncio.create_task(heartbeat.run(), name="heartbeat")
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        passwords.close()

    return lifetime
