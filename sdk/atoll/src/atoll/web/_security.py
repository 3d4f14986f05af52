"""Who may call: only the gateway, and only for a subject that holds the route's scope. Fails closed.

Every request but those for health carries `Atoll-Assertion`, signed by the gateway for this service and valid for
seconds; a sibling cannot make one. The scope is checked here as well as in the gateway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from atoll_token import PublicKey, TokenError, VerifiedCache, Verifier, scope_allows

from .._errors import ConfigurationError
from .._options import Options
from ._problems import Problem

H = TypeVar("H")
HEADER = "Atoll-Assertion"
ISSUER = "atoll-gateway"
_MARK = "__atoll_scope__"
PUBLIC = "public"


class Scopes(frozenset[str]):
    """The caller's scopes. `in` knows patterns: with `orders:*` held, `"orders:read:all" in scopes` is true."""

    def __contains__(self, scope: object) -> bool:
        return isinstance(scope, str) and scope_allows(self, scope)


SUBJECT = web.RequestKey("atoll_subject", str)
SCOPES: web.RequestKey[frozenset[str]] = web.RequestKey("atoll_scopes", frozenset)


def requires(scope: str) -> Callable[[H], H]:
    """Decorates a route's handler: the caller must hold `scope`, such as `orders:write`."""
    if not scope_allows({scope}, scope):
        raise ValueError(f"not a scope: {scope!r}")

    def mark(handler: H) -> H:
        setattr(getattr(handler, "__func__", handler), _MARK, scope)
        return handler

    return mark


def public(handler: H) -> H:
    """Decorates a route's handler: anybody may call it, without a token. The broker's grant must say `public`."""
    setattr(getattr(handler, "__func__", handler), _MARK, PUBLIC)
    return handler


def scope_of(handler: object) -> str | None:
    """The scope that the handler was marked with, `PUBLIC`, or None if it was marked with neither."""
    return getattr(handler, _MARK, None)


class Gatekeeper:
    """Verifies assertions with the gateway's public key."""

    def __init__(self, options: Options) -> None:
        path = options.keys / "gateway.pub"
        try:
            key = PublicKey.from_pem(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"ATOLL_KEYS: expected the gateway's public key in gateway.pub: {error}") from None
        keys = {key.kid: key}
        self._verifier = VerifiedCache(Verifier(keys.get, issuer=ISSUER, audience=options.name, typ="assertion"))

    def admit(self, request: web.Request) -> None:
        """Sets SUBJECT and SCOPES. Raises Problem 401."""
        assertions = request.headers.getall(HEADER, [])
        if len(assertions) != 1:
            raise _unauthorized("assertion_missing", f"Expected one {HEADER}, made by the gateway")
        try:
            claims = self._verifier.verify(assertions[0])
        except TokenError as error:
            raise _unauthorized(error.code, f"{HEADER}: {error.text}") from None
        request[SUBJECT] = claims.sub
        request[SCOPES] = Scopes(claims.scope.split())


def security(get_gatekeeper: Callable[[], Gatekeeper | None]) -> Middleware:
    """The middleware. There is no gatekeeper in a part none of whose routes wants a scope (auth)."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        scope = scope_of(request.match_info.handler)
        gatekeeper = get_gatekeeper()
        if scope == PUBLIC or (gatekeeper is None and request.match_info.http_exception is not None):
            return await handler(request)
        if gatekeeper is None:
            raise Problem(503, "starting", "The service is not ready to check who calls")
        gatekeeper.admit(request)
        if request.match_info.http_exception is None and (scope is None or scope not in request[SCOPES]):
            raise Problem(403, "insufficient_scope", f"This needs the scope {scope}")
        return await handler(request)

    return check


def _unauthorized(code: str, detail: str) -> Problem:
    return Problem(401, code, detail, headers={"WWW-Authenticate": f'{HEADER} error="{code}"'})
