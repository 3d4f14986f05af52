"""HTTP in: the operators' API. The same handlers serve the gateway and the local socket."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web

import atoll
from atoll import web as atoll_web
from atoll_ops.control import audit as records
from atoll_ops.control.audit import PAGE_MAX
from atoll_ops.control.desk import Asker, Desk

DESK = web.AppKey("desk", Desk)
routes = web.RouteTableDef()

S = TypeVar("S", bound=msgspec.Struct)
_PAGE_DEFAULT = 50
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of an act."""

    reason: Reason
    seconds: Annotated[float, msgspec.Meta(gt=0, le=900)] | None = None  # limit of a pause


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a replay; without a subject, all of the group's."""

    group: str
    reason: Reason
    subject: str | None = None


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
    body = await _read(request, Act, path["act"], f"{path['name']}/{path['n']}")
    once = functools.partial(_once, request, await atoll_web.body_hash(request))
    answer = await request.app[DESK].act(
        _asker(request), path["act"], path["name"], _number(path["n"], "n"), body.reason, body.seconds, once
    )
    return answer.response()


async def _read(request: web.Request, shape: type[S], act: str, target: str) -> S:
    """The body. One who may not act is told (and recorded as) that, rather than what is wrong with his words."""
    try:
        return await atoll_web.read_json(request, shape)
    except atoll_web.Problem:
        await request.app[DESK].check_may(_asker(request), act, target, "")
        raise


def _once(
    request: web.Request, body_hash: str, tx: atoll.Transaction, effect: Callable[[], atoll_web.Answer]
) -> atoll_web.Answer:
    """The body's hash alone would let one key kill two instances, and be told that it killed the first one twice."""
    return atoll_web.idempotent(tx, request, f"{request.path} {body_hash}", effect)


@routes.get("/ops/operations/{id}")
@atoll_web.requires("ops:read")
async def operation(request: web.Request) -> web.Response:
    """Where an operation stands."""
    return web.json_response(await request.app[DESK].operation(request.match_info["id"]))


@routes.get("/ops/groups")
@atoll_web.requires("ops:read")
async def groups(request: web.Request) -> web.Response:
    """Consumer groups."""
    answer = await request.app[DESK].admin("groups")
    return web.json_response({"as_of": time.time(), "groups": answer["groups"]})


@routes.get("/ops/topics")
@atoll_web.requires("ops:read")
async def topics(request: web.Request) -> web.Response:
    """Topics."""
    answer = await request.app[DESK].admin("topics")
    return web.json_response({"as_of": time.time(), "topics": answer["topics"]})


@routes.get("/ops/dlq")
@atoll_web.requires("ops:read")
async def dead_letters(request: web.Request) -> web.Response:
    """Dead letters of a group, oldest first."""
    group = request.query.get("group")
    if not group:
        raise atoll_web.Problem(422, "validation", "Expected ?group=NAME", "group")
    limit, cursor = _page(request)
    arguments = {"group": group, "limit": limit} | ({"after": cursor} if cursor is not None else {})
    answer = await request.app[DESK].admin("dlq.list", **arguments)
    letters = answer["letters"]
    return web.json_response({"items": letters, "next": str(letters[-1]["seq"]) if answer.get("more") else None})


@routes.post("/ops/dlq/replay")
@atoll_web.requires("ops:read")  # as above
async def replay(request: web.Request) -> web.Response:
    """Deliver dead letters again."""
    body = await _read(request, Replay, "dlq.replay", "dead letters")
    return web.json_response(
        await request.app[DESK].replay(_asker(request), body.group, body.subject, body.reason)
    )  # fmt: skip


@routes.get("/ops/audit")
@atoll_web.requires("ops:read")
async def audit(request: web.Request) -> web.Response:
    """Who did what, newest first; of one person, act or target where the query names them."""
    limit, cursor = _page(request)
    query = records.Query(*(request.query.get(name) or None for name in ("who", "act", "target")))
    return web.json_response(await request.app[DESK].audit(query, limit, cursor))


def _asker(request: web.Request) -> Asker:
    return Asker(request[atoll_web.SUBJECT], request[atoll_web.SCOPES])


def _page(request: web.Request) -> tuple[int, int | None]:
    limit = _number(request.query.get("limit", str(_PAGE_DEFAULT)), "limit")
    cursor = request.query.get("cursor")
    return min(limit, PAGE_MAX), _number(cursor, "cursor") if cursor is not None else None


def _number(text: str, field: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**62):
        raise atoll_web.Problem(422, "validation", f"Expected a number from 1, not {text[:40]!r}", field)
    return int(text)
