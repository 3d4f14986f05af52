"""Atoll tokens, version 1: who may do what, in a string that anyone can check and only its issuer can make.

The format is `auth/spec/token-1.md` (normative, with vectors); this library is one implementation of it.
They are not JWTs.

    claims = Verifier(keys.get, issuer="atoll-auth", audience="atoll", typ="access").verify(text)
"""

from ._cache import VerifiedCache
from ._claims import Claims
from ._errors import TokenError
from ._keys import PublicKey, SigningKey
from ._keyset import KeySet, open_key_set, sign_key_set
from ._revocations import RevocationList, Revocations
from ._scopes import parse_scopes, scope_allows
from ._tokens import LEEWAY_SECONDS, TOKEN_CHARS_MAX, Verifier, mint

__all__ = [
    "LEEWAY_SECONDS",
    "TOKEN_CHARS_MAX",
    "Claims",
    "KeySet",
    "PublicKey",
    "RevocationList",
    "Revocations",
    "SigningKey",
    "TokenError",
    "VerifiedCache",
    "Verifier",
    "mint",
    "open_key_set",
    "parse_scopes",
    "scope_allows",
    "sign_key_set",
]
