"""Wiring: two ways in to one desk. Neither waits for bus, gateway or auth: they are what operators come to restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from aiohttp import web

import atoll
from atoll import telemetry
from atoll import web as atoll_web
from atoll_ops import sockets
from atoll_ops.agency import Agency
from atoll_ops.control import webhook
from atoll_ops.control.alarms import Alarm
from atoll_ops.control.busdesk import BusDesk
from atoll_ops.control.desk import Desk
from atoll_ops.control.local import furnish, make_local_app
from atoll_ops.control.metrics import ControlCollector
from atoll_ops.control.observer import Observer
from atoll_ops.control.webhook import Webhook

_SHUTDOWN_SECONDS = 5.0


def make_app(
    options: atoll.Options,
    run: Path,
    settings: Mapping[str, str],
    agents: Path | None = None,
    page: Path | None = None,
) -> web.Application:
    """The application behind the gateway, which opens the local socket in `run` beside itself.

    `settings` is the environment. `agents` and `page` are for an agent a part, as containers have them: see
    `atoll_ops.agency`. Raises ConfigurationError for a webhook that is no address.
    """
    posts = Webhook(settings[webhook.SETTING]) if settings.get(webhook.SETTING) else None
    database = atoll.Database(options.data / "control.sqlite", options.migrations)
    agency = Agency(run, agents, page)
    observer = Observer(agency, database, posts.tell if posts is not None else _tell_nobody)
    desk = Desk(agency, database, observer)
    bus = BusDesk(desk.check_may, database, observer)
    app = web.Application()
    furnish(app, desk, bus)
    version = telemetry.service_version("ops")  # the part is `control`, the project it is released with `ops`
    attached = atoll_web.attach(app, options, database=database, prefixes=("/ops",), version=version)
    attached.registry.register(ControlCollector(observer.book, posts))
    bus.session = observer.bus.session = attached.session

    async def observing(_: web.Application) -> AsyncIterator[None]:
        await observer.restore()
        tasks = [asyncio.create_task(observer.run(), name="observer")]
        if posts is not None:
            tasks.append(asyncio.create_task(posts.run(), name="webhook"))
        yield
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def local_socket(_: web.Application) -> AsyncIterator[None]:
        await desk.look_for_ends()
        runner = web.AppRunner(make_local_app(desk, bus), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        path = run / "control.sock"
        await web.SockSite(runner, sockets.listen(path)).start()
        yield
        await runner.cleanup()
        await desk.close()
        path.unlink(missing_ok=True)

    # After `attach`, so that the database is open when the first operator comes, and closed after the last.
    app.cleanup_ctx.extend((observing, local_socket))
    return app


def _tell_nobody(raised: bool, alarm: Alarm) -> None:
    """For a system without a webhook: the snapshot and the metric have every alarm all the same."""
