"""What every handler of the operators' API needs of a request: who asks, the body, a page, a number."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web

import atoll
from atoll import web as atoll_web
from atoll_ops.control.audit import PAGE_MAX
from atoll_ops.control.desk import Desk
from atoll_ops.control.permissions import Asker

DESK = web.AppKey("desk", Desk)
PAGE_DEFAULT = 50
REASON_MAX = 500

S = TypeVar("S", bound=msgspec.Struct)
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_MAX, pattern=r"\S")]
Once = Callable[[atoll.Transaction, Callable[[], atoll_web.Answer]], atoll_web.Answer]


def asker(request: web.Request) -> Asker:
    """Who asks, as the way in has found out."""
    return Asker(request[atoll_web.SUBJECT], request[atoll_web.SCOPES])


async def read(request: web.Request, shape: type[S], act: str, target: str) -> S:
    """The body. One who may not act is told (and recorded as) that, rather than what is wrong with his words."""
    try:
        return await atoll_web.read_json(request, shape)
    except atoll_web.Problem:
        await request.app[DESK].check_may(asker(request), act, target, "")
        raise


async def once(request: web.Request) -> Once:
    """Answers this request once per Idempotency-Key. Without a body (DELETE) its address alone says what is asked."""
    body_hash = await atoll_web.body_hash(request) if request.body_exists else request.query_string
    return functools.partial(_once, request, body_hash)


def _once(
    request: web.Request, body_hash: str, tx: atoll.Transaction, effect: Callable[[], atoll_web.Answer]
) -> atoll_web.Answer:
    """The body's hash alone would let one key kill two instances, and be told that it killed the first one twice."""
    return atoll_web.idempotent(tx, request, f"{request.path} {body_hash}", effect)


def page(request: web.Request) -> tuple[int, int | None]:
    """`limit` and `cursor` of a list."""
    limit = number(request.query.get("limit", str(PAGE_DEFAULT)), "limit", most=PAGE_MAX)
    cursor = request.query.get("cursor")
    return limit, number(cursor, "cursor") if cursor is not None else None


def number(text: str, field: str, least: int = 1, most: int | None = None) -> int:
    """A number of a path or query, no greater than one on the wire. Raises Problem 422."""
    greatest = 2**53 - 1 if most is None else most
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= greatest):
        wanted = f"from {least}" if most is None else f"from {least} to {most}"
        raise atoll_web.Problem(422, "validation", f"Expected a number {wanted}, not {text[:40]!r}", field)
    return int(text)


def reason(request: web.Request) -> str:
    """`?reason=` of a request that has no body; bounded."""
    return request.query.get("reason", "")[:REASON_MAX]
