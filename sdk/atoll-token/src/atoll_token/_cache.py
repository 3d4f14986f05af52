"""Verified once, believed until exp: a signature check costs about 80 µs, a hit 5."""

import hashlib
from collections import OrderedDict

from ._claims import Claims
from ._keys import PublicKey
from ._tokens import Verifier

ENTRIES_MAX = 10_000


class VerifiedCache:
    """A Verifier that skips the signature of a token it has verified before; same answers, same errors.

    Keyed by the digest of the token's canonical text (verified text is canonical, so one token has one entry, and a
    dump of the cache holds no token). Only successes are kept: a flood of bad tokens evicts nobody. A hit still checks
    the times, and that the kid names the same key as before, so that a retired key's tokens end at once. The least
    recently used entry goes first. Revocation is the caller's: ask a RevocationList after every `verify`.

    For one event loop; not safe in threads.
    """

    def __init__(self, verifier: Verifier, *, entries_max: int = ENTRIES_MAX) -> None:
        self._verifier = verifier
        self._entries_max = entries_max
        self._entries: OrderedDict[bytes, tuple[PublicKey, Claims]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def verify(self, token: str) -> Claims:
        """As Verifier.verify."""
        key = self._verifier.key_of(token)
        digest = hashlib.sha256(token.encode("ascii")).digest()
        known = self._entries.pop(digest, None)  # taken out; put back below as the newest, if it still holds
        if known is not None and known[0] == key:
            claims = known[1]
            self._verifier.check(claims)
        else:
            claims = self._verifier.verify(token)
        self._entries[digest] = (key, claims)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)
        return claims

    def clear(self) -> None:
        self._entries.clear()
