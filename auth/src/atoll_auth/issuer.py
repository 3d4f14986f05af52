"""Makes, renews, ends and explains tokens.

An access token is checked by whoever receives it; a refresh token by auth alone, which keeps a row for each. One login
is a *family*: a chain of refresh tokens of which only the newest is good. Showing an older one ends the family.
"""

import secrets
from collections.abc import Callable
from typing import Any, Literal

import atoll
from atoll_token import Claims, TokenError, Verifier, mint

from . import domain, store
from .keyring import KeyRing
from .messages import TokenResponse
from .settings import Settings
from .store import Account, Family, Writer

ISSUER = "atoll-auth"
ACCESS_AUDIENCE = "atoll"
REFRESH_AUDIENCE = ISSUER


class GrantError(Exception):
    """The login or refresh token is not, or no longer, good for tokens: log in again. The text is for the client."""


class Issuer:
    def __init__(self, database: atoll.Database, ring: KeyRing, settings: Settings, clock: Callable[[], float]) -> None:
        self._database = database
        self._ring = ring
        self._settings = settings
        self._clock = clock
        self._access = self._verifier("access", ACCESS_AUDIENCE)
        self._refresh = self._verifier("refresh", REFRESH_AUDIENCE)

    def for_client(self, account: Account, requested: str | None) -> TokenResponse:
        """An access token alone: a client can ask again (RFC 6749, 4.4.3). Raises domain.ScopeError."""
        scope = domain.grant(requested, account.allowed)
        return self._response(self._new(account, "access", scope))

    async def for_user(self, account: Account, requested: str | None) -> TokenResponse:
        """A login: an access and a refresh token. Raises domain.ScopeError; GrantError if the account has changed."""
        scope = domain.grant(requested, account.allowed)

        def open_family(tx: Writer) -> tuple[Claims, Claims]:
            if store.account(tx, account.name) != account:
                raise GrantError("the account has changed")
            return self._chain(tx, store.open_family(tx, account.name, scope), account, scope)

        return self._response(*await self._database.write(open_family))

    async def renew(self, token: str, requested: str | None) -> TokenResponse:
        """The next pair of a family. Raises GrantError (re-use has then ended the family) or domain.ScopeError."""
        try:
            old = self._refresh.verify(token)
        except TokenError as error:
            raise GrantError(f"refresh token: {error.code}") from None

        def use(tx: Writer) -> tuple[Claims, Claims] | None:
            family = store.use_refresh(tx, old.jti, int(self._clock()))
            account = None if family is None else store.account(tx, family.subject)
            if family is None or account is None:
                return None  # and no exception: that a family has ended is to be committed
            scope = domain.grant(requested, frozenset(domain.still_allowed(family.scope, account.allowed).split()))
            return self._chain(tx, family, account, scope)

        pair = await self._database.write(use)
        if pair is None:
            raise GrantError("the refresh token was used before, or its login has ended")
        return self._response(*pair)

    def read(self, token: str) -> Claims | None:
        """The claims of an access or refresh token of ours that has not expired; revoked or not."""
        for verifier in (self._access, self._refresh):
            try:
                return verifier.verify(token)
            except TokenError:
                continue
        return None

    async def revoke(self, claims: Claims) -> None:
        """A refresh token: ends its login, with all tokens of it. An access token: that one."""
        now = int(self._clock())

        def end(tx: Writer) -> None:
            if claims.typ == "access":
                store.revoke_token(tx, claims.jti, claims.sub, claims.exp, now)
            elif family := store.family_of(tx, claims.jti):
                store.end_family(tx, family, now)

        await self._database.write(end)

    async def introspect(self, token: str) -> dict[str, Any]:
        """RFC 7662, 2.2."""
        claims = self.read(token)
        if claims is None or not await self._database.read(lambda db: self._is_active(db, claims)):
            return {"active": False}
        answer: dict[str, Any] = {"active": True, "token_type": "Bearer" if claims.typ == "access" else "refresh_token"}
        for name in ("iss", "sub", "aud", "scope", "jti", "iat", "nbf", "exp", "client_id"):
            if (value := getattr(claims, name)) is not None:
                answer[name] = value
        return answer

    def _is_active(self, db: store.Reader, claims: Claims) -> bool:
        if store.account(db, claims.sub) is None:
            return False
        if claims.typ == "refresh":
            return store.family_of(db, claims.jti, unused=True) is not None
        tokens, subjects = store.revocations(db, int(self._clock()))
        return claims.jti not in tokens and claims.iat >= subjects.get(claims.sub, 0)

    def _chain(self, tx: Writer, family: Family, account: Account, scope: str) -> tuple[Claims, Claims]:
        access = self._new(account, "access", scope)
        refresh = self._new(account, "refresh", family.scope)
        store.add_refresh(tx, family, refresh.jti, refresh.exp, access.jti, access.exp)
        return access, refresh

    def _new(self, account: Account, typ: Literal["access", "refresh"], scope: str) -> Claims:
        # Not before the account's own not_before: see store.revoke_subject.
        issued = max(int(self._clock()), account.not_before)
        is_access = typ == "access"
        return Claims(
            iss=ISSUER,
            sub=account.name,
            aud=ACCESS_AUDIENCE if is_access else REFRESH_AUDIENCE,
            scope=scope,
            jti=secrets.token_urlsafe(16),
            iat=issued,
            nbf=issued,
            exp=issued + (self._settings.access_seconds if is_access else self._settings.refresh_seconds),
            typ=typ,
            client_id=account.name if account.kind == "client" else None,
        )

    def _response(self, access: Claims, refresh: Claims | None = None) -> TokenResponse:
        return TokenResponse(
            access_token=mint(access, self._ring.signing),
            expires_in=access.exp - access.iat,
            scope=access.scope,
            refresh_token=mint(refresh, self._ring.signing) if refresh else None,
        )

    def _verifier(self, typ: Literal["access", "refresh"], audience: str) -> Verifier:
        return Verifier(self._ring.get, issuer=ISSUER, audience=audience, typ=typ, clock=self._clock)
