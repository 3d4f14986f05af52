"""HTTP in, about the bus: topics, groups, dead letters, replays, one event's story, taps, faults."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

import atoll
from atoll import web as atoll_web
from atoll_ops.control.busdesk import SEQ_MAX, BusDesk, Sight
from atoll_ops.control.requests import Reason, asker, number, once, page, read, reason

BUS = web.AppKey("bus", BusDesk)
CLOSING = web.AppKey("closing", asyncio.Event)
routes = web.RouteTableDef()

_QUIET_SECONDS = 5.0  # a stream says at least this often that it is there, or whoever is between ends it
_PATTERNS_MAX = 64
_TOPIC_MAX = 200
_NAME_MAX = 64
_SEGMENT = r"[a-z][a-z0-9_-]{0,39}"
_PATTERN = re.compile(rf"{_SEGMENT}(\.{_SEGMENT}){{1,6}}\.v[1-9][0-9]{{0,2}}|({_SEGMENT}\.){{0,7}}\*")
Seq = Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Subject = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Letters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a replay of dead letters; which: of a subject, one by its seq, a range, or else all."""

    group: Name
    reason: Reason
    subject: Subject | None = None
    seq: Seq | None = None
    first: Seq | None = None
    last: Seq | None = None
    dry_run: bool = False

    def choice(self) -> dict[str, Any]:
        """The choice in the broker's words. Raises Problem 422 for two at once."""
        if self.seq is not None and (self.first is not None or self.last is not None):
            raise atoll_web.Problem(422, "validation", "Expected seq, or first and last, not both", "seq")
        names = ("subject", "seq", "first", "last")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a replay of what a group has handled."""

    group: Name
    first: Seq
    last: Seq
    reason: Reason
    subject: Subject | None = None
    dry_run: bool = False


class Publication(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of an event that an operator publishes. Without a subject it is a key of its own."""

    topic: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    data: msgspec.Raw
    reason: Reason
    subject: Subject | None = None


class FaultWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a fault."""

    group: Name
    kind: Literal["delay", "drop", "duplicate", "error"]
    seconds: Annotated[float, msgspec.Meta(gt=0, le=900)]
    reason: Reason
    topic: str | None = None
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    delay_ms: Annotated[int, msgspec.Meta(ge=1, le=600_000)] = 1000

    def fault(self) -> dict[str, Any]:
        """The same without the reason: what the broker takes."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if name != "reason"}


