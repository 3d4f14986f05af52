"""The settings of payments itself; those that every part has are `atoll.Options`."""

import os
from collections.abc import Mapping

import msgspec

import atoll
from atoll_payments import domain


class Settings(msgspec.Struct, frozen=True):
    decline_above: int | None = None
    """Ten-thousandths; a payment above it is declined. None: none is."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Reads `PAYMENTS_DECLINE_ABOVE`. Raises ConfigurationError naming it and what was expected."""
        text = environ.get("PAYMENTS_DECLINE_ABOVE", "").strip()
        if not text:
            return cls()
        try:
            return cls(domain.amount_of(text))
        except ValueError as error:
            raise atoll.ConfigurationError(f"PAYMENTS_DECLINE_ABOVE is {error}; empty declines none") from None
