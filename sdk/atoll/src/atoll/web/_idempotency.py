"""`Idempotency-Key`: a request that is sent again has one effect and gets the same answer.

(subject, key, body hash, answer) is stored in the effect's own transaction for 24 hours. The same key with another body
is a 422; while the first request still runs, a 409 (see the middleware). Only answers are stored, not problems: what
was rolled back may be tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .._database import Transaction
from ._problems import Problem
from ._security import SUBJECT

HEADER = "Idempotency-Key"
KEY_LENGTH_MAX = 128
KEPT_SECONDS = 24 * 3600
_PURGED_MAX = 16
_SOON = {"Retry-After": "1"}
_UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Answer(msgspec.Struct, frozen=True):
    """What a request is answered with; kept beside its effect."""

    status: int
    body: object = None
    """Any JSON value or Struct; None is an empty body."""
    headers: Mapping[str, str] = {}

    def response(self) -> web.Response:
        """The aiohttp response."""
        body = self.body if isinstance(self.body, msgspec.Raw) else _encode(self.body)
        content_type = "application/json" if bytes(body) else "application/octet-stream"
        return web.Response(status=self.status, body=bytes(body), content_type=content_type, headers=self.headers)


def idempotent(tx: Transaction, request: web.Request, body_hash: str, effect: Callable[[], Answer]) -> Answer:
    """Runs `effect` in `tx`, unless the request's key has been answered before: then gives that answer again.

    Without an Idempotency-Key it just runs `effect`. `body_hash` is `await web.body_hash(request)`. Raises Problem 422
    for a key that was used with another body.
    """
    key = key_of(request)
    if key is None:
        return effect()
    subject = request.get(SUBJECT, "")
    body_hash = f"{request.method} {request.path} {body_hash}"  # the key on another route is another request
    stored = tx.one("SELECT * FROM atoll_idempotency WHERE subject = ? AND key = ?", subject, key)
    if stored is not None and stored["expires_at"] > time.time():
        if stored["body_hash"] != body_hash:
            raise Problem(422, "idempotency_key_reused", f"This {HEADER} was used for another request")
        headers = {**msgspec.json.decode(stored["headers"], type=dict[str, str]), "Idempotency-Replayed": "true"}
        return Answer(stored["status"], msgspec.Raw(stored["body"]), headers)
    answer = effect()
    _store(tx, subject, key, body_hash, answer)
    return answer


def key_of(request: web.Request) -> str | None:
    """The key, or None; raises Problem 400 for one that is empty or too long, and for two."""
    keys = request.headers.getall(HEADER, [])
    if len(keys) > 1:
        raise Problem(400, "idempotency_key", f"{HEADER}: expected one, found {len(keys)}")
    key = keys[0] if keys else None
    if key is not None and not 0 < len(key) <= KEY_LENGTH_MAX:
        raise Problem(400, "idempotency_key", f"{HEADER}: expected 1 to {KEY_LENGTH_MAX} characters")
    return key


def running_guard() -> Middleware:
    """A middleware: a second request with the key of one that still runs gets a 409."""
    running: set[tuple[str, str]] = set()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        key = key_of(request) if request.method in _UNSAFE else None
        if key is None:
            return await handler(request)
        entry = (request.get(SUBJECT, ""), key)
        if entry in running:
            raise Problem(409, "idempotency_key_running", f"A request with this {HEADER} still runs", headers=_SOON)
        running.add(entry)
        try:
            return await handler(request)
        finally:
            running.discard(entry)

    return guard


def _store(tx: Transaction, subject: str, key: str, body_hash: str, answer: Answer) -> None:
    now = int(time.time())
    tx.execute(
        "DELETE FROM atoll_idempotency WHERE (subject, key) IN"
        " (SELECT subject, key FROM atoll_idempotency WHERE expires_at <= ? LIMIT ?)",
        now,
        _PURGED_MAX,
    )
    tx.execute(
        "INSERT OR REPLACE INTO atoll_idempotency VALUES (?, ?, ?, ?, ?, ?, ?)",
        *(subject, key, body_hash, answer.status),
        msgspec.json.encode(dict(answer.headers)).decode(),
        _encode(answer.body),
        now + KEPT_SECONDS,
    )


def _encode(body: object) -> bytes:
    return b"" if body is None else msgspec.json.encode(body)
