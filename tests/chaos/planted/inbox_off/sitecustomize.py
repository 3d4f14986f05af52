"""Planted fault: the inbox says "new" to everything. Loaded by a part whose PYTHONPATH names this folder."""

from __future__ import annotations

import sqlite3

from atoll import _inbox

assert callable(_inbox.claim), "what this fault replaces is gone: plant it anew"


def claim(connection: sqlite3.Connection, source: str, event_id: str, seq: int) -> bool:
    """Never a duplicate."""
    return True


_inbox.claim = claim
