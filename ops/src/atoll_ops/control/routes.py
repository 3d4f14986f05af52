"""HTTP in: instances, operations, the audit. The same handlers serve the gateway and the local socket."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from atoll import web as atoll_web
from atoll_ops.control import audit as records
from atoll_ops.control.requests import DESK, Reason, asker, number, once, page, read
from atoll_ops.logtail import LINES_MAX

routes = web.RouteTableDef()
LINES_DEFAULT = 50


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of an act."""

    reason: Reason
    seconds: Annotated[float, msgspec.Meta(gt=0, le=900)] | None = None  # limit of a pause


@routes.get("/ops/snapshot")
@atoll_web.requires("ops:read")
async def snapshot(request: web.Request) -> web.Response:
    """Every instance, and what the bus knows."""
    return web.Response(body=await request.app[DESK].snapshot(), content_type="application/json")


@routes.post("/ops/instances/{name}/{n}/{act}")
@atoll_web.requires("ops:read")  # that the asker may act is checked by the desk, which records an attempt
async def act(request: web.Request) -> web.StreamResponse:
    """kill, stop, start, restart, pause or resume an instance."""
    path = request.match_info
    body = await read(request, Act, path["act"], f"{path['name']}/{path['n']}")
    instance, answered_once = number(path["n"], "n"), await once(request)
    answer = await request.app[DESK].act(
        asker(request), path["act"], path["name"], instance, body.reason, body.seconds, answered_once
    )
    return answer.response()


@routes.get("/ops/instances/{name}/{n}/log")
@atoll_web.requires("ops:read")
async def log(request: web.Request) -> web.Response:
    """The last lines that an instance said."""
    lines = number(request.query.get("lines", str(LINES_DEFAULT)), "lines", most=LINES_MAX)
    return web.json_response(await request.app[DESK].log(*_instance(request), lines))


@routes.get("/ops/instances/{name}/{n}/configuration")
@atoll_web.requires("ops:read")
async def configuration(request: web.Request) -> web.Response:
    """What an instance is told by the agent, secrets masked."""
    return web.json_response(await request.app[DESK].configuration(*_instance(request)))


def _instance(request: web.Request) -> tuple[str, int]:
    return request.match_info["name"], number(request.match_info["n"], "n")


@routes.get("/ops/operations/{id}")
@atoll_web.requires("ops:read")
async def operation(request: web.Request) -> web.Response:
    """Where an operation stands."""
    return web.json_response(await request.app[DESK].operation(request.match_info["id"]))


@routes.get("/ops/audit")
@atoll_web.requires("ops:read")
async def audit(request: web.Request) -> web.Response:
    """Who did what, newest first; of one person, act or target where the query names them."""
    limit, cursor = page(request)
    query = records.Query(*(request.query.get(name) or None for name in ("who", "act", "target")))
    return web.json_response(await request.app[DESK].audit(query, limit, cursor))
