"""The settings of inventory itself; those that every part has are `atoll.Options`."""

import os
from collections.abc import Mapping

import msgspec

import atoll
from atoll_inventory.domain import OPENING_MAX


class Settings(msgspec.Struct, frozen=True):
    opening_stock: int = 0
    """Units of a SKU that never moved. 0: what was not brought in by an adjustment cannot be sold."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Reads `INVENTORY_OPENING_STOCK`. Raises ConfigurationError naming it and what was expected."""
        text = environ.get("INVENTORY_OPENING_STOCK", "").strip()
        if not text:
            return cls()
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= OPENING_MAX):
            raise atoll.ConfigurationError(
                f"INVENTORY_OPENING_STOCK is {text!r}: expected a whole number of units, 0 to {OPENING_MAX}"
            )
        return cls(int(text))
