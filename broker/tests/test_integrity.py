"""Whatever bit flips in the log, its cursors or its write-ahead log: the broker refuses to start, or nothing is amiss.

The oracle is the log as it was: a store that opens after a flip must give back every event, every cursor and every
letter as before, or say StorageFailedError when it is asked.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import structlog.testing

from atoll_broker import storage_sqlite, watermark
from atoll_broker.errors import StorageFailedError, StorageFullError, StorageLockedError
from atoll_broker.seals import SEALED, row_crc
from atoll_broker.storage import (
    DeadLetter,
    Gap,
    Lease,
    LetterPut,
    ProducerRecord,
    Step,
    StoredEvent,
    WriteBatch,
)
from atoll_broker.storage_sqlite import SqliteStorage

SEED = int(os.environ.get("ATOLL_SEED", "5"))
TOPIC = "a.b.v1"
GROUPS: Final[dict[str, Any]] = {"bank": ([TOPIC], "earliest"), "mail": ([TOPIC], "latest")}
COMMITS, EVENTS = 12, 6
FLIPS_A_FILE = 500


def letter(seq: int) -> DeadLetter:
    return DeadLetter("bank", seq, TOPIC, f"s-{seq}", f"e-{seq}", "FAILED", None, "no", "f", 3, "1", None, 7)


def batch(number: int) -> WriteBatch:
    """Commit `number`, with something for every table."""
    first = (number - 1) * EVENTS + 1
    seqs = range(first, first + EVENTS)
    return WriteBatch(
        events=[StoredEvent(n, TOPIC, f"s-{n}", f"e-{n}", "p/1", n, n, b'{"n":%d}' % n * (n % 90)) for n in seqs],
        producers={"p/1": ProducerRecord(seqs[-1], f"e-{seqs[-1]}")},
        floors={"bank": first},
        acked=[("bank", first + 2), ("bank", first + 4)],
        attempts={("bank", first + 3): 2},
        letters=[LetterPut(letter(first + 5))],
        leases={("bank", first + 1): Lease("bank/1", (1 << 32) + number)},
        gaps=[("mail", Gap(number * 10, number * 10 + 1, "retention", 5))],
        steps=[Step(number, first, "bank", 9, "nack", 1, "bank/1", 3, "no")],
        kept={"keys": b'{"k":%d}' % number},
    )


def fill(directory: Path) -> SqliteStorage:
    """A store with something in every table, still open."""
    storage = SqliteStorage(directory)
    storage.open(GROUPS, 0)
    for number in range(1, COMMITS + 1):
        storage.commit(batch(number))
        if number == COMMITS // 2:
            storage._written = storage_sqlite.CHECKPOINT_BYTES + 1
            storage.checkpoint()
    return storage


class RefusedError(Exception):
    """The store did not open; `untouched`: it was only looked at."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.untouched = "_inspect" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def contents(directory: Path) -> dict[str, Any]:
    """All that a boot finds, and all that can be read of it afterwards. Raises RefusedError or StorageFailedError."""
    storage = SqliteStorage(directory)
    try:
        try:
            found = storage.open(GROUPS, 0)
        except (StorageFailedError, StorageLockedError) as error:
            raise RefusedError(error) from error
        events, after = [], found.oldest - 1
        while read := storage.read(after, 1000, 1 << 30):
            events += read
            after = read[-1].seq
        return {
            "log": (found.log_id, found.oldest, found.next_seq, found.log_bytes, sum(found.topics.values())),
            "cursors": (found.producers, found.groups, found.kept),
            "events": events,
            "letters": storage.dead_letters("bank", None, 0, 1000),
            "steps": [storage.steps(event.seq) for event in events],
            "places": storage.select([TOPIC], 1, found.next_seq, None),
        }
    finally:
        storage.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Closed in peace: all of it in the database."""
    directory = tmp_path_factory.mktemp("whole")
    fill(directory).close()
    return directory


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a kill leaves it: the second half in the write-ahead log."""
    directory = tmp_path_factory.mktemp("killed")
    storage = fill(tmp_path_factory.mktemp("running"))
    for path in storage._directory.iterdir():
        if not path.name.endswith("-shm"):
            shutil.copy(path, directory)
    storage.close()
    return directory


