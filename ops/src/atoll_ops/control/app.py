"""Wiring: two ways in to one desk. Neither waits for bus, gateway or auth: they are what operators come to restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

import atoll
from atoll import web as atoll_web
from atoll_ops import sockets
from atoll_ops.agency import Agency
from atoll_ops.control.desk import Desk
from atoll_ops.control.local import make_local_app
from atoll_ops.control.routes import DESK, routes

_SHUTDOWN_SECONDS = 5.0


def make_app(
    options: atoll.Options, run: Path, agents: Path | None = None, page: Path | None = None
) -> web.Application:
    """The application behind the gateway, which opens the local socket in `run` beside itself.

    `agents` and `page` are for an agent a part, as containers have them: see `atoll_ops.agency`.
    """
    database = atoll.Database(options.data / "control.sqlite", options.migrations)
    desk = Desk(Agency(run, agents, page), database)
    app = web.Application()
    app[DESK] = desk
    app.add_routes(routes)
    attached = atoll_web.attach(app, options, database=database, prefixes=("/ops",))
    desk.session = attached.session

    async def local_socket(_: web.Application) -> AsyncIterator[None]:
        """After `attach`, so the database is open when the first operator comes, and closed after the last."""
        await desk.look_for_ends()
        runner = web.AppRunner(make_local_app(desk), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        path = run / "control.sock"
        await web.SockSite(runner, sockets.listen(path)).start()
        yield
        await runner.cleanup()
        await desk.close()
        path.unlink(missing_ok=True)

    app.cleanup_ctx.append(local_socket)
    return app
