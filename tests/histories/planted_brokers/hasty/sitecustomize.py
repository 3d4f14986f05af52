"""Planted fault: a broker that acknowledges before the disk has it, and whose disk takes its time.

Nothing but a kill or a new session in between shows it: the mark falls back behind what was acknowledged (I5), and with
a kill that is lost (I1). Besides, it remembers no ack beyond its boot, which it may, so that everything is delivered
again: whoever has no inbox has his effects twice (I8).
"""

from __future__ import annotations

import time
from typing import Any

from atoll_broker.commands import PubAck
from atoll_broker.journal import Journal
from atoll_broker.publishing import Publishing
from atoll_broker.storage_sqlite import SqliteStorage

COMMIT_SECONDS = 0.3
for owner, name in ((Publishing, "take"), (SqliteStorage, "commit"), (Journal, "floor"), (Journal, "acked")):
    assert callable(getattr(owner, name, None)), f"{owner.__name__}.{name} is gone: plant this fault anew"

_take, _commit = Publishing.take, SqliteStorage.commit


def take(self: Publishing, session: Any, pub: Any, *rest: Any) -> Any:
    """The answer at once."""
    answer = _take(self, session, pub, *rest)
    return answer or PubAck(pub.producer, self._producers[pub.producer].taken, [], self.window)


def commit(self: SqliteStorage, batch: Any) -> Any:
    """The right thing, a moment later."""
    if batch.events:
        time.sleep(COMMIT_SECONDS)
    return _commit(self, batch)


def forget(self: Journal, group: str, seq: int) -> None:
    """Where the group stands is not written."""


Publishing.take = take  # type: ignore[method-assign, assignment]
SqliteStorage.commit = commit  # type: ignore[method-assign]
Journal.floor = Journal.acked = forget  # type: ignore[method-assign, assignment]
