"""Signing in and out: our own small pages, outside Streamlit, for nothing of it runs before somebody is known."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

import anyio
from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from atoll_dashboard import markup
from atoll_dashboard.gateway import Refused, Trouble
from atoll_dashboard.sessions import Session
from atoll_dashboard.world import world

_PAGE = Path(__file__).with_name("login.html")
_FORM_SECONDS = 3600
_FIELD_CHARS_MAX, _NEXT_CHARS_MAX = 300, 2000
#: A form is small and comes at once; before a password was right nobody gets more of this process than that.
_BODY_BYTES_MAX, _BODY_SECONDS_MAX = 16_384, 10.0
#: Logins that wait for auth at the same time, in threads of their own: a hung auth must not stop the pages' files.
_AT_ONCE, _WAITING_MAX = 8, 32
_FORM_TYPE = "application/x-www-form-urlencoded"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
_NOBODY = "This account may not look at the fleet: it needs the role viewer, operator or admin."

T = TypeVar("T")


class Login:
    """The routes of signing in and out. `key` signs the form's token, which binds a form to its browser."""

    def __init__(self, key: bytes) -> None:
        self._forms = URLSafeTimedSerializer(key, salt="atoll-dashboard-form")
        self._threads: anyio.CapacityLimiter | None = None  # made in the event loop that uses it

    async def show(self, request: Request) -> Response:
        """`GET /login`."""
        wanted = local(request.query_params.get("next"))
        if _session(request) is not None:
            return RedirectResponse(wanted, 303)
        return self._form(request, wanted)

    async def enter(self, request: Request) -> Response:
        """`POST /login`."""
        form = await _read_form(request)
        wanted = local(form.get("next"))
        if not self._own(request, form.get("form", "")):
            return self._form(request, wanted, "This form had grown old. Try again.", 403)
        username, password = form.get("username", ""), form.get("password", "")
        if not username or not password or max(len(username), len(password)) > _FIELD_CHARS_MAX:
            words = f"Give your user name and your password, of at most {_FIELD_CHARS_MAX} characters."
            return self._form(request, wanted, words, 422, username[:_FIELD_CHARS_MAX])
        if self._limiter().statistics().tasks_waiting >= _WAITING_MAX:
            return self._form(request, wanted, "Too many people are signing in. Try again in a moment.", 503, username)
        return await self._sign_in(request, wanted, username, password)

    async def _sign_in(self, request: Request, wanted: str, username: str, password: str) -> Response:
        here = world()
        try:
            tokens = await self._in_thread(here.gateway.login, username, password)
        except Refused as refused:
            answer = self._form(request, wanted, _why(refused), refused.status, username)
            if refused.retry_after:
                answer.headers["Retry-After"] = refused.retry_after
            return answer
        except Trouble as trouble:
            words = f"{trouble.part} is gone: {trouble.text}. Nobody can sign in until it is back."
            return self._form(request, wanted, words, 503, username)
        session = here.sessions.create(tokens, username)
        if session.role == "nobody":
            here.sessions.end(session.id)
            await self._in_thread(here.gateway.revoke, tokens)
            return self._form(request, wanted, _NOBODY, 403, username)
        before = _session(request)
        if before is not None:  # nobody could end it any more: its cookie is overwritten
            here.sessions.end(before.id)
        answer = RedirectResponse(wanted, 303, {"Cache-Control": "no-store"})
        name, seconds = here.options.session_cookie, int(here.options.session_seconds)
        _set_cookie(answer, request, name, here.sessions.cookie(session), seconds)
        return answer

    async def ask_leave(self, request: Request) -> Response:
        """`GET /logout`: a link must not sign anybody out, so this only asks."""
        session = _session(request)
        if session is None:
            return RedirectResponse("/login", 303)
        body = (
            f"<p>You are signed in as <strong>{markup.text(session.username)}</strong> "
            f"({markup.text(session.role)}).</p>"
            f'<input type="hidden" name="form" value="{markup.text(session.csrf)}">'
            '<button type="submit">Sign out</button><p><a href="/">Back to the overview</a></p>'
        )
        return _page("Sign out", "/logout", body)

    async def leave(self, request: Request) -> Response:
        """`POST /logout`."""
        here = world()
        session = _session(request)
        if session is not None:
            form = await _read_form(request)
            if not secrets.compare_digest(form.get("form", "").encode(), session.csrf.encode()):
                return _page("Sign out", "/logout", '<p role="alert">This form is not of your session.</p>', 403)
            here.sessions.end(session.id)
            await self._in_thread(here.gateway.revoke, session.tokens)
        answer = RedirectResponse("/login", 303, {"Cache-Control": "no-store", "Clear-Site-Data": '"cache"'})
        answer.delete_cookie(here.options.session_cookie, path="/")
        return answer

    def _limiter(self) -> anyio.CapacityLimiter:
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(_AT_ONCE)
        return self._threads

    async def _in_thread(self, function: Callable[..., T], *given: object) -> T:
        return await anyio.to_thread.run_sync(partial(function, *given), limiter=self._limiter())

    # ---- the form ------------------------------------------------------------------------------------------------

    def _form(self, request: Request, wanted: str, alert: str = "", status: int = 200, username: str = "") -> Response:
        name = world().options.form_cookie
        known = request.cookies.get(name, "")  # one for all tabs: a second form must not end the first one's
        token = known if _TOKEN.fullmatch(known) else secrets.token_urlsafe(16)
        said = f'<p class="alert" role="alert">{markup.text(alert)}</p>' if alert else ""
        body = (
            f"{said}"
            f'<input type="hidden" name="next" value="{markup.text(wanted)}">'
            f'<input type="hidden" name="form" value="{markup.text(self._forms.dumps(token))}">'
            '<label for="username">User name</label>'
            f'<input id="username" name="username" type="text" autocomplete="username" '
            'autocapitalize="none" spellcheck="false" '
            f'required maxlength="64" value="{markup.text(username)}">'
            '<label for="password">Password</label>'
            '<input id="password" name="password" type="password" autocomplete="current-password" required '
            'maxlength="256">'
            '<button type="submit">Sign in</button>'
        )
        answer = _page("Sign in", "/login", body, status)
        _set_cookie(answer, request, name, token, _FORM_SECONDS)
        return answer

    def _own(self, request: Request, sent: str) -> bool:
        """Whether a form is one that we gave to this very browser, not long ago."""
        try:
            token = self._forms.loads(sent, max_age=_FORM_SECONDS)
        except BadSignature:
            return False
        kept = request.cookies.get(world().options.form_cookie, "")
        return secrets.compare_digest(str(token).encode(), kept.encode())


