"""Signing in and out: our own small pages, outside Streamlit, for nothing of it runs before somebody is known."""

from __future__ import annotations

import secrets
from pathlib import Path
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from atoll_dashboard import markup
from atoll_dashboard.gateway import Refused, Trouble
from atoll_dashboard.sessions import COOKIE
from atoll_dashboard.world import World, world

_PAGE = Path(__file__).with_name("login.html")
_FORM_COOKIE = "atoll_dashboard_form"
_FORM_SECONDS = 3600
_FIELD_CHARS_MAX = 300
_NOBODY = "This account may not look at the fleet: it needs the role viewer, operator or admin."


class Login:
    """The routes of signing in and out. `key` signs the form's token, which binds a form to its browser."""

    def __init__(self, key: bytes) -> None:
        self._forms = URLSafeTimedSerializer(key, salt="atoll-dashboard-form")

    async def show(self, request: Request) -> Response:
        """`GET /login`."""
        wanted = local(request.query_params.get("next"))
        if world().sessions.of_cookie(request.cookies.get(COOKIE)) is not None:
            return RedirectResponse(wanted, 303)
        return self._form(request, wanted)

    async def enter(self, request: Request) -> Response:
        """`POST /login`."""
        form = await request.form(max_files=0, max_fields=10)
        wanted = local(_field(form.get("next")))
        if not self._own(request, _field(form.get("form"))):
            return self._form(request, wanted, "This form had grown old. Try again.", 403)
        username, password = _field(form.get("username")), _field(form.get("password"))
        if not username or not password:
            return self._form(request, wanted, "Give your user name and your password.", 422, username)
        here = world()
        try:
            tokens = await run_in_threadpool(here.gateway.login, username, password)
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
            return self._form(request, wanted, _NOBODY, 403, username)
        answer = RedirectResponse(wanted, 303, {"Cache-Control": "no-store"})
        _set_cookie(answer, request, COOKIE, here.sessions.cookie(session), int(here.options.session_seconds))
        return answer

    async def ask_leave(self, request: Request) -> Response:
        """`GET /logout`: a link must not sign anybody out, so this only asks."""
        session = world().sessions.of_cookie(request.cookies.get(COOKIE))
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
        session = here.sessions.of_cookie(request.cookies.get(COOKIE))
        if session is not None:
            form = await request.form(max_files=0, max_fields=5)
            if not secrets.compare_digest(_field(form.get("form")).encode(), session.csrf.encode()):
                return _page("Sign out", "/logout", '<p role="alert">This form is not of your session.</p>', 403)
            here.sessions.end(session.id)
            await run_in_threadpool(here.gateway.revoke, session.tokens)
        answer = RedirectResponse("/login", 303, {"Cache-Control": "no-store", "Clear-Site-Data": '"cache"'})
        answer.delete_cookie(COOKIE, path="/")
        return answer

    # ---- the form ------------------------------------------------------------------------------------------------

    def _form(self, request: Request, wanted: str, alert: str = "", status: int = 200, username: str = "") -> Response:
        token = secrets.token_urlsafe(16)
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
        _set_cookie(answer, request, _FORM_COOKIE, token, _FORM_SECONDS)
        return answer

    def _own(self, request: Request, sent: str) -> bool:
        """Whether a form is one that we gave to this very browser, not long ago."""
        try:
            token = self._forms.loads(sent, max_age=_FORM_SECONDS)
        except BadSignature:
            return False
        return secrets.compare_digest(str(token).encode(), request.cookies.get(_FORM_COOKIE, "").encode())


def local(wanted: str | None) -> str:
    """Where to go after signing in: a path of ours, or the overview. Nothing that a browser would take for a host."""
    if not wanted or len(wanted) > 2000 or not wanted.startswith("/") or wanted.startswith(("//", "/\\")):
        return "/"
    parts = urlsplit(wanted)
    if parts.scheme or parts.netloc or any(ord(character) < 0x21 or character == "\\" for character in wanted):
        return "/"
    return "/" if parts.path in ("/login", "/logout") else wanted


def _why(refused: Refused) -> str:
    if refused.status == 401:
        return "The user name or the password is wrong."
    return f"{refused.text}."


def _field(value: object) -> str:
    return value[:_FIELD_CHARS_MAX] if isinstance(value, str) else ""


def _set_cookie(answer: Response, request: Request, name: str, value: str, seconds: int) -> None:
    secure = f"https://{request.headers.get('host', '')}".lower() in _origins(world())
    answer.set_cookie(name, value, max_age=seconds, path="/", httponly=True, samesite="strict", secure=secure)


def _origins(here: World) -> tuple[str, ...]:
    return here.options.origins


def _page(title: str, action: str, body: str, status: int = 200) -> Response:
    page = _PAGE.read_text().replace("{title}", title).replace("{action}", action).replace("{body}", body)
    return HTMLResponse(page, status, {"Cache-Control": "no-store"})
