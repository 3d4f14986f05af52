"""The SQLite log: corruption, gaps, strangers and rivals are loud, and a failed batch leaves nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from bus_helpers import MESH, Consumer, Shop, event

from atoll_broker.errors import StorageFailedError, StorageLockedError
from atoll_broker.storage import StoredEvent, WriteBatch
from atoll_broker.storage_sqlite import SqliteStorage
from atoll_broker.testing import MemoryBroker


def filled(directory: Path, count: int = 5) -> None:
    storage = SqliteStorage(directory)
    Shop(MemoryBroker(MESH, storage=storage)).publish(*[event(n, f"o-{n}") for n in range(count)])
    storage.close()


def alter(directory: Path, sql: str) -> None:
    connection = sqlite3.connect(directory / "broker.sqlite")
    connection.execute(sql)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE events SET body=replace(CAST(body AS TEXT), 'e-2', 'e-7') WHERE seq=3",
        "UPDATE events SET subject='other' WHERE seq=3",
        "UPDATE events SET topic='shop.order.cancelled.v1' WHERE seq=3",
        "DELETE FROM events WHERE seq=3",
    ],
)
def test_a_row_that_changed_or_went_stops_the_broker(tmp_path: Path, sql: str) -> None:
    filled(tmp_path)
    alter(tmp_path, sql)
    broker = MemoryBroker(MESH, storage=SqliteStorage(tmp_path))
    with pytest.raises(StorageFailedError, match=r"corrupt|gap"):
        Consumer(broker)


@pytest.mark.parametrize("sql", ["DELETE FROM events WHERE seq=5", "DELETE FROM events WHERE seq=1"])
def test_a_log_that_lost_an_end_does_not_start(tmp_path: Path, sql: str) -> None:
    filled(tmp_path)
    alter(tmp_path, sql)
    with pytest.raises(StorageFailedError, match="should hold 1 to 5"):
        SqliteStorage(tmp_path).open({}, 0)


def test_a_file_that_is_no_database_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "broker.sqlite").write_bytes(b"x" * 8192)
    with pytest.raises(StorageFailedError):
        SqliteStorage(tmp_path).open({}, 0)


def test_another_programs_database_is_not_touched(tmp_path: Path) -> None:
    alter(tmp_path, "CREATE TABLE mine (x)")
    with pytest.raises(StorageLockedError, match="not a broker's"):
        SqliteStorage(tmp_path).open({}, 0)


def test_a_second_broker_on_the_directory_is_refused(tmp_path: Path) -> None:
    first = SqliteStorage(tmp_path)
    first.open({}, 0)
    with pytest.raises(StorageLockedError):
        SqliteStorage(tmp_path).open({}, 0)
    first.close()
    second = SqliteStorage(tmp_path)
    assert second.open({}, 0).boot == 2
    second.close()


def test_a_batch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path)
    storage.open({}, 0)
    row = StoredEvent(1, "a.b.v1", "s", "i", "p/1", 1, 0, b"{}")
    with pytest.raises(StorageFailedError):
        storage.commit(WriteBatch(events=[row, row]))
    storage.close()
    assert SqliteStorage(tmp_path).open({}, 0).next_seq == 1


def test_full_durability_is_on(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path)
    storage.open({}, 0)
    writer = storage._writer
    assert writer is not None
    assert writer.execute("PRAGMA synchronous").fetchone() == (2,)
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    storage.close()


def test_the_checkpoint_keeps_the_write_ahead_log_short(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path)
    storage.open({}, 0)
    for start in range(1, 600, 10):
        rows = [StoredEvent(n, "a.b.v1", "s", "i", "p/1", n, 0, b"x" * 100_000) for n in range(start, start + 10)]
        storage.commit(WriteBatch(events=rows))
        if storage.checkpoint_due:
            storage.checkpoint()
    assert (tmp_path / "broker.sqlite-wal").stat().st_size < 40_000_000
    storage.close()
