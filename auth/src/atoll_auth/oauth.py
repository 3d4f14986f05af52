"""How OAuth 2.0 talks: forms in, client credentials, errors as RFC 6749, 5.2 wants them."""

import base64
import binascii
import functools
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from aiohttp import hdrs, web

from .authentication import ThrottledError, WrongCredentialsError
from .domain import SECRET_CHARS_MAX, ScopeError
from .issuer import GrantError
from .passwords import BusyError

CHALLENGE = 'Basic realm="atoll-auth", charset="UTF-8"'
_FIELDS_MAX = 20
_NAME_CHARS_MAX = 200

Handler = Callable[[web.Request], Awaitable[web.Response]]


class OAuthError(Exception):
    """Becomes `{"error": …, "error_description": …}`."""

    def __init__(self, error: str, description: str, status: int = 400, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status
        self.headers = headers or {}

    def response(self) -> web.Response:
        body = msgspec.json.encode({"error": self.error, "error_description": self.description})
        return web.Response(status=self.status, body=body, content_type="application/json", headers=self.headers)


class Credentials(NamedTuple):
    client_id: str
    client_secret: str


def endpoint(handler: Handler) -> Handler:
    """Decorates a handler whose errors have OAuth's shape."""

    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except Exception as error:
            known = _as_oauth(error)
            if known is None:
                raise
            return known.response()

    return answer


def _as_oauth(error: Exception) -> OAuthError | None:
    match error:
        case OAuthError():
            return error
        case WrongCredentialsError():
            return invalid_client("unknown client or wrong secret")
        case ThrottledError():
            return _unavailable(429, f"too many wrong attempts; {error}", error.wait_seconds)
        case BusyError():
            return _unavailable(503, "too many requests at once", 1)
        case GrantError():
            return OAuthError("invalid_grant", str(error))
        case ScopeError():
            return OAuthError("invalid_scope", str(error))
    return None


def invalid_client(description: str) -> OAuthError:
    return OAuthError("invalid_client", description, 401, {hdrs.WWW_AUTHENTICATE: CHALLENGE})


def _unavailable(status: int, description: str, wait_seconds: int) -> OAuthError:
    return OAuthError("temporarily_unavailable", description, status, {hdrs.RETRY_AFTER: str(wait_seconds)})


async def read_form(request: web.Request) -> dict[str, str]:
    """The parameters, each at most once; one without a value counts as left out (RFC 6749, 3.2). Raises OAuthError."""
    if request.content_type != "application/x-www-form-urlencoded" or hdrs.CONTENT_ENCODING in request.headers:
        raise OAuthError("invalid_request", "expected Content-Type: application/x-www-form-urlencoded, not compressed")
    body = await request.read()
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS_MAX)
    except ValueError:  # not UTF-8, or too many
        raise OAuthError("invalid_request", "the form cannot be read") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise OAuthError("invalid_request", "a parameter is there twice")
    return {name: value for name, value in form.items() if value}


def required(form: dict[str, str], name: str) -> str:
    """A parameter that must be there. Raises OAuthError naming it."""
    value = form.get(name)
    if value is None:
        raise OAuthError("invalid_request", f"{name} is missing")
    return value


def credentials(request: web.Request, form: dict[str, str]) -> Credentials | None:
    """The client's, from the header or the form but not both; None if there are none. Raises OAuthError."""
    header = request.headers.get(hdrs.AUTHORIZATION)
    in_form = "client_id" in form or "client_secret" in form
    if header is not None and "client_secret" in form:
        raise OAuthError("invalid_request", "client credentials in the header and in the form")
    if header is not None:
        found = _basic(header)
        if form.get("client_id", found.client_id) != found.client_id:
            raise OAuthError("invalid_request", "client_id in the form is not the one in the header")
        return _bounded(found)
    if in_form:
        return _bounded(Credentials(form.get("client_id", ""), form.get("client_secret", "")))
    return None


def _basic(header: str) -> Credentials:
    scheme, _, encoded = header.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError(scheme)
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        if not colon:
            raise ValueError("no colon")
        # Both are form-encoded inside (RFC 6749, 2.3.1), which most people's secrets do not notice.
        return Credentials(unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict"))
    except (ValueError, binascii.Error):
        raise invalid_client("expected Authorization: Basic with client_id and client_secret") from None


def _bounded(found: Credentials) -> Credentials:
    if not 1 <= len(found.client_id) <= _NAME_CHARS_MAX or not 1 <= len(found.client_secret) <= SECRET_CHARS_MAX:
        raise invalid_client("unknown client or wrong secret")
    return found
