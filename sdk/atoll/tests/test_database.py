"""What a commit means, who may open the file, and that one work's failure is its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import shutil
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import atoll


def _add(text: str) -> Callable[[atoll.Transaction], int]:
    return lambda tx: tx.execute("INSERT INTO note VALUES (?)", text)


async def _notes(database: atoll.Database) -> list[str]:
    return await database.read(lambda reader: [row["text"] for row in reader.all("SELECT text FROM note ORDER BY 1")])


async def test_a_write_is_there_for_the_next_reader(database: atoll.Database) -> None:
    assert await database.write(lambda tx: tx.execute("INSERT INTO note VALUES ('a')")) == 1
    assert await _notes(database) == ["a"]


async def test_an_exception_undoes_its_own_work_and_no_other_of_the_group(database: atoll.Database) -> None:
    def fail(tx: atoll.Transaction) -> None:
        tx.execute("INSERT INTO note VALUES ('undone')")
        raise RuntimeError("mine")

    works = [database.write(_add("before")), database.write(fail), database.write(_add("after"))]
    first, second, third = await asyncio.gather(*works, return_exceptions=True)
    assert [first, third] == [1, 1]
    assert isinstance(second, RuntimeError)
    assert await _notes(database) == ["after", "before"]


async def test_works_that_wait_together_share_a_commit(database: atoll.Database, options: atoll.Options) -> None:
    counter = sqlite3.connect(options.data / "orders.db")
    before = counter.execute("PRAGMA data_version").fetchone()[0]
    outcomes = await database.write_each([_add(str(i)) for i in range(200)])
    assert [one.value for one in outcomes] == [1] * 200
    assert counter.execute("PRAGMA data_version").fetchone()[0] == before + 1, "200 works, one commit"
    counter.close()


async def test_a_transaction_is_of_no_use_after_its_work(database: atoll.Database) -> None:
    kept: list[atoll.Transaction] = []
    await database.write(kept.append)
    with pytest.raises(atoll.AtollError, match="is over"):
        kept[0].execute("DELETE FROM note")


async def test_a_reader_cannot_write(database: atoll.Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await database.read(lambda reader: reader.all("INSERT INTO note VALUES ('x') RETURNING text"))


async def test_every_commit_is_fsynced(database: atoll.Database) -> None:
    modes = await database.write(
        lambda tx: (tx.one("PRAGMA journal_mode")[0], tx.one("PRAGMA synchronous")[0])  # type: ignore[index]
    )
    assert modes == ("wal", 2), "WAL and FULL: NORMAL loses committed transactions in a power cut"


async def test_writes_beyond_the_bound_are_refused(database: atoll.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll._database.WORKS_QUEUED_MAX", 2)
    results = await asyncio.gather(*(database.write(_add(str(i))) for i in range(3)), return_exceptions=True)
    assert [isinstance(one, atoll.OverloadedError) for one in results] == [False, False, True]
    assert await database.write(_add("later")) == 1, "and taken again once there is room"


async def test_a_failed_commit_fails_every_work_of_the_group(options: atoll.Options) -> None:
    (options.migrations / "0002-deferred.sql").write_text(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY);\n"
        "CREATE TABLE child (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);\n"
    )
    database = atoll.Database(options.data / "orders.db", options.migrations)
    await database.open()
    works: list[Callable[[atoll.Transaction], int]] = [
        _add("good"),
        lambda tx: tx.execute("INSERT INTO child VALUES (7)"),
    ]
    outcomes = await database.write_each(works)
    assert all(isinstance(one.error, atoll.StorageError) for one in outcomes)
    assert await _notes(database) == []
    assert await database.write(_add("next")) == 1, "a broken constraint is no broken disk"
    await database.close()


async def test_a_failed_fsync_seals_the_database(database: atoll.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(connection: sqlite3.Connection, events: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    told: list[atoll.StorageError] = []
    database.on_failure = told.append
    monkeypatch.setattr("atoll._outbox.append", fail)
    with pytest.raises(atoll.StorageError, match="disk I/O error"):
        await database.write(_add("a"))
    monkeypatch.undo()
    with pytest.raises(atoll.StorageError):
        await database.write(_add("b"))
    assert told
    assert database.failure is not None
    assert await _notes(database) == []


async def test_what_a_crash_left_in_the_log_is_written_anew_before_anything_is_built_on_it(
    database: atoll.Database, options: atoll.Options, tmp_path: Path
) -> None:
    await database.write(_add("a"))
    left = tmp_path / "left"
    left.mkdir()
    for name in ("orders.db", "orders.db-wal"):
        shutil.copy(options.data / name, left)
    assert (left / "orders.db-wal").stat().st_size > 0
    again = atoll.Database(left / "orders.db", options.migrations)
    await again.open()
    assert (left / "orders.db-wal").stat().st_size == 0
    assert await _notes(again) == ["a"]
    await again.close()


async def test_a_work_that_would_exit_does_not_take_the_writer_with_it(database: atoll.Database) -> None:
    with pytest.raises(atoll.AtollError, match="SystemExit"):
        await database.write(lambda tx: sys.exit(3))
    assert await database.write(_add("a")) == 1


async def test_a_read_that_would_exit_does_not_take_the_reader_with_it(database: atoll.Database) -> None:
    with pytest.raises(atoll.AtollError, match="SystemExit"):
        async with asyncio.timeout(2):
            await database.read(lambda reader: sys.exit(3))
    assert await _notes(database) == []


async def test_closing_does_not_wait_for_a_work_that_hangs(
    options: atoll.Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll._database.CLOSE_SECONDS", 0.2)
    database, release = atoll.Database(options.data / "orders.db", options.migrations), threading.Event()
    await database.open()
    hung = asyncio.create_task(database.write(lambda tx: release.wait(20)))
    await asyncio.sleep(0.05)
    try:
        async with asyncio.timeout(2):
            await database.close()
        with pytest.raises(atoll.DatabaseLockedError):
            await atoll.Database(database.path, options.migrations).open()
    finally:
        release.set()
    await hung


def _open_elsewhere(path: Path, migrations: Path, answer: multiprocessing.Queue[str]) -> None:
    try:
        asyncio.run(atoll.Database(path, migrations).open())
    except atoll.DatabaseLockedError as error:
        answer.put(f"{error.exit_code} {error}")
    else:
        answer.put("opened")


async def test_two_processes_never_open_one_database(database: atoll.Database, options: atoll.Options) -> None:
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_open_elsewhere, args=(database.path, options.migrations, answer))
    process.start()
    try:
        assert (await asyncio.to_thread(answer.get, timeout=20)).startswith("75 orders.db is open in another process")
    finally:
        process.join(10)


async def test_what_is_not_a_database_is_said_to_be_damaged_and_left_alone(options: atoll.Options) -> None:
    path = options.data / "orders.db"
    path.write_bytes(b"this is not SQLite" * 100)
    with pytest.raises(atoll.StorageError, match="not a database"):
        await atoll.Database(path, options.migrations).open()
    assert path.read_bytes().startswith(b"this is not SQLite")


async def test_another_services_database_is_refused(database: atoll.Database) -> None:
    from atoll._relay import Relay

    await Relay(database, "orders").open()
    with pytest.raises(atoll.DatabaseLockedError, match="belongs to 'orders'"):
        await Relay(database, "payments").open()


async def test_closing_finishes_what_is_queued(options: atoll.Options) -> None:
    database = atoll.Database(options.data / "orders.db", options.migrations)
    await database.open()
    works = [asyncio.ensure_future(database.write(_add(str(i)))) for i in range(50)]
    await asyncio.sleep(0)
    await database.close()
    assert [await work for work in works] == [1] * 50


async def test_a_work_that_finds_the_file_damaged_seals_the_database(options: atoll.Options) -> None:
    """SQLite itself would commit: neither the works that share the commit nor later ones may go into such a file."""
    database = atoll.Database(options.data / "orders.db", options.migrations)
    await database.open()
    await database.write(_add("needle"))
    index = await database.read(
        lambda tx: tx.one("SELECT rootpage FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'note'")
    )
    assert index is not None
    await database.close()
    _spoil(database.path, page=index["rootpage"])
    await database.open()
    works = [_add("before"), lambda tx: tx.execute("DELETE FROM note WHERE rowid = 1"), _add("after")]
    outcomes = await database.write_each(works)
    assert [type(one.error) for one in outcomes] == [atoll.StorageError] * 3
    assert database.failure is not None
    with pytest.raises(atoll.StorageError, match="malformed"):
        await database.write(_add("later"))
    assert await database.read(lambda tx: tx.one("SELECT count(*) FROM note NOT INDEXED")[0]) == 1  # type: ignore[index]
    await database.close()


def _spoil(path: Path, page: int) -> None:
    """The page of an index is still one, and leads nowhere."""
    content = bytearray(path.read_bytes())
    there = slice((page - 1) * 4096, page * 4096)
    assert b"needle" in content[there]
    content[there] = content[there].replace(b"needle", b"nettle")
    path.write_bytes(content)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CORRUPT_VTAB, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR_READ])
async def test_every_error_that_puts_the_file_in_doubt_seals_it(database: atoll.Database, code: int) -> None:
    def fail(tx: atoll.Transaction) -> None:
        error = sqlite3.DatabaseError("it is spoilt")
        error.sqlite_errorcode = code
        raise error

    with pytest.raises(atoll.StorageError, match="it is spoilt"):
        await database.write(fail)
    assert database.failure is not None


async def test_a_statement_that_finds_no_room_fails_as_a_commit_without_room_does(database: atoll.Database) -> None:
    def page_limit(pages: int) -> Callable[[atoll.Transaction], object]:
        return lambda tx: tx.one(f"PRAGMA max_page_count = {pages}")

    await database.write(page_limit(1))  # no fewer than there are: the next page is one too many
    with pytest.raises(atoll.StorageError, match="full"):
        await database.write(lambda tx: tx.execute("INSERT INTO note SELECT hex(zeroblob(9000))"))
    assert database.failure is None, "it can be freed"
    await database.write(page_limit(1_000_000))
    assert await database.write(_add("a")) == 1