class Because(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of an act that needs nothing but a reason."""

    reason: Reason


# ---- seeing ------------------------------------------------------------------------------------------------------


@routes.get("/ops/groups")
@atoll_web.requires("ops:read")
async def groups(request: web.Request) -> web.Response:
    """Consumer groups."""
    return await _asked(request, "groups")


@routes.get("/ops/topics")
@atoll_web.requires("ops:read")
async def topics(request: web.Request) -> web.Response:
    """Topics."""
    return await _asked(request, "topics")


@routes.get("/ops/contracts")
@atoll_web.requires("ops:read")
async def contracts(request: web.Request) -> web.Response:
    """What the live sessions announce."""
    return await _asked(request, "contracts")


async def _asked(request: web.Request, verb: str) -> web.Response:
    answer = await request.app[BUS].admin(verb)
    return web.json_response({"as_of": time.time(), verb: answer[verb]})


@routes.get("/ops/dlq")
@atoll_web.requires("ops:read")
async def dead_letters(request: web.Request) -> web.Response:
    """Dead letters of a group, oldest first; of one subject where the query names it."""
    group = _word(request, "group", _NAME_MAX)
    if group is None:
        raise atoll_web.Problem(422, "validation", "Expected ?group=NAME", "group")
    limit, cursor = page(request)
    arguments: dict[str, Any] = {"group": group, "limit": limit}
    arguments |= {"after": cursor} if cursor is not None else {}
    arguments |= {"subject": subject} if (subject := _word(request, "subject", 256)) else {}
    answer = await request.app[BUS].admin("dlq.list", **arguments)
    letters = answer["letters"]
    return web.json_response({"items": letters, "next": str(letters[-1]["seq"]) if answer.get("more") else None})


def _word(request: web.Request, name: str, longest: int) -> str | None:
    """A word of the query, or None. Bounded as the wire has it, for what is longer ends the session there."""
    word = request.query.get(name) or None
    if word is not None and len(word) > longest:
        raise atoll_web.Problem(422, "validation", f"Expected at most {longest} characters", name)
    return word


@routes.get("/ops/replays")
@atoll_web.requires("ops:read")
async def replays(request: web.Request) -> web.Response:
    """The last replays and how far they are; one, where the query names its id."""
    answer = await request.app[BUS].admin("replays", id=_word(request, "id", _NAME_MAX))
    return web.json_response({"replays": answer["replays"]})


@routes.get("/ops/why/{event_id}")
@atoll_web.requires("ops:read")
async def why(request: web.Request) -> web.Response:
    """One event's story."""
    event_id = request.match_info["event_id"]
    if not 1 <= len(event_id) <= 128:
        raise atoll_web.Problem(422, "validation", "Expected an event's id, of at most 128 characters", "event_id")
    return web.json_response(await request.app[BUS].why(event_id))


@routes.get("/ops/faults")
@atoll_web.requires("ops:read")
async def faults(request: web.Request) -> web.Response:
    """Faults that are active on the bus."""
    answer = await request.app[BUS].admin("fault.list")
    return web.json_response({"faults": answer["faults"]})


@routes.get("/ops/events")
@atoll_web.requires("ops:read")  # as for acts, the desk checks whether, and records it
async def events(request: web.Request) -> web.StreamResponse:
    """A tap: events as they are committed, as server-sent events."""
    query = request.query
    patterns = _patterns(query.get("topics", ""))
    after = number(query["after"], "after", 0) if "after" in query else None
    subject = _word(request, "subject", 256)
    async with request.app[BUS].tap(asker(request), patterns, after, subject, reason(request)) as sight:
        return await _stream(request, sight)


def _patterns(given: str) -> list[str]:
    """Topics to look at. Checked here: the broker ends the session of a client that sends what is none."""
    patterns = [one for one in given.split(",") if one]
    if not 1 <= len(patterns) <= _PATTERNS_MAX:
        text = f"Expected ?topics=PATTERN,… with 1 to {_PATTERNS_MAX} of them"
        raise atoll_web.Problem(422, "validation", text, "topics")
    for one in patterns:
        if not _PATTERN.fullmatch(one) or len(one) > _TOPIC_MAX:
            text = f"Expected a topic, as orders.order.placed.v1, or a pattern, as orders.*; not {one[:60]!r}"
            raise atoll_web.Problem(422, "validation", text, "topics")
    return patterns


async def _stream(request: web.Request, sight: Sight) -> web.StreamResponse:
    """Until the reader goes, the broker says no, or control stops."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    closing = asyncio.ensure_future(request.app[CLOSING].wait())
    coming = asyncio.ensure_future(sight.next())
    try:
        await response.prepare(request)
        while not closing.done():
            await asyncio.wait([coming, closing], timeout=_QUIET_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                await response.write(_said(coming.result()))
                coming = asyncio.ensure_future(sight.next())
            else:
                await response.write(b": still here\n\n")
    except ConnectionError:
        pass  # the reader has had enough
    except atoll.BusRefusedError as error:
        await response.write(b"event: refused\ndata: " + json.dumps({"text": str(error)}).encode() + b"\n\n")
    finally:
        for task in (coming, closing):
            task.cancel()
        await asyncio.wait([coming, closing])
    return response


def _said(one: atoll.Tapped | atoll.Missed) -> bytes:
    if isinstance(one, atoll.Missed):
        return b"event: missed\ndata: " + json.dumps({"events": one.events, "why": one.why}).encode() + b"\n\n"
    # As it was published, but for line breaks: JSON has them between tokens only, where a space means the same.
    event = one.event.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"id: %d\nevent: event\ndata: %b\n\n" % (one.seq, event)


# ---- doing: that the asker may is checked by the desk, which records an attempt ----------------------------------


@routes.post("/ops/dlq/replay")
@atoll_web.requires("ops:read")
async def replay_letters(request: web.Request) -> web.StreamResponse:
    """Deliver dead letters again."""
    body = await read(request, Letters, "dlq.replay", "dead letters")
    bus, who, answered_once = request.app[BUS], asker(request), await once(request)
    choice = body.choice()
    answer = await bus.replay_letters(who, body.group, choice, body.reason, answered_once, dry_run=body.dry_run)
    return answer.response()


@routes.post("/ops/replay")
@atoll_web.requires("ops:read")
async def replay(request: web.Request) -> web.StreamResponse:
    """Deliver again what a group has handled."""
    body = await read(request, Range, "replay", "events")
    choice = {"first": body.first, "last": body.last} | ({"subject": body.subject} if body.subject else {})
    bus, who, answered_once = request.app[BUS], asker(request), await once(request)
    answer = await bus.replay(who, body.group, choice, body.reason, answered_once, dry_run=body.dry_run)
    return answer.response()


@routes.post("/ops/groups/{group}/detach")
@atoll_web.requires("ops:read")
async def detach(request: web.Request) -> web.StreamResponse:
    """Let a group's floor go."""
    group = request.match_info["group"][:_NAME_MAX]
    body = await read(request, Because, "group.detach", group)
    return (await request.app[BUS].detach(asker(request), group, body.reason, await once(request))).response()


@routes.post("/ops/publish")
@atoll_web.requires("ops:read")
async def publish(request: web.Request) -> web.StreamResponse:
    """Publish an event in the operator's name."""
    body = await read(request, Publication, "publish", "an event")
    bus, answered_once = request.app[BUS], await once(request)
    key = request.headers.get("Idempotency-Key")
    answer = await bus.publish(asker(request), body.topic, body.subject, body.data, key, body.reason, answered_once)
    return answer.response()


@routes.post("/ops/faults")
@atoll_web.requires("ops:read")
async def put_fault(request: web.Request) -> web.StreamResponse:
    """Put a fault on a group's deliveries, for a time."""
    body = await read(request, FaultWanted, "fault.put", "a fault")
    return (await request.app[BUS].put_fault(asker(request), body.fault(), body.reason, await once(request))).response()


@routes.delete("/ops/faults")
@atoll_web.requires("ops:read")
async def stop_faults(request: web.Request) -> web.StreamResponse:
    """End every fault."""
    return await _stop(request, None)


@routes.delete("/ops/faults/{id}")
@atoll_web.requires("ops:read")
async def stop_fault(request: web.Request) -> web.StreamResponse:
    """End one fault."""
    return await _stop(request, request.match_info["id"][:_NAME_MAX])


async def _stop(request: web.Request, fault_id: str | None) -> web.StreamResponse:
    bus = request.app[BUS]
    return (await bus.stop_faults(asker(request), fault_id, reason(request), await once(request))).response()
