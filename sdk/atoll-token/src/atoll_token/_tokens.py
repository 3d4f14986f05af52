"""Minting and verifying. The order of the checks is the specification's, cheapest and least trusting first."""

import time
from collections.abc import Callable

from . import _claims, _envelope
from ._claims import Claims, Typ
from ._errors import TokenError
from ._keys import PublicKey, SigningKey

TOKEN_CHARS_MAX = 4096
LEEWAY_SECONDS = 5.0


def mint(claims: Claims, key: SigningKey) -> str:
    """Sign `claims`. ValueError if a claim breaks its bounds or the token would be longer than verifiers accept."""
    token = _envelope.seal(_claims.encode(claims), key, salt=claims.typ)
    if len(token) > TOKEN_CHARS_MAX:
        raise ValueError(f"the token would have {len(token)} characters, more than {TOKEN_CHARS_MAX}")
    return token


class Verifier:
    """Accepts tokens of one issuer, for one audience, of one type. Pure computation (about 80 µs); safe in threads.

    `keys` gives the public key of a kid, or None (a KeySet's `keys.get`, or a function that asks the newest set).
    `clock` gives seconds since 1970; both it and the issuer's may be off by `leeway_seconds` in either direction.
    """

    def __init__(
        self,
        keys: Callable[[str], PublicKey | None],
        *,
        issuer: str,
        audience: str,
        typ: Typ,
        leeway_seconds: float = LEEWAY_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._typ = typ
        self._leeway = leeway_seconds
        self._clock = clock

    def verify(self, token: str) -> Claims:
        """The claims of a token that is genuine, meant for us and in force now. Raises TokenError otherwise."""
        key = self.key_of(token)
        if not _envelope.signed_by(token, key, self._typ):
            raise self._forged(token)
        try:
            claims = _claims.decode(_envelope.payload_of(token))
        except ValueError as error:
            raise TokenError("malformed", f"claims: {error}") from None
        self.check(claims)
        return claims

    def key_of(self, token: str) -> PublicKey:
        """The key that must have signed `token`: length, form, spelling and kid are checked, the signature is not."""
        kid = _envelope.kid_of(token, TOKEN_CHARS_MAX)
        key = self._keys(kid)
        if key is None:
            raise TokenError("unknown_key", f"no key {kid} in the key set")
        return key

    def check(self, claims: Claims) -> None:
        """Type, issuer, audience and times of claims whose signature has been verified. Raises TokenError."""
        if claims.typ != self._typ:
            raise TokenError("wrong_type", self._wrong_type(claims.typ))
        if claims.iss != self._issuer:
            raise TokenError("wrong_issuer", f"the token was not issued by {self._issuer}")
        if claims.aud != self._audience:
            raise TokenError("wrong_audience", f"the token was issued for somebody other than {self._audience}")
        self._check_times(claims, self._clock())

    def _check_times(self, claims: Claims, now: float) -> None:
        if claims.iat > now + self._leeway:
            raise TokenError("clock_skew", f"issued {claims.iat - now:.0f} s in the future: compare the hosts' clocks")
        if claims.nbf > now + self._leeway:
            raise TokenError("not_yet_valid", f"valid in {claims.nbf - now:.0f} s")
        if now >= claims.exp + self._leeway:
            raise TokenError("expired", f"the token expired {now - claims.exp:.0f} s ago")

    def _forged(self, token: str) -> TokenError:
        # A refresh token sent as an access token is a common mistake and fails here, the type being the salt. The
        # unverified payload is read for the wording of the refusal alone; the token is refused either way.
        try:
            typ = _claims.decode(_envelope.payload_of(token)).typ
        except ValueError:
            typ = self._typ
        if typ != self._typ:
            return TokenError("wrong_type", self._wrong_type(typ))
        return TokenError("bad_signature", "the signature does not fit")

    def _wrong_type(self, typ: str) -> str:
        return f"this is of type {typ}; expected one of type {self._typ}"