def flips(path: Path, dice: random.Random) -> Iterator[tuple[int, int]]:
    """(byte, bit): all of the first 128 bytes, where headers are; heads of pages and frames; and anywhere."""
    size = path.stat().st_size
    step = 4096 if not path.name.endswith("-wal") else 24 + 4096
    start = 0 if step == 4096 else 32
    heads = [at + offset for at in range(start, size, step) for offset in range(0, 48, 3)]
    chosen = dice.sample(heads, min(len(heads), FLIPS_A_FILE // 2))
    chosen += [dice.randrange(size) for _ in range(FLIPS_A_FILE // 2)]
    for at in [*range(min(size, 128)), *chosen]:
        if at < size:
            yield at, dice.randrange(8)


def flipped(source: Path, target: Path, name: str, at: int, bit: int) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    with (target / name).open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.parametrize(
    ("state", "name"),
    [("whole", "broker.sqlite"), ("killed", "broker.sqlite"), ("killed", "broker.sqlite-wal"),
     ("killed", "broker.watermark")],
)  # fmt: skip
def test_a_flipped_bit_is_loud_or_harmless(
    state: str, name: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    source: Path = request.getfixturevalue(state)
    shutil.copytree(source, tmp_path / "unhurt")
    wanted = contents(tmp_path / "unhurt")
    outcomes: Counter[str] = Counter()
    for at, bit in flips(source / name, random.Random(SEED)):
        target = tmp_path / "hurt"
        flipped(source, target, name, at, bit)
        before = _files(target)
        try:
            found = contents(target)
        except RefusedError as refusal:
            outcomes["refused to start" if refusal.untouched else "stopped at the start"] += 1
            changed = refusal.untouched and before != _files(target)
        except StorageFailedError:
            outcomes["stopped when it was read"] += 1
            changed = False
        else:
            outcomes["harmless"] += 1
            changed = False
            differs = [part for part in wanted if wanted[part] != found[part]]
            where = f"ATOLL_SEED={SEED}: bit {bit} of byte {at} of {name} ({state})"
            assert not differs, f"{where} changes {differs} silently"
        assert not changed, f"byte {at} of {name} ({state}): a log that is refused stays as it was"
    with capsys.disabled():
        print(f"\n» flips of {name} ({state}): {dict(outcomes)}")
    if (state, name) in (("whole", "broker.sqlite"), ("killed", "broker.sqlite-wal")):
        assert outcomes["refused to start"] + outcomes["stopped at the start"] > 100
        assert outcomes["refused to start"] > 50


def _files(directory: Path) -> dict[str, bytes]:
    """What must not be lost; SQLite makes the others anew."""
    data = ("broker.sqlite", "broker.sqlite-wal", "broker.watermark")
    return {name: (directory / name).read_bytes() for name in data if _size(directory / name)}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("table", [table for table in SEALED if table != "steps"])
def test_a_cursor_that_changed_without_its_seal_stops_the_start(whole: Path, tmp_path: Path, table: str) -> None:
    shutil.copytree(whole, tmp_path / "data")
    column = SEALED[table][1]
    which = "WHERE name='boot'" if table == "meta" else ""
    alter(tmp_path / "data", f"UPDATE {table} SET {column}=coalesce({column}, 0) + 1 {which}")
    with pytest.raises(StorageFailedError, match=f"a row of {table} is corrupt"):
        SqliteStorage(tmp_path / "data").open(GROUPS, 0)


def test_history_that_changed_is_not_told(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "data")
    alter(tmp_path / "data", "UPDATE steps SET text='yes'")
    storage = SqliteStorage(tmp_path / "data")
    storage.open(GROUPS, 0)
    with pytest.raises(StorageFailedError, match="a row of steps"):
        storage.steps(1)
    storage.close()


def alter(directory: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(directory / "broker.sqlite")) as connection:
        connection.execute(sql)
        connection.commit()


@pytest.mark.parametrize("version", [1, 2])
def test_a_database_of_an_earlier_version_gets_its_seals(whole: Path, tmp_path: Path, version: int) -> None:
    shutil.copytree(whole, tmp_path / "now")
    wanted = contents(tmp_path / "now")
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    _write_as_before(earlier, tmp_path / "now", version)
    found = contents(earlier)
    if version == 1:  # which had no leases, gaps and history
        found["cursors"] = wanted["cursors"]
        found["steps"] = wanted["steps"]
    assert found == wanted
    assert contents(earlier)["events"] == wanted["events"], "and it opens again"


def _write_as_before(directory: Path, source: Path, version: int) -> None:
    """The same rows in the schema of that version, without seals."""
    with contextlib.closing(sqlite3.connect(directory / "broker.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        old = storage_sqlite.SCHEMA + (storage_sqlite.SCHEMA_ADDED if version == 2 else "")
        connection.executescript(old if version == 2 else old.replace(", detached INTEGER NOT NULL DEFAULT 0", ""))
        connection.execute("ATTACH ? AS now", (str(source / "broker.sqlite"),))
        for (table,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type='table'").fetchall():
            columns = ",".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})"))
            rows = "WHERE name NOT IN ('schema', 'commits')" if table == "meta" else ""
            connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM now.{table} {rows}")
        connection.execute(f"PRAGMA application_id={storage_sqlite.APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={version}")


def test_a_write_ahead_log_that_is_gone_or_shorter_is_noticed(killed: Path, tmp_path: Path) -> None:
    for name, size in (("gone", 0), ("shorter", (killed / "broker.sqlite-wal").stat().st_size // 2)):
        shutil.copytree(killed, tmp_path / name)
        os.truncate(tmp_path / name / "broker.sqlite-wal", size)
        with pytest.raises(StorageFailedError, match="commits are gone"):
            SqliteStorage(tmp_path / name).open(GROUPS, 0)


def test_a_database_that_is_gone_is_not_begun_anew(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "data")
    (tmp_path / "data" / "broker.sqlite").unlink()
    with pytest.raises(StorageFailedError, match=r"the log is gone: \d+ commits .* remove broker\.watermark"):
        SqliteStorage(tmp_path / "data").open(GROUPS, 0)
    (tmp_path / "data" / "broker.watermark").unlink()
    storage = SqliteStorage(tmp_path / "data")
    assert storage.open(GROUPS, 0).next_seq == 1, "whoever says that it was on purpose is believed"
    storage.close()


@pytest.mark.parametrize("harm", ["broken", "missing"])
def test_a_watermark_that_says_nothing_is_made_anew_with_a_warning(whole: Path, tmp_path: Path, harm: str) -> None:
    shutil.copytree(whole, tmp_path / "data")
    mark = tmp_path / "data" / "broker.watermark"
    mark.write_bytes(b"x" * 512) if harm == "broken" else mark.unlink()
    with structlog.testing.capture_logs() as lines:
        contents(tmp_path / "data")
    assert [(line["log_level"], f"was {harm}" in line["event"]) for line in lines] == [("warning", True)]
    with structlog.testing.capture_logs() as lines:
        contents(tmp_path / "data")
    assert lines == []


def test_the_watermark_of_another_log_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "data")
    other = tmp_path / "other"
    fill(other).close()
    shutil.copy(other / "broker.watermark", tmp_path / "data")
    with pytest.raises(StorageFailedError, match="the watermark that of"):
        SqliteStorage(tmp_path / "data").open(GROUPS, 0)


def test_the_watermark_is_flushed_once_a_second_and_not_by_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(watermark, "monotonic", lambda: now)
    storage = fill(tmp_path)
    assert not storage.checkpoint_due
    now += watermark.FLUSH_SECONDS
    assert storage.checkpoint_due
    storage.checkpoint()
    assert not storage.checkpoint_due
    storage.close()


def test_a_full_disk_takes_nothing_of_a_batch_and_all_of_it_later(tmp_path: Path) -> None:
    storage = fill(tmp_path)
    before = contents_of(storage)
    assert storage._writer is not None
    pages = storage._writer.execute("PRAGMA page_count").fetchone()[0]
    storage._writer.execute(f"PRAGMA max_page_count={pages}")
    large = batch(COMMITS + 1)
    large.events[0].body = b"x" * 100_000
    for _ in range(3):
        with pytest.raises(StorageFullError):
            storage.commit(large)
        assert contents_of(storage) == before
    storage._writer.execute("PRAGMA max_page_count=1000000")
    storage.commit(large)
    assert len(contents_of(storage)) == len(before) + EVENTS
    storage.close()
    assert len(contents(tmp_path)["events"]) == (COMMITS + 1) * EVENTS


def contents_of(storage: SqliteStorage) -> list[StoredEvent]:
    return storage.read(0, 1000, 1 << 30)


def test_a_seal_covers_types_and_the_borders_between_columns() -> None:
    rows: list[tuple[Any, ...]] = [
        ("a", "b"),
        ("ab", ""),
        ("", "ab"),
        ("a", b"b"),
        ("1",),
        (1,),
        (b"1",),
        (None,),
        ("",),
    ]
    assert len({row_crc(*row) for row in rows}) == len(rows)
    assert row_crc(True) == row_crc(1), "which SQLite does not tell apart"
