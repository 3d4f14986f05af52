"""What a token says."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ._scopes import parse_scopes

# Up to 2^53−1, so that a reader whose JSON numbers are doubles reads the same second.
Seconds = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Typ = Literal["access", "refresh", "assertion"]


class Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The verified content of a token. Times are whole seconds since 1970-01-01 UTC.

    A claim that this version does not know is ignored (issuers are released before verifiers); one that narrows what
    a token allows therefore needs a new version of the format.
    """

    iss: Name
    sub: Name
    aud: Name
    scope: Annotated[str, Meta(max_length=2000)]  # scopes or patterns, one space between two; may be empty
    jti: Name  # what caches and revocations go by: never by the token's text
    iat: Seconds
    nbf: Seconds
    exp: Seconds
    typ: Typ
    client_id: Name | None = None

    def __post_init__(self) -> None:
        if self.exp <= max(self.iat, self.nbf):
            raise ValueError("exp must be later than iat and nbf")
        parse_scopes(self.scope)

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes as a set, for `scope_allows`."""
        return parse_scopes(self.scope)


_decoder = msgspec.json.Decoder(Claims)


def encode(claims: Claims) -> bytes:
    """JSON of `claims`; ValueError names the claim that breaks its bounds."""
    payload = msgspec.json.encode(claims)
    _decoder.decode(payload)  # a Struct's bounds are checked on decoding only, and an issuer must not sign nonsense
    return payload


def decode(payload: bytes) -> Claims:
    """ValueError (msgspec.DecodeError or UnicodeDecodeError) says what is wrong."""
    return _decoder.decode(payload)
