"""How orders is put together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

import atoll
import atoll.web
from atoll_orders import deadline
from atoll_orders.handlers import events
from atoll_orders.routes import DATABASE, SETTINGS, routes
from atoll_orders.settings import Settings


def make_app(options: atoll.Options, settings: Settings) -> web.Application:
    app = web.Application()
    app[SETTINGS] = settings
    app[DATABASE] = atoll.Database(options.data / "orders.db", options.migrations)
    app.add_routes(routes)
    atoll.web.attach(app, options, events=events, database=app[DATABASE], prefixes=("/orders", "/returns"))
    app.cleanup_ctx.append(deadlines)  # after `attach`: it needs the open database, and stops before it is closed
    return app


async def deadlines(app: web.Application) -> AsyncIterator[None]:
    """Owns the task that cancels overdue orders."""
    task = asyncio.create_task(deadline.watch(app[DATABASE]), name="deadlines")
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
