"""The guard in front of everything: pages, files and WebSockets alike. Nothing of Streamlit runs before it.

In this order, and what is not allowed is refused:
1. Host must be a name that we are reached by; a page of somebody's DNS that points here (rebinding) has another.
2. Whatever changes something, and every WebSocket, must carry our own Origin. A missing one is a foreign one.
3. Without the cookie of a living session there is the login, and nothing else. It is looked at again while a
   WebSocket is open: who signs out, or is too long away, loses his pages too.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atoll_dashboard.sessions import COOKIE, Session, Sessions

OPEN = frozenset({"/live", "/ready", "/metrics"})
LOGIN = frozenset({"/login", "/logout"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOK_SECONDS = 1.0
_CLOSED_BY_GUARD = 4401
_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'{scripts}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def policy(index_html: bytes) -> str:
    """The content security policy: of inline scripts it allows those that Streamlit's own page has, by their hashes."""
    hashes = (base64.b64encode(hashlib.sha256(one).digest()).decode() for one in _INLINE.findall(index_html))
    return _POLICY.format(scripts="".join(f" 'sha256-{one}'" for one in hashes))


class Guard:
    """The middleware. `origins` are those by which people reach us beside loopback (a proxy's)."""

    def __init__(self, app: ASGIApp, *, sessions: Sessions, port: int, origins: tuple[str, ...], policy: str) -> None:
        self._app = app
        self._headers = [(b"content-security-policy", policy.encode()), *_HEADERS]
        self._sessions = sessions
        local = {f"http://{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self._origins = local | set(origins)
        self._hosts = {urlsplit(one).netloc for one in self._origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] not in ("http", "websocket"):
            return
        with_headers = self._with_headers(send, scope)
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(scope, receive, with_headers, *refusal)
            return
        path = scope["path"]
        if scope["type"] == "http" and path in OPEN | LOGIN:
            await self._app(scope, receive, with_headers)
            return
        session = self._sessions.of_cookie(_cookie(scope))
        if session is None:
            await self._turn_away(scope, receive, with_headers)
        elif scope["type"] == "websocket":
            await self._watch(session, scope, receive, send)
        else:
            await self._app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Why this is nobody whom a session could help; the health paths are asked by address, whatever it is."""
        if scope["path"] in OPEN and scope["type"] == "http" and scope["method"] in _SAFE:
            return None
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 421, "This is not the address of the dashboard. Set DASHBOARD_ORIGINS if it should be."
        if scope["type"] == "http" and scope["method"] in _SAFE:
            return None
        origins = headers.getlist("origin")
        if (
            len(origins) != 1
            or origins[0].lower() not in self._origins
            or urlsplit(origins[0].lower()).netloc != hosts[0].lower()
        ):
            return 403, "This came from another page than the dashboard's own."
        return None

    async def _turn_away(self, scope: Scope, receive: Receive, send: Send) -> None:
        """To the login where a person asks for a page; a plain no for everything else."""
        path: str = scope["path"]
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and _is_page(path):
            query = scope.get("query_string", b"").decode("latin-1")
            wanted = quote(path + (f"?{query}" if query else ""), safe="")
            await RedirectResponse(f"/login?next={wanted}", 303, {"Cache-Control": "no-store"})(scope, receive, send)
            return
        await _refuse(scope, receive, send, 403, "Sign in first.")

    async def _watch(self, session: Session, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket for as long as its session lives."""
        ended = asyncio.Event()

        async def look() -> None:
            while self._sessions.get(session.id, touch=False) is not None:  # noqa: ASYNC110 - ended by other threads
                await asyncio.sleep(_LOOK_SECONDS)
            ended.set()
            with contextlib.suppress(RuntimeError, OSError):
                await send({"type": "websocket.close", "code": _CLOSED_BY_GUARD, "reason": "signed out"})

        async def guarded() -> Message:
            if ended.is_set():
                return {"type": "websocket.disconnect", "code": _CLOSED_BY_GUARD}
            message = await receive()
            if message["type"] == "websocket.receive" and self._sessions.get(session.id) is None:
                return {"type": "websocket.disconnect", "code": _CLOSED_BY_GUARD}
            return message

        async def say(message: Message) -> None:
            if not ended.is_set():
                await send(message)

        looking = asyncio.create_task(look())
        try:
            await self._app(scope, guarded, say)
        finally:
            looking.cancel()

    def _with_headers(self, send: Send, scope: Scope) -> Send:
        """Our headers on every HTTP answer, in place of what the application may have said."""
        if scope["type"] != "http":
            return send
        ours = {name for name, _ in self._headers}

        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in ours]
                message = {**message, "headers": [*kept, *self._headers]}
            await send(message)

        return say


def _is_page(path: str) -> bool:
    return not path.startswith(("/_stcore", "/static", "/media", "/component")) and "." not in path.rsplit("/", 1)[-1]


def _cookie(scope: Scope) -> str | None:
    """The session's cookie. Two of them are somebody's trick: neither counts."""
    found: list[str] = []
    for header in Headers(scope=scope).getlist("cookie"):
        for piece in header.split(";"):
            if piece.strip().startswith(f"{COOKIE}="):
                try:
                    found.append(SimpleCookie(piece.strip())[COOKIE].value)
                except (CookieError, KeyError):
                    return None
    return found[0] if len(found) == 1 else None


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, words: str) -> None:
    if scope["type"] == "websocket":
        await receive()  # websocket.connect; a close before an accept is HTTP 403
        await send({"type": "websocket.close", "code": 1008, "reason": words[:100]})
        return
    await PlainTextResponse(words + "\n", status, {"Cache-Control": "no-store"})(scope, receive, send)
