"""Planted fault: the broker's commit says that it is done, and is written by another thread behind that.

Run in a broker's process before its main(). It is *before the write*, not only before the fsync: what write() has got
survives a SIGKILL, so a missing fsync is nothing that this suite could see. That is for a power cut to show.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from atoll_broker.storage import WriteBatch
from atoll_broker.storage_sqlite import SqliteStorage

right = SqliteStorage.commit
behind = ThreadPoolExecutor(1, thread_name_prefix="behind")


def commit(self: SqliteStorage, batch: WriteBatch) -> None:
    """Promises."""
    behind.submit(right, self, batch)


SqliteStorage.commit = commit  # type: ignore[method-assign]
