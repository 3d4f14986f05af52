"""What control remembers over its own restarts, a few values by name: nothing that could not be learnt again."""

from __future__ import annotations

import time

import atoll


def keep(tx: atoll.Transaction, name: str, value: bytes) -> None:
    """Store a value under a name, instead of an earlier one."""
    tx.execute("INSERT OR REPLACE INTO memory (name, value, at) VALUES (?, ?, ?)", name, value, time.time())


def load(reader: atoll.Reader, name: str) -> bytes | None:
    """The value of a name, if there is one."""
    row = reader.one("SELECT value FROM memory WHERE name = ?", name)
    return bytes(row["value"]) if row is not None else None
