"""The settings of orders itself; those that every part has are `atoll.Options`."""

import math
import os
from collections.abc import Mapping

import msgspec

import atoll

SAGA_DEADLINE_SECONDS_DEFAULT = 300.0
SAGA_DEADLINE_SECONDS_MIN = 0.1
SAGA_DEADLINE_SECONDS_MAX = 86_400.0


class Settings(msgspec.Struct, frozen=True):
    saga_deadline_seconds: float = SAGA_DEADLINE_SECONDS_DEFAULT
    """An order that is neither confirmed nor cancelled after this long is cancelled. Longer than the longest planned
    stop of inventory or payments, or their stop cancels what merely waits."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Reads `ORDERS_SAGA_DEADLINE_SECONDS`. Raises ConfigurationError naming it and what was expected."""
        seconds_text = environ.get("ORDERS_SAGA_DEADLINE_SECONDS", "").strip()
        if not seconds_text:
            return cls()
        try:
            seconds = float(seconds_text)
        except ValueError:
            seconds = math.nan
        if not SAGA_DEADLINE_SECONDS_MIN <= seconds <= SAGA_DEADLINE_SECONDS_MAX:
            raise atoll.ConfigurationError(
                f"ORDERS_SAGA_DEADLINE_SECONDS is {seconds_text!r}:"
                f" expected seconds, {SAGA_DEADLINE_SECONDS_MIN:g} to {SAGA_DEADLINE_SECONDS_MAX:g}"
            )
        return cls(seconds)