def local(wanted: str | None) -> str:
    """Where to go after signing in: a path of ours, or the overview. Nothing that a browser would take for a host."""
    if not wanted or len(wanted) > _NEXT_CHARS_MAX or not wanted.startswith("/") or wanted.startswith(("//", "/\\")):
        return "/"
    parts = urlsplit(wanted)
    if parts.scheme or parts.netloc or any(ord(character) < 0x21 or character == "\\" for character in wanted):
        return "/"
    return "/" if parts.path in ("/login", "/logout") else wanted


def _session(request: Request) -> Session | None:
    here = world()
    return here.sessions.of_cookie(request.cookies.get(here.options.session_cookie))


def _why(refused: Refused) -> str:
    if refused.status == 401:
        return "The user name or the password is wrong."
    return f"{refused.text}."


async def _read_form(request: Request) -> dict[str, str]:
    """The fields of an urlencoded form, the last of each name. Raises HTTPException 413 or 408."""
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS_MAX):
            async for piece in request.stream():
                body += piece
                if len(body) > _BODY_BYTES_MAX:
                    raise HTTPException(413, "This form is too large.")
    except TimeoutError:
        raise HTTPException(408, "This form came too slowly.") from None
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM_TYPE:
        return {}
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        return {}


def _set_cookie(answer: Response, request: Request, name: str, value: str, seconds: int) -> None:
    secure = f"https://{request.headers.get('host', '')}".lower() in world().options.origins
    answer.set_cookie(name, value, max_age=seconds, path="/", httponly=True, samesite="strict", secure=secure)


def _page(title: str, action: str, body: str, status: int = 200) -> Response:
    page = _PAGE.read_text().replace("{title}", title).replace("{action}", action).replace("{body}", body)
    return HTMLResponse(page, status, {"Cache-Control": "no-store"})
