"""The life of a signing key, as a pure function of what the database says and what time it is.

    created ──▶ published ── lead ──▶ active ── rotation ──▶ retired ──▶ out of the set ──▶ forgotten
    in the set  the broker            signs                 private half  + access TTL       + refresh TTL
                took the set                                erased        + 2 × leeway       + 2 × leeway

Published before use: a key signs only after the broker has taken a set with it, and then a lead later, so that no
verifier meets a token whose key it has not heard of. While the broker is away, rotation waits and the old key goes on.
The one exception is an empty start, where nobody could be misled and nobody could be served otherwise.

Retired keys stay in the set until the last access token that they signed has expired everywhere (a verifier whose clock
is slow by the leeway grants another leeway: hence twice), and in auth itself until the last refresh token has.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from atoll_token import LEEWAY_SECONDS

_GRACE_SECONDS = 2 * int(LEEWAY_SECONDS)
LEAD_SECONDS_MAX = 3600


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `signing_keys` but for the key itself. Times are seconds since 1970."""

    kid: str
    created_at: int
    published_at: int | None = None
    active_at: int | None = None
    retired_at: int | None = None

    @property
    def state(self) -> Literal["pending", "active", "retired"]:
        if self.retired_at is not None:
            return "retired"
        return "pending" if self.active_at is None else "active"


class Schedule(NamedTuple):
    """Settings, in seconds."""

    rotate: int
    access: int
    refresh: int

    @property
    def lead(self) -> int:
        """How long a published key waits: long enough for a verifier that is restarting, short beside the rotation."""
        return min(LEAD_SECONDS_MAX, self.rotate // 10)


class Step(NamedTuple):
    """What is to be done now. `create_active` makes a key that signs at once; `create` has no kid yet either."""

    do: Literal["create", "create_active", "activate", "retire", "forget"]
    kid: str = ""


def plan(keys: Sequence[KeyRecord], now: int, schedule: Schedule) -> list[Step]:
    """The steps due now, in the order to apply them; none most of the time. At most one key is active afterwards."""
    active = active_key(keys)
    pending = [key for key in keys if key.state == "pending"]
    steps = [Step("forget", key.kid) for key in keys if _is_forgotten(key, now, schedule)]
    if active is None:
        return [*steps, Step("activate", pending[0].kid) if pending else Step("create_active")]
    if not pending:
        due = now >= (active.active_at or 0) + schedule.rotate - schedule.lead
        return [*steps, Step("create")] if due else steps
    published_at = pending[0].published_at
    if published_at is not None and now >= published_at + schedule.lead:
        steps += [Step("retire", active.kid), Step("activate", pending[0].kid)]
    return steps


def active_key(keys: Sequence[KeyRecord]) -> KeyRecord | None:
    """The key that signs."""
    active = [key for key in keys if key.state == "active"]
    assert len(active) <= 1, "two active keys"
    return active[0] if active else None


def in_set(keys: Sequence[KeyRecord], now: int, schedule: Schedule) -> list[str]:
    """The kids that verifiers need, oldest first."""
    wanted = [key for key in keys if key.retired_at is None or now < key.retired_at + schedule.access + _GRACE_SECONDS]
    return [key.kid for key in sorted(wanted, key=lambda key: (key.created_at, key.kid))]


def _is_forgotten(key: KeyRecord, now: int, schedule: Schedule) -> bool:
    life = max(schedule.access, schedule.refresh)
    return key.retired_at is not None and now >= key.retired_at + life + _GRACE_SECONDS
