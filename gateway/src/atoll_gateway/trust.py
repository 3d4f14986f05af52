"""Who may do what: the key set, the revocations, and the decision about one request.

Fails closed, and apart: no key set yet is 503 `waiting for: keys` (nobody's token is bad, the gateway is not ready);
silence from auth refuses `ops:*` only, since those scopes act on the whole system and a revoked operator could not be
stopped; with everything else the shop goes on by the keys it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from aiohttp import hdrs
from multidict import CIMultiDictProxy

from atoll_token import (
    Claims,
    KeySet,
    PublicKey,
    RevocationList,
    TokenError,
    VerifiedCache,
    Verifier,
    open_key_set,
    scope_allows,
)

from .problems import Problem
from .routing import Route
from .storage import Shelf

ISSUER = "atoll-auth"
AUDIENCE = "atoll"
_KEYS = "keys.token"
_REVOCATIONS = "revocations.json"
_SCHEME = "bearer"
_log = structlog.get_logger(__name__)


class KeyRing:
    """The newest key set with a good root signature. Its version never falls, across restarts too."""

    def __init__(self, shelf: Shelf, root: PublicKey) -> None:
        self._shelf = shelf
        self._root = root
        self._set: KeySet | None = None

    @property
    def known(self) -> bool:
        return self._set is not None

    @property
    def version(self) -> int:
        """0 before the first set."""
        return 0 if self._set is None else self._set.version

    def get(self, kid: str) -> PublicKey | None:
        """The key of a kid, for a Verifier."""
        return None if self._set is None else self._set.keys.get(kid)

    def restore(self) -> None:
        """Takes up the stored set, which is verified like any other: the disk is not the root."""
        content = self._shelf.load(_KEYS)
        if content is None:
            return
        try:
            self._set = open_key_set(content.decode("ascii"), self._root)
        except (TokenError, UnicodeDecodeError) as error:
            self._shelf.set_aside(_KEYS, str(error))

    def update(self, value: Any, settled: bool) -> None:  # noqa: ARG002 - a signed document needs no settling
        """A document from the broker. A bad or older one changes nothing: the broker only relays it."""
        if not value:
            return
        try:
            if not isinstance(value, str):
                raise TokenError("malformed", "expected the signed document as a string")
            self._set = open_key_set(value, self._root, self.version)
        except TokenError as error:
            _log.error("a key set was refused", code=error.code, why=error.text, version=self.version)
            return
        self._shelf.keep(_KEYS, value.encode("ascii"))


class Revoked:
    """The revocations and auth's heartbeat. The list is stored too, or a restart would forgive the revoked."""

    def __init__(self, shelf: Shelf, silent_seconds_max: float, clock: Callable[[], float]) -> None:
        self._shelf = shelf
        self._silent_seconds_max = silent_seconds_max
        self._list = RevocationList(clock)
        self._stored: tuple[Any, Any] | None = None
        self.on_change: Callable[[], None] = lambda: None

    @property
    def silent(self) -> bool:
        """Whether auth has not been heard for so long that a revocation could be missing."""
        return self._list.silent_seconds() > self._silent_seconds_max

    def covers(self, claims: Claims) -> bool:
        return self._list.is_revoked(claims)

    def restore(self) -> None:
        """Takes up the stored list. Neither that nor the first value from the broker, however old, is a heartbeat."""
        content = self._shelf.load(_REVOCATIONS)
        if content is None:
            return
        try:
            self._list.restore(msgspec.json.decode(content))
        except ValueError as error:
            self._shelf.set_aside(_REVOCATIONS, str(error))

    def update(self, value: Any, settled: bool) -> None:
        """A list from the broker; unsettled means that auth has not spoken since the broker started: keep ours."""
        if not settled or not value:
            return
        try:
            self._list.update(value)
        except ValueError as error:
            _log.error("revocations that make no sense were ignored", why=str(error))
            return
        content = (value.get("tokens"), value.get("subjects"))
        if content != self._stored:  # not for each beat: an fsync a second would be for nothing
            self._stored = content
            self._shelf.keep(_REVOCATIONS, msgspec.json.encode(value))
            self.on_change()


class Door:
    """Decides about one request. Raises Problem 400, 401, 403 or 503; counts refusals by code."""

    def __init__(
        self, keys: KeyRing, revoked: Revoked, wall_clock: Callable[[], float], refused: Callable[[str], None]
    ) -> None:
        self._keys = keys
        self._revoked = revoked
        self._refused = refused
        self._verifier = VerifiedCache(
            Verifier(keys.get, issuer=ISSUER, audience=AUDIENCE, typ="access", clock=wall_clock)
        )

    def admit(self, headers: CIMultiDictProxy[str], route: Route) -> Claims | None:
        """The claims of whoever may use the route; None on a public one, whatever credentials came along."""
        values = headers.getall(hdrs.AUTHORIZATION, [])
        if len(values) > 1:  # frameworks disagree on which of them counts
            raise self._count(Problem(400, "repeated_authorization", "more than one Authorization header"))
        if route.public:
            return None
        if not self._keys.known:
            raise self._count(waiting("keys"))
        claims = self._verify(_bearer(values[0]) if values else None)
        self._check_scopes(claims, route)
        return claims

    def _verify(self, token: str | None) -> Claims:
        if token is None:
            raise self._count(_unauthorized("missing_token", "expected one header `Authorization: Bearer <token>`"))
        try:
            claims = self._verifier.verify(token)
        except TokenError as error:
            raise self._count(_unauthorized(error.code, error.text, error="invalid_token")) from None
        if self._revoked.covers(claims):
            raise self._count(_unauthorized("revoked", "the token has been revoked", error="invalid_token"))
        return claims

    def _check_scopes(self, claims: Claims, route: Route) -> None:
        missing = sorted(scope for scope in route.scopes if not scope_allows(claims.scope, scope))
        if missing:
            raise self._count(_forbidden(" ".join(missing)))
        if self._revoked.silent and any(scope.startswith("ops:") for scope in route.scopes):
            raise self._count(waiting("revocations"))

    def _count(self, problem: Problem) -> Problem:
        self._refused(problem.code)
        return problem


def waiting(what: str) -> Problem:
    """The gateway itself lacks something that is on its way."""
    return Problem(503, "waiting", f"waiting for: {what}", headers={"Retry-After": "1"})


def _bearer(value: str) -> str | None:
    """The token of an Authorization value, or None for another scheme."""
    scheme, _, token = value.partition(" ")
    return token.strip(" ") if scheme.lower() == _SCHEME else None


def _unauthorized(code: str, detail: str, *, error: str | None = None) -> Problem:
    """401 as RFC 6750 wants it: a request without any token gets the bare challenge."""
    challenge = 'Bearer realm="atoll"' + (f', error="{error}", error_description="{code}"' if error else "")
    return Problem(401, code, detail, headers={hdrs.WWW_AUTHENTICATE: challenge})


def _forbidden(scope: str) -> Problem:
    challenge = f'Bearer realm="atoll", error="insufficient_scope", scope="{scope}"'
    detail = f"the token lacks the scope {scope}"
    return Problem(403, "insufficient_scope", detail, headers={hdrs.WWW_AUTHENTICATE: challenge})
