"""The guard in front of everything: pages, files and WebSockets alike. Nothing of Streamlit runs before it.

In this order, and what is not allowed is refused:
1. Host must be a name that we are reached by; a page of somebody's DNS that points here (rebinding) has another.
2. Whatever changes something, and every WebSocket, must carry our own Origin. A missing one is a foreign one. What
   only reads needs none, but may not carry another's: a script of another page asks so.
3. Without the cookie of a living session there is the login, and nothing else. It is looked at again while a
   WebSocket is open: who signs out, or is too long away, loses his pages too. What the guard took for the cookie is
   the only one that is passed on: nobody behind it may read another out of the same header.
4. Of what Streamlit serves, only what our pages use: no uploads, no components, none of its metrics.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atoll_dashboard.sessions import Session, Sessions

OPEN = frozenset({"/live", "/ready", "/metrics"})
LOGIN = frozenset({"/login", "/logout"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: Streamlit's own, as far as its pages need them.
_STREAMLIT = frozenset({"/_stcore/stream", "/_stcore/health", "/_stcore/host-config"})
_STREAMLIT_CLOSED = ("/_stcore", "/component", "/auth", "/oauth2callback", "/app/static")
_KEPT_BY_BROWSERS = ("/static/", "/atoll/")  # nothing of anybody's is in these
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
_VALUE = re.compile(r"[A-Za-z0-9_.-]{1,500}")
_INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def policy(index_html: bytes) -> str:
    """The content security policy: of inline scripts it allows those that Streamlit's own page has, by their hashes."""
    hashes = (base64.b64encode(hashlib.sha256(one).digest()).decode() for one in _INLINE.findall(index_html))
    return _POLICY.format(scripts="".join(f" 'sha256-{one}'" for one in hashes))


class Guard:
    """The middleware. `cookie` names the session's; by `origins` people reach us beside loopback (a proxy's)."""

    def __init__(
        self, app: ASGIApp, *, sessions: Sessions, cookie: str, port: int, origins: tuple[str, ...], policy: str
    ) -> None:
        self._app = app
        self._cookie = cookie
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
        scope, cookie = _one_cookie(scope, self._cookie)
        if scope["type"] == "http" and path in OPEN | LOGIN:
            await self._app(scope, receive, with_headers)
            return
        session = self._sessions.of_cookie(cookie)
        if session is None:
            await self._turn_away(scope, receive, with_headers)
        elif scope["type"] == "http" and scope["method"] not in _SAFE:
            await _refuse(scope, receive, with_headers, 405, "Nothing is changed here: acts go to the ops API.")
        elif path not in _STREAMLIT and _below(path, _STREAMLIT_CLOSED):
            await _refuse(scope, receive, with_headers, 404, "There is nothing here.")
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
        origins = headers.getlist("origin")
        if scope["type"] == "http" and scope["method"] in _SAFE and not origins:
            return None
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
        added = list(self._headers)
        if not scope["path"].startswith(_KEPT_BY_BROWSERS):
            added.append((b"cache-control", b"no-store"))
        ours = {name for name, _ in added}

        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in ours]
                message = {**message, "headers": [*kept, *added]}
            await send(message)

        return say


def _is_page(path: str) -> bool:
    return not path.startswith(("/_stcore", "/static", "/media", "/component")) and "." not in path.rsplit("/", 1)[-1]


def _below(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)


def _one_cookie(scope: Scope, ours: str) -> tuple[Scope, str | None]:
    """The session's cookie, and the scope with no other. Two of them are somebody's trick: neither counts.

    Parsers differ on spaces, on quotes and on which of two comes first. So what is not the one that was judged here
    is taken out, and the rest is passed on as it came.
    """
    found: list[str] = []
    others: list[str] = []
    for header in Headers(scope=scope).getlist("cookie"):
        for piece in header.split(";"):
            name, _, value = piece.partition("=")
            if name.strip() == ours:
                found.append(value.strip())
            elif piece.strip():
                others.append(piece.strip())
    cookie = found[0] if len(found) == 1 and _VALUE.fullmatch(found[0]) else None
    kept = [*others, f"{ours}={cookie}"] if cookie is not None else others
    headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"cookie"]
    if kept:
        headers.append((b"cookie", "; ".join(kept).encode("latin-1")))
    return {**scope, "headers": headers}, cookie


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, words: str) -> None:
    if scope["type"] == "websocket":
        await receive()  # websocket.connect; a close before an accept is HTTP 403
        await send({"type": "websocket.close", "code": 1008, "reason": words[:100]})
        return
    await PlainTextResponse(words + "\n", status, {"Cache-Control": "no-store"})(scope, receive, send)
