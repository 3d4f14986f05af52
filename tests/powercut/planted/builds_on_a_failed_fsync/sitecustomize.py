"""Planted fault: a boot takes the write-ahead log as it looks, and goes on behind it."""

from __future__ import annotations

from typing import Any

from atoll_broker.storage_sqlite import SqliteStorage

assert hasattr(SqliteStorage, "_empty_wal"), "what this fault replaces is gone: plant it anew"
as_it_is = SqliteStorage._empty_wal


def empty_wal(self: SqliteStorage, how: Any) -> bool:
    """Later, perhaps; not at the boot."""
    return how != "TRUNCATE" and as_it_is(self, how)


SqliteStorage._empty_wal = empty_wal  # type: ignore[method-assign]
