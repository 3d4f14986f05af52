"""What the gateway tells a service about a request: who asks, and what they may.

Signed by the gateway's own key and bound to one service (`aud`), so that no sibling can call another, nor use what it
was sent against a third. Signing costs about 62 µs, so one is made per (token, service) and used again for at most
20 s of its 30 s life: what arrives is good for at least 10 s more. Within those 30 s a service's network could replay
it to the same service; the threat model says so.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable

from atoll_token import Claims, SigningKey, mint

ISSUER = "atoll-gateway"
ANONYMOUS = "anonymous"
LIFE_SECONDS = 30
REUSE_SECONDS = 20.0
_ENTRIES_MAX = 10_000


class Assertions:
    """Mints and reuses. For one event loop."""

    def __init__(self, key: SigningKey, wall_clock: Callable[[], float], clock: Callable[[], float]) -> None:
        self._key = key
        self._wall_clock = wall_clock
        self._clock = clock
        self._made: OrderedDict[tuple[str, str], tuple[str, float, float]] = OrderedDict()

    def assertion(self, claims: Claims | None, service: str) -> str:
        """The header's value for one request; claims None: a public route, whose subject is `anonymous`."""
        entry = ("" if claims is None else claims.jti, service)
        now, wall = self._clock(), self._wall_clock()
        known = self._made.get(entry)
        if known is not None and self._fresh(known, now, wall):
            return known[0]
        token = mint(_claims(claims, service, int(wall)), self._key)
        self._made[entry] = (token, now, wall)
        self._made.move_to_end(entry)
        if len(self._made) > _ENTRIES_MAX:
            self._made.popitem(last=False)
        return token

    @staticmethod
    def _fresh(made: tuple[str, float, float], now: float, wall: float) -> bool:
        """By both clocks: after the wall clock has jumped, a service would find an old one expired or not yet valid."""
        return now - made[1] < REUSE_SECONDS and abs(wall - made[2]) < REUSE_SECONDS


def _claims(claims: Claims | None, service: str, now: int) -> Claims:
    return Claims(
        iss=ISSUER,
        sub=ANONYMOUS if claims is None else claims.sub,
        aud=service,
        scope="" if claims is None else claims.scope,
        jti=secrets.token_hex(16),
        iat=now,
        nbf=now,
        exp=now + LIFE_SECONDS,
        typ="assertion",
        client_id=None if claims is None else claims.client_id,
    )
