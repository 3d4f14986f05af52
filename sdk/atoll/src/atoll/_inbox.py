"""The inbox: which events have had their effects in this database.

The row is claimed in the same transaction as the effects, first of all, so there is no moment at which one exists
without the other: a delivery whose claim finds a row has been handled, whatever became of its acknowledgement.
"""

from __future__ import annotations

import sqlite3

PURGE_ROWS_MAX = 1000


def claim(connection: sqlite3.Connection, source: str, event_id: str, seq: int) -> bool:
    """True if the event is new here; then it belongs to this transaction.

    The row lives for as long as the last copy of the event in the log that came here: it can be replayed.
    """
    cursor = connection.execute(
        "INSERT INTO atoll_inbox (source, id, seq) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (source, event_id, seq)
    )
    if cursor.rowcount == 1:
        return True
    connection.execute(
        "UPDATE atoll_inbox SET seq = ?3 WHERE source = ?1 AND id = ?2 AND seq < ?3", (source, event_id, seq)
    )
    return False


def purge(connection: sqlite3.Connection, oldest: int) -> int:
    """Deletes a bounded number of rows of events that the log no longer has, which therefore cannot come again.

    But for one that an operator published again with its id, and whose second copy has not come yet: it will be new.
    """
    return connection.execute(
        "DELETE FROM atoll_inbox WHERE (source, id) IN (SELECT source, id FROM atoll_inbox WHERE seq < ? LIMIT ?)",
        (oldest, PURGE_ROWS_MAX),
    ).rowcount
