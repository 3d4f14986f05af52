"""The local way in: a Unix socket that only this user and root can open, for when everything else is down.

Who asks is told by the kernel (SO_PEERCRED), and goes into the audit as `local:<uid>`. Whoever can open the socket owns
the processes anyway, so all of `ops:*` is granted; a peer of another user is refused even if the file's mode let it in.
"""

from __future__ import annotations

import asyncio
import os
import socket

from aiohttp import web
from aiohttp.typedefs import Handler
from opentelemetry import trace

from atoll import web as atoll_web
from atoll_ops import sockets
from atoll_ops.control import busroutes, routes
from atoll_ops.control.busdesk import BusDesk
from atoll_ops.control.desk import Desk
from atoll_ops.control.requests import DESK

SCOPES = frozenset({"ops:read", "ops:operate", "ops:admin"})
_tracer = trace.get_tracer("atoll_ops")


def make_local_app(desk: Desk, bus: BusDesk) -> web.Application:
    """The operators' API without tokens, for the local socket alone."""
    app = web.Application(middlewares=[_observe, _problems, _admit])
    furnish(app, desk, bus)
    return app


def furnish(app: web.Application, desk: Desk, bus: BusDesk) -> None:
    """The same handlers for either way in."""
    app[DESK], app[busroutes.BUS] = desk, bus
    app[busroutes.CLOSING] = closing = asyncio.Event()
    app.add_routes(routes.routes)
    app.add_routes(busroutes.routes)

    async def end_streams(_: web.Application) -> None:
        closing.set()

    app.on_shutdown.append(end_streams)


@web.middleware
async def _observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A span around an act, whose trace the audit names. Looking has none: `./atoll` looks several times a second."""
    if request.method in ("GET", "HEAD"):
        return await handler(request)
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else ""
    attributes = {"http.request.method": request.method, "http.route": route, "url.scheme": "http"}
    with _tracer.start_as_current_span(
        f"{request.method} {route}".rstrip(), kind=trace.SpanKind.SERVER, attributes=attributes
    ) as span:
        response = await handler(request)
        span.set_attribute("http.response.status_code", response.status)
        if response.status >= 500:
            span.set_attribute("error.type", str(response.status))
            span.set_status(trace.StatusCode.ERROR)
        return response


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except atoll_web.Problem as problem:
        return problem.response()
    except web.HTTPException as error:
        return atoll_web.Problem(error.status, "http", error.reason).response()


@web.middleware
async def _admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    transport = request.transport
    connection: socket.socket | None = transport.get_extra_info("socket") if transport is not None else None
    if connection is None or not sockets.may_speak(connection):
        raise atoll_web.Problem(403, "wrong_user", "This socket serves the user that runs the system, and root")
    uid = sockets.peer_uid(connection)
    request[atoll_web.SUBJECT] = f"local:{os.geteuid() if uid is None else uid}"
    request[atoll_web.SCOPES] = SCOPES
    return await handler(request)
