"""The log in SQLite: WAL, synchronous=FULL, one row an event with a CRC, one transaction a group commit.

FULL because NORMAL lost every committed row in a power cut (measured), so an ack over it would be a lie. BEGIN
IMMEDIATE because a deferred transaction that turns to writing fails at once when another writes. The checkpoint is
done by hand after a commit was reported, so that nobody's PUBACK waits for it.

What would change it: an append-only file is faster by a half, and would need its own recovery, retention and index.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

from .commands import Refusal
from .errors import StorageFailedError, StorageLockedError
from .storage import (
    DeadLetter,
    DeadMark,
    GroupRecord,
    LetterDrop,
    LetterPut,
    LettersReplay,
    ProducerRecord,
    Recovered,
    StoredEvent,
    Trimmed,
    WriteBatch,
)

_T = TypeVar("_T")
APPLICATION_ID: Final = 0x41746F6C  # "Atol": another program's database is not touched
SCHEMA_VERSION: Final = 1
CHECKPOINT_BYTES: Final = 16_777_216
ROW_BYTES: Final = 256  # what a row costs in the write-ahead log besides its body, roughly
READ_ROWS_MAX: Final = 1024

SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
  seq INTEGER PRIMARY KEY, topic TEXT NOT NULL, subject TEXT NOT NULL, event_id TEXT NOT NULL, producer TEXT NOT NULL,
  pseq INTEGER NOT NULL, stored_ms INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE topics (topic TEXT PRIMARY KEY, events INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE producers (producer TEXT PRIMARY KEY, mark INTEGER NOT NULL, last_id TEXT, refused BLOB NOT NULL);
CREATE TABLE groups (name TEXT PRIMARY KEY, floor INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE acked (name TEXT, seq INTEGER, PRIMARY KEY (name, seq)) WITHOUT ROWID;
CREATE TABLE attempts (name TEXT, seq INTEGER, attempt INTEGER NOT NULL, PRIMARY KEY (name, seq)) WITHOUT ROWID;
CREATE TABLE letters (
  name TEXT, seq INTEGER, topic TEXT NOT NULL, subject TEXT NOT NULL, replaying INTEGER NOT NULL, letter BLOB NOT NULL,
  PRIMARY KEY (name, seq)
) WITHOUT ROWID;
CREATE INDEX letters_by_key ON letters (name, subject);
CREATE TABLE kept (kind TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
_EVENT_COLUMNS: Final = "seq, topic, subject, event_id, producer, pseq, stored_ms, crc, body"
_refusals: Final = msgspec.json.Decoder(list[Refusal])
_letter: Final = msgspec.json.Decoder(DeadLetter)


@contextlib.contextmanager
def _failing_loudly(what: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
        raise StorageFailedError(f"{what}: {error}") from error


class SqliteStorage:
    """One data directory, held by a lock for as long as this object is open."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "broker.sqlite"
        self._lock: int | None = None
        self._written = 0  # bytes, about, since the last checkpoint
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    def open(self, groups: dict[str, tuple[list[str], Literal["earliest", "latest"]]]) -> Recovered:
        """Raises StorageLockedError if another broker holds the directory, or the database is not a broker's."""
        with _failing_loudly(f"can not open {self._path.name}"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            self._writer = self._connect()
            self._prepare(self._writer)
            self._reader = self._connect()
            self._reader.execute("PRAGMA query_only=ON")
            return self._recover(self._writer, groups)

    def commit(self, batch: WriteBatch) -> Trimmed | None:
        connection = self._open_writer()
        with _failing_loudly("commit failed"):
            connection.execute("BEGIN IMMEDIATE")
            _insert_events(connection, batch.events)
            _write_producers(connection, batch)
            _write_groups(connection, batch)
            for change in batch.letters:
                _change_letter(connection, change)
            trimmed = _trim(connection, batch.trim_below) if batch.trim_below is not None else None
            connection.execute("COMMIT")
        rows = len(batch.events) + len(batch.acked) + len(batch.attempts) + len(batch.letters)
        self._written += rows * ROW_BYTES + sum(len(event.body) for event in batch.events)
        return trimmed

    @property
    def checkpoint_due(self) -> bool:
        return self._written > CHECKPOINT_BYTES

    def checkpoint(self) -> None:
        """Moves the write-ahead log into the database, so that it is written from its start again."""
        with _failing_loudly("checkpoint failed"):
            self._open_writer().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._written = 0

    def read(self, after: int, events_max: int, bytes_max: int) -> list[StoredEvent]:
        rows = min(events_max, READ_ROWS_MAX)
        sql = f"SELECT {_EVENT_COLUMNS} FROM events WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 constant
        found: list[StoredEvent] = []
        size = 0
        with _failing_loudly("read failed"), contextlib.closing(self._open_reader().execute(sql, (after, rows))) as cur:
            for row in cur:
                event = _checked(row)
                if event.seq != after + 1 + len(found):
                    raise StorageFailedError(f"the log has a gap: {event.seq} follows {after + len(found)}")
                size += len(event.body)
                if found and size > bytes_max:
                    break
                found.append(event)
        return found

    def read_one(self, seq: int) -> StoredEvent:
        events = self.read(seq - 1, 1, 0)
        if not events:
            raise StorageFailedError(f"event {seq} is not in the log")
        return events[0]

    def dead_letters(self, group: str, after: int, limit: int) -> list[DeadLetter]:
        sql = "SELECT letter FROM letters WHERE name=? AND seq>? AND replaying=0 ORDER BY seq LIMIT ?"
        with _failing_loudly("read failed"):
            rows = self._open_reader().execute(sql, (group, after, limit)).fetchall()
            return [_letter.decode(row[0]) for row in rows]

    def close(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
        self._reader = self._writer = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        self._lock = os.open(self._directory / "broker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageLockedError("another broker holds the data directory (broker.lock)") from None

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Identity first: nothing is written into a database that is not ours."""
        found = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and (found, version) != (APPLICATION_ID, SCHEMA_VERSION):
            raise StorageLockedError(f"{self._path.name} is not a broker's database of version {SCHEMA_VERSION}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        if not tables:
            connection.executescript(
                f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id={APPLICATION_ID};"
                f"PRAGMA user_version={SCHEMA_VERSION}; COMMIT"
            )
            self._path.chmod(0o600)
            _sync_directory(self._directory)

    def _recover(
        self, connection: sqlite3.Connection, groups: dict[str, tuple[list[str], Literal["earliest", "latest"]]]
    ) -> Recovered:
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        boot, log_id = meta.get("boot", 0) + 1, meta.get("log_id") or secrets.token_hex(8)
        oldest, next_seq = meta.get("oldest", 1), meta.get("next_seq", 1)
        _check_extent(connection, oldest, next_seq)
        connection.execute("BEGIN IMMEDIATE")
        _set_meta(connection, boot=boot, log_id=log_id, oldest=oldest, next_seq=next_seq)
        for name, (_, first) in groups.items():
            start = oldest - 1 if first == "earliest" else next_seq - 1
            sql = "INSERT INTO groups VALUES (?,?) ON CONFLICT DO UPDATE SET floor=max(floor, ?)"
            connection.execute(sql, (name, start, oldest - 1))
        connection.execute("COMMIT")
        return Recovered(
            boot=boot,
            log_id=log_id,
            oldest=oldest,
            next_seq=next_seq,
            log_bytes=meta.get("log_bytes", 0),
            topics=dict(connection.execute("SELECT topic, events FROM topics")),
            producers=dict(_read_producers(connection)),
            groups={name: _read_group(connection, name, topics, oldest) for name, (topics, _) in groups.items()},
            kept=dict(connection.execute("SELECT kind, value FROM kept")),
        )

    def _open_writer(self) -> sqlite3.Connection:
        assert self._writer is not None, "the storage is not open"
        return self._writer

    def _open_reader(self) -> sqlite3.Connection:
        assert self._reader is not None, "the storage is not open"
        return self._reader


def _crc(event: StoredEvent) -> int:
    """Over every column, so that a bit that flips anywhere in the row is seen."""
    place = f"{event.seq}\0{event.pseq}\0{event.stored_ms}\0{event.producer}"
    head = f"{place}\0{event.topic}\0{event.subject}\0{event.event_id}"
    return zlib.crc32(event.body, zlib.crc32(head.encode()))


def _checked(row: tuple[int, str, str, str, str, int, int, int, bytes]) -> StoredEvent:
    event = StoredEvent(*row[:7], row[8])
    if not isinstance(event.body, bytes) or _crc(event) != row[7]:
        raise StorageFailedError(f"event {event.seq} is corrupt: its CRC does not fit")
    return event


def _check_extent(connection: sqlite3.Connection, oldest: int, next_seq: int) -> None:
    first, last = connection.execute("SELECT min(seq), max(seq) FROM events").fetchone()
    if last is None:
        first, last = oldest, oldest - 1
    if (first, last) != (oldest, next_seq - 1):
        raise StorageFailedError(f"the log should hold {oldest} to {next_seq - 1}, and holds {first} to {last}")


def _set_meta(connection: sqlite3.Connection, **values: int | str) -> None:
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?,?)", values.items())


def _add_meta(connection: sqlite3.Connection, name: str, amount: int) -> int:
    sql = "INSERT INTO meta VALUES (?1,?2) ON CONFLICT DO UPDATE SET value=value+?2 RETURNING value"
    return int(connection.execute(sql, (name, amount)).fetchall()[0][0])


def _insert_events(connection: sqlite3.Connection, events: list[StoredEvent]) -> None:
    if not events:
        return
    rows = [(e.seq, e.topic, e.subject, e.event_id, e.producer, e.pseq, e.stored_ms, _crc(e), e.body) for e in events]
    connection.executemany(f"INSERT INTO events ({_EVENT_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", rows)  # noqa: S608
    _count_topics(connection, Counter(event.topic for event in events))
    _set_meta(connection, next_seq=events[-1].seq + 1)
    _add_meta(connection, "log_bytes", sum(len(event.body) for event in events))


def _count_topics(connection: sqlite3.Connection, counts: Counter[str]) -> None:
    sql = "INSERT INTO topics VALUES (?1,?2) ON CONFLICT DO UPDATE SET events=events+?2"
    connection.executemany(sql, counts.items())


def _write_producers(connection: sqlite3.Connection, batch: WriteBatch) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO producers VALUES (?,?,?,?)",
        [(name, p.mark, p.last_id, msgspec.json.encode(p.refused)) for name, p in batch.producers.items()],
    )
    connection.executemany("INSERT OR REPLACE INTO kept VALUES (?,?)", batch.kept.items())


def _write_groups(connection: sqlite3.Connection, batch: WriteBatch) -> None:
    connection.executemany("INSERT OR IGNORE INTO acked VALUES (?,?)", batch.acked)
    floors = [(floor, name) for name, floor in batch.floors.items()]
    connection.executemany("UPDATE groups SET floor=? WHERE name=?", floors)
    connection.executemany("DELETE FROM acked WHERE seq<=? AND name=?", floors)
    raised = [(name, seq, attempt) for (name, seq), attempt in batch.attempts.items() if attempt]
    connection.executemany("INSERT OR REPLACE INTO attempts VALUES (?,?,?)", raised)
    forgotten = [key for key, attempt in batch.attempts.items() if not attempt]
    connection.executemany("DELETE FROM attempts WHERE name=? AND seq=?", forgotten)


def _change_letter(connection: sqlite3.Connection, change: LetterPut | LettersReplay | LetterDrop) -> None:
    if isinstance(change, LetterPut):
        letter = change.letter
        row = (letter.group, letter.seq, letter.topic, letter.subject, msgspec.json.encode(letter))
        connection.execute("INSERT OR REPLACE INTO letters VALUES (?,?,?,?,0,?)", row)
    elif isinstance(change, LetterDrop):
        connection.execute("DELETE FROM letters WHERE name=? AND seq=?", (change.group, change.seq))
    else:
        connection.execute("UPDATE letters SET replaying=1 WHERE name=? AND subject=?", (change.group, change.subject))


def _trim(connection: sqlite3.Connection, below: int) -> Trimmed:
    sql = "SELECT topic, count(*), sum(length(body)) FROM events WHERE seq<? GROUP BY topic"
    gone = connection.execute(sql, (below,)).fetchall()
    connection.execute("DELETE FROM events WHERE seq<?", (below,))
    _count_topics(connection, Counter({topic: -count for topic, count, _ in gone}))
    _set_meta(connection, oldest=below)
    log_bytes = _add_meta(connection, "log_bytes", -sum(size for _, _, size in gone))
    return Trimmed(below, log_bytes, dict(connection.execute("SELECT topic, events FROM topics")))


def _read_producers(connection: sqlite3.Connection) -> Iterator[tuple[str, ProducerRecord]]:
    for name, mark, last_id, refused in connection.execute("SELECT * FROM producers"):
        yield name, ProducerRecord(mark, last_id, _refusals.decode(refused))


def _read_group(connection: sqlite3.Connection, name: str, topics: list[str], oldest: int) -> GroupRecord:
    """Letters of events that the log no longer has (their group was not declared for a while) are not replayable."""
    query: Callable[..., sqlite3.Cursor] = connection.execute
    floor = query("SELECT floor FROM groups WHERE name=?", (name,)).fetchone()[0]
    acked = {seq for (seq,) in query("SELECT seq FROM acked WHERE name=? AND seq>?", (name, floor))}
    attempts = dict(query("SELECT seq, attempt FROM attempts WHERE name=?", (name,)))
    sql = "SELECT seq, topic, subject, replaying FROM letters WHERE name=? AND seq>=? ORDER BY seq"
    marks = query(sql, (name, oldest))
    dead = [DeadMark(seq, topic, subject, bool(replaying)) for seq, topic, subject, replaying in marks]
    places = ",".join("?" * len(topics))
    sql = f"SELECT count(*) FROM events WHERE seq>? AND topic IN ({places})"  # noqa: S608 question marks alone
    behind = query(sql, (floor, *topics)).fetchone()[0]
    done = len(acked | {mark.seq for mark in dead if mark.seq > floor})
    return GroupRecord(floor, acked, attempts, dead, behind - done + sum(mark.replaying for mark in dead))


def _sync_directory(directory: Path) -> None:
    """The file's name must survive a power cut too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
