"""The log in SQLite: WAL, synchronous=FULL, one row an event with a CRC, one transaction a group commit.

FULL because NORMAL lost every committed row in a power cut (measured), so an ack over it would be a lie. BEGIN
IMMEDIATE because a deferred transaction that turns to writing fails at once when another writes. The checkpoint is
done by hand after a commit was reported, so that nobody's PUBACK waits for it.

Damage is loud: each row has a CRC, that of an event checked when it is read, those of the cursors at boot (`seals`); a
tail that SQLite drops is noticed by the file beside the database (`watermark`).

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
from typing import Any, Final, Literal

import msgspec

from .commands import Refusal
from .errors import StorageFailedError, StorageFullError, StorageLockedError
from .seals import SEALED, Value, add_columns, register, row_crc, schema_crc, verify
from .storage import (
    DeadLetter,
    DeadMark,
    Gap,
    GroupRecord,
    Lease,
    LetterDrop,
    LetterPut,
    LettersReplay,
    Place,
    ProducerRecord,
    Recovered,
    Step,
    StoredEvent,
    Trimmed,
    WriteBatch,
    gap_of_retention,
)
from .watermark import Extent, Watermark

APPLICATION_ID: Final = 0x41746F6C  # "Atol": another program's database is not touched
SCHEMA_VERSION: Final = 3
CHECKPOINT_BYTES: Final = 16_777_216
ROW_BYTES: Final = 256  # what a row costs in the write-ahead log besides its body, roughly
READ_ROWS_MAX: Final = 1024
FULL_BYTES: Final = 65_536  # less room than this is none: what SQLite's index of the write-ahead log grows by, twice
STEPS_KEPT: Final = 100_000  # of failures; a consumer in a crash loop must not fill the disk with its history

SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
  seq INTEGER PRIMARY KEY, topic TEXT NOT NULL, subject TEXT NOT NULL, event_id TEXT NOT NULL, producer TEXT NOT NULL,
  pseq INTEGER NOT NULL, stored_ms INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE topics (topic TEXT PRIMARY KEY, events INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE producers (producer TEXT PRIMARY KEY, mark INTEGER NOT NULL, last_id TEXT, refused BLOB NOT NULL);
CREATE TABLE groups (name TEXT PRIMARY KEY, floor INTEGER NOT NULL, detached INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE acked (name TEXT, seq INTEGER, PRIMARY KEY (name, seq)) WITHOUT ROWID;
CREATE TABLE attempts (name TEXT, seq INTEGER, attempt INTEGER NOT NULL, PRIMARY KEY (name, seq)) WITHOUT ROWID;
CREATE TABLE letters (
  name TEXT, seq INTEGER, topic TEXT NOT NULL, subject TEXT NOT NULL, replaying INTEGER NOT NULL, letter BLOB NOT NULL,
  PRIMARY KEY (name, seq)
) WITHOUT ROWID;
CREATE INDEX letters_by_key ON letters (name, subject);
CREATE TABLE kept (kind TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
# What version 2 has and version 1 had not.
SCHEMA_ADDED: Final = """
CREATE TABLE leases (
  name TEXT, seq INTEGER, slot TEXT NOT NULL, fence INTEGER NOT NULL, PRIMARY KEY (name, seq)
) WITHOUT ROWID;
CREATE TABLE gaps (
  name TEXT, first INTEGER, last INTEGER NOT NULL, why TEXT NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (name, first)
) WITHOUT ROWID;
CREATE TABLE steps (
  id INTEGER PRIMARY KEY, n INTEGER NOT NULL, seq INTEGER NOT NULL, name TEXT NOT NULL, at_ms INTEGER NOT NULL,
  what TEXT NOT NULL, attempt INTEGER NOT NULL, slot TEXT NOT NULL, fence INTEGER NOT NULL, text TEXT NOT NULL
);
CREATE INDEX steps_by_event ON steps (seq);
"""
# Version 3: a seal in each row (`seals.add_columns`).
UPGRADE_FROM_1: Final = "ALTER TABLE groups ADD COLUMN detached INTEGER NOT NULL DEFAULT 0;" + SCHEMA_ADDED
_EVENT_COLUMNS: Final = "seq, topic, subject, event_id, producer, pseq, stored_ms, crc, body"
_PUT: Final = {
    table: f"INSERT OR REPLACE INTO {table} ({','.join(columns)},crc) VALUES ({'?,' * len(columns)}?)"  # noqa: S608
    for table, columns in SEALED.items()
}
_refusals: Final = msgspec.json.Decoder(list[Refusal])
_letter: Final = msgspec.json.Decoder(DeadLetter)


@contextlib.contextmanager
def _failing_loudly(what: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeError, msgspec.MsgspecError) as error:
        raise StorageFailedError(f"{what}: {error}") from error


class SqliteStorage:
    """One data directory, held by a lock for as long as this object is open."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "broker.sqlite"
        self._lock: int | None = None
        self._watermark = Watermark(directory / "broker.watermark")
        self._extent = Extent("", 0, 1)
        self._log_bytes = 0
        self._written = 0  # bytes, about, since the last checkpoint
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._searcher: sqlite3.Connection | None = None

    def open(self, groups: dict[str, tuple[list[str], Literal["earliest", "latest"]]], at_ms: int) -> Recovered:
        """Raises StorageLockedError if another broker holds the directory, or the database is not a broker's."""
        try:
            with _failing_loudly(f"can not open {self._path.name}"):
                return self._open(groups, at_ms)
        except BaseException:
            self.close()
            raise

    def _open(self, groups: dict[str, tuple[list[str], Literal["earliest", "latest"]]], at_ms: int) -> Recovered:
        self._make_directory()
        self._take_lock()
        version = self._inspect()
        self._written = _size(self._beside("-wal"))  # a crash leaves it as long as it was
        self._writer = self._connect()
        self._prepare(self._writer, version)
        self._reader, self._searcher = self._connect(), self._connect()
        self._reader.execute("PRAGMA query_only=ON")
        self._searcher.execute("PRAGMA query_only=ON")
        return self._recover(self._writer, groups, at_ms)

    def commit(self, batch: WriteBatch) -> Trimmed | None:
        connection = self._open_writer()
        with _failing_loudly("commit failed"):
            try:
                trimmed = self._write(connection, batch)
            except sqlite3.OperationalError as error:
                if not self._is_full(error):
                    raise
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise StorageFullError(f"the disk is full: {error}") from None
            self._watermark.raise_to(self._extent)
        rows = len(batch.events) + len(batch.acked) + len(batch.attempts) + len(batch.letters) + len(batch.leases)
        self._written += rows * ROW_BYTES + sum(len(event.body) for event in batch.events)
        return trimmed

    @property
    def checkpoint_due(self) -> bool:
        return self._written > CHECKPOINT_BYTES or self._watermark.flush_due

    def checkpoint(self) -> None:
        """Moves a long write-ahead log into the database, so that it is written from its start again; and flushes the
        watermark. A disk without room for that keeps the write-ahead log as it is, and later it is tried again."""
        with _failing_loudly("checkpoint failed"):
            if self._written > CHECKPOINT_BYTES:
                self._written = 0 if self._empty_wal("PASSIVE") else CHECKPOINT_BYTES // 2
            self._watermark.flush()

    def _empty_wal(self, how: Literal["PASSIVE", "TRUNCATE"]) -> bool:
        try:
            self._open_writer().execute(f"PRAGMA wal_checkpoint({how})").fetchall()
        except sqlite3.OperationalError as error:
            if not self._is_full(error):
                raise
            return False
        return True

    def _is_full(self, error: sqlite3.OperationalError) -> bool:
        """SQLite has a code of its own for a full disk, but not where the index of its write-ahead log must grow."""
        if error.sqlite_errorcode == sqlite3.SQLITE_IOERR_SHMSIZE:
            room = os.statvfs(self._directory)
            return room.f_bavail * room.f_frsize < FULL_BYTES
        return error.sqlite_errorcode == sqlite3.SQLITE_FULL

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

    def dead_letters(self, group: str, subject: str | None, after: int, limit: int) -> list[DeadLetter]:
        of_subject = "" if subject is None else " AND subject=?4"
        which = f"name=?1 AND seq>?2 AND replaying=0{of_subject}"
        sql = f"SELECT {_all_of('letters')} FROM letters WHERE {which} ORDER BY seq LIMIT ?3"  # noqa: S608 constants
        values = (group, after, limit) if subject is None else (group, after, limit, subject)
        with _failing_loudly("read failed"):
            rows = self._open_reader().execute(sql, values).fetchall()
            return [_letter.decode(_unsealed("letters", row)[-1]) for row in rows]

    def find(self, event_id: str) -> StoredEvent | None:
        """Reads the log from its end: an index over ids at random would cost every commit more than this costs."""
        sql = f"SELECT {_EVENT_COLUMNS} FROM events WHERE event_id=? ORDER BY seq DESC LIMIT 1"  # noqa: S608 constant
        with _failing_loudly("search failed"):
            row = self._open_searcher().execute(sql, (event_id,)).fetchone()
            return None if row is None else _checked(row)

    def steps(self, seq: int) -> list[Step]:
        sql = f"SELECT {_all_of('steps')} FROM steps WHERE seq=? ORDER BY id"  # noqa: S608 constants
        with _failing_loudly("search failed"):
            return [Step(*_unsealed("steps", row)) for row in self._open_searcher().execute(sql, (seq,))]

    def select(self, topics: list[str], first: int, last: int, subject: str | None) -> list[Place]:
        """Rows are read whole: a damaged topic or subject must not hide an event from a replay."""
        sql = f"SELECT {_EVENT_COLUMNS} FROM events WHERE seq BETWEEN ? AND ? ORDER BY seq"  # noqa: S608 constant
        wanted = set(topics)
        found: list[Place] = []
        with _failing_loudly("search failed"):
            for row in self._open_searcher().execute(sql, (first, last)):
                event = _checked(row)
                if event.topic in wanted and subject in (None, event.subject):
                    found.append(Place(event.seq, event.topic, event.subject, event.event_id))
        return found

    def close(self) -> None:
        for connection in (self._searcher, self._reader, self._writer):
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
        self._searcher = self._reader = self._writer = None
        self._watermark.close()
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
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5)
        register(connection)
        return connection

    def _make_directory(self) -> None:
        if not self._directory.exists():
            self._directory.mkdir(mode=0o700, parents=True)
            _sync_directory(self._directory.parent)

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(self._path.name + suffix)

    def _inspect(self) -> int:
        """The version of the database, once it is known to be ours and whole; 0: there is none yet.

        Read-only, because the last writer to close moves the write-ahead log into the database and removes it, and of
        a log that is refused every byte shall stay. (A database that was cut off before it was made has a rollback
        journal, which only a writer can play back.)
        """
        if not _size(self._path):
            self._watermark.compare(None)
            return 0
        mode = "rw" if self._beside("-journal").exists() else "ro"
        address = f"{self._path.absolute().as_uri()}?mode={mode}"
        with contextlib.closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
            register(connection)
            version = self._identify(connection)
            if version == SCHEMA_VERSION:
                self._verify(connection)
            return version

    def _identify(self, connection: sqlite3.Connection) -> int:
        """Nothing is written into a database that is not ours."""
        found = connection.execute("PRAGMA application_id").fetchone()[0]
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables:
            self._watermark.compare(None)
            return 0
        if found != APPLICATION_ID or version not in range(1, SCHEMA_VERSION + 1):
            raise StorageLockedError(f"{self._path.name} is not a broker's database of version {SCHEMA_VERSION}")
        return version

    def _verify(self, connection: sqlite3.Connection) -> None:
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        verify(connection, meta.get("schema"))
        self._watermark.compare(_extent_of(meta) if "boot" in meta else None)
        _check_extent(connection, meta.get("oldest", 1), meta.get("next_seq", 1))

    def _prepare(self, connection: sqlite3.Connection, version: int) -> None:
        """Make or upgrade it, and empty its write-ahead log.

        That is more than tidiness. After a failed fsync the kernel may show bytes that never reached the disk, and call
        the next fsync a success: a log that went on behind such bytes would lose what it acknowledges from then on.
        What is checkpointed is written anew.
        """
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        self._written = 0 if self._empty_wal("TRUNCATE") else self._written
        if not version:
            connection.execute("BEGIN IMMEDIATE")
            _run_script(connection, SCHEMA + SCHEMA_ADDED)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            _seal_all(connection)
            self._path.chmod(0o600)
            _sync_directory(self._directory)
        elif version < SCHEMA_VERSION:
            connection.execute("BEGIN IMMEDIATE")
            _run_script(connection, UPGRADE_FROM_1 if version == 1 else "")
            _seal_all(connection)

    def _recover(
        self,
        connection: sqlite3.Connection,
        groups: dict[str, tuple[list[str], Literal["earliest", "latest"]]],
        at_ms: int,
    ) -> Recovered:
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        self._extent = _extent_of(meta)
        self._log_bytes = meta.get("log_bytes", 0)
        boot, log_id, next_seq = meta.get("boot", 0) + 1, self._extent.log_id, self._extent.next_seq
        oldest = meta.get("oldest", 1)
        self._watermark.open()
        connection.execute("BEGIN IMMEDIATE")
        _set_meta(connection, boot=boot, log_id=log_id, oldest=oldest, next_seq=next_seq)
        for name, (_, first) in groups.items():
            _declare_group(connection, name, oldest - 1 if first == "earliest" else next_seq - 1, oldest, at_ms)
        self._count_commit(connection, next_seq, self._log_bytes)
        self._watermark.raise_to(self._extent)
        self._watermark.flush()
        _sync_directory(self._directory)
        return Recovered(
            boot=boot,
            log_id=log_id,
            oldest=oldest,
            next_seq=next_seq,
            log_bytes=self._log_bytes,
            topics=dict(connection.execute("SELECT topic, events FROM topics")),
            producers=dict(_read_producers(connection)),
            groups={name: _read_group(connection, name, topics, oldest) for name, (topics, _) in groups.items()},
            kept=dict(connection.execute("SELECT kind, value FROM kept")),
        )

    def _write(self, connection: sqlite3.Connection, batch: WriteBatch) -> Trimmed | None:
        """The whole batch as one transaction; on disk when this returns."""
        connection.execute("BEGIN IMMEDIATE")
        log_bytes = self._log_bytes + _insert_events(connection, batch.events)
        _write_producers(connection, batch)
        _write_groups(connection, batch)
        _write_steps(connection, batch.steps)
        for change in batch.letters:
            _change_letter(connection, change)
        trimmed = None
        if batch.trim_below is not None:
            trimmed = _trim(connection, batch.trim_below, log_bytes)
            log_bytes = trimmed.log_bytes
        next_seq = batch.events[-1].seq + 1 if batch.events else self._extent.next_seq
        self._count_commit(connection, next_seq, log_bytes)
        return trimmed

    def _count_commit(self, connection: sqlite3.Connection, next_seq: int, log_bytes: int) -> None:
        """COMMIT, with what the next one builds on. Without one, nothing of it is remembered."""
        extent = Extent(self._extent.log_id, self._extent.commits + 1, next_seq)
        _set_meta(connection, commits=extent.commits, next_seq=next_seq, log_bytes=log_bytes)
        connection.execute("COMMIT")
        self._extent, self._log_bytes = extent, log_bytes

    def _open_writer(self) -> sqlite3.Connection:
        assert self._writer is not None, "the storage is not open"
        return self._writer

    def _open_reader(self) -> sqlite3.Connection:
        assert self._reader is not None, "the storage is not open"
        return self._reader

    def _open_searcher(self) -> sqlite3.Connection:
        assert self._searcher is not None, "the storage is not open"
        return self._searcher


def _declare_group(connection: sqlite3.Connection, name: str, start: int, oldest: int, at_ms: int) -> None:
    """A new group starts where it was told to; one whose floor the log no longer reaches gets the gap."""
    found = connection.execute("SELECT floor, detached FROM groups WHERE name=?", (name,)).fetchone()
    if found is None:
        _put(connection, "groups", [(name, max(start, oldest - 1), 0)])
    elif found[0] < oldest - 1:
        _write_gap(connection, name, gap_of_retention(found[0], oldest, at_ms, detached=bool(found[1])))
        _put(connection, "groups", [(name, oldest - 1, found[1])])


def _write_gap(connection: sqlite3.Connection, name: str, gap: Gap) -> None:
    _put(connection, "gaps", [(name, gap.first, gap.last, gap.why, gap.at_ms)])


def _put(connection: sqlite3.Connection, table: str, rows: list[tuple[Value, ...]]) -> None:
    """Rows with their seals, over those that had the same key."""
    connection.executemany(_PUT[table], [(*row, row_crc(*row)) for row in rows])


def _all_of(table: str) -> str:
    return ",".join((*SEALED[table], "crc"))


def _unsealed(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row without its seal, if that fits."""
    if row_crc(*row[:-1]) != row[-1]:
        raise StorageFailedError(f"a row of {table} is corrupt: its CRC does not fit")
    return row[:-1]


def _run_script(connection: sqlite3.Connection, script: str) -> None:
    """Within the caller's transaction, which `executescript` would commit first."""
    for statement in script.split(";"):
        connection.execute(statement)


def _seal_all(connection: sqlite3.Connection) -> None:
    """The last step of making or upgrading a database, and its commit."""
    add_columns(connection)
    _set_meta(connection, schema=schema_crc(connection))
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    connection.execute("COMMIT")


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


def _extent_of(meta: dict[str, Any]) -> Extent:
    return Extent(meta.get("log_id") or secrets.token_hex(8), meta.get("commits", 0), meta.get("next_seq", 1))


def _check_extent(connection: sqlite3.Connection, oldest: int, next_seq: int) -> None:
    first, last = connection.execute("SELECT min(seq), max(seq) FROM events").fetchone()
    if last is None:
        first, last = oldest, oldest - 1
    if (first, last) != (oldest, next_seq - 1):
        raise StorageFailedError(f"the log should hold {oldest} to {next_seq - 1}, and holds {first} to {last}")
    counted = connection.execute("SELECT coalesce(sum(events), 0) FROM topics").fetchone()[0]
    if counted != next_seq - oldest:
        raise StorageFailedError(f"topics is corrupt: it counts {counted} events, the log holds {next_seq - oldest}")


def _set_meta(connection: sqlite3.Connection, **values: int | str) -> None:
    _put(connection, "meta", list(values.items()))


def _insert_events(connection: sqlite3.Connection, events: list[StoredEvent]) -> int:
    """How many bytes the log grew by."""
    if not events:
        return 0
    rows = [(e.seq, e.topic, e.subject, e.event_id, e.producer, e.pseq, e.stored_ms, _crc(e), e.body) for e in events]
    connection.executemany(f"INSERT INTO events ({_EVENT_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", rows)  # noqa: S608
    _count_topics(connection, Counter(event.topic for event in events))
    return sum(len(event.body) for event in events)


def _count_topics(connection: sqlite3.Connection, counts: Counter[str]) -> None:
    sql = "INSERT INTO topics VALUES (?1,?2) ON CONFLICT DO UPDATE SET events=events+?2"
    connection.executemany(sql, counts.items())


def _write_producers(connection: sqlite3.Connection, batch: WriteBatch) -> None:
    producers = [(name, p.mark, p.last_id, msgspec.json.encode(p.refused)) for name, p in batch.producers.items()]
    _put(connection, "producers", list(producers))
    _put(connection, "kept", list(batch.kept.items()))


def _write_groups(connection: sqlite3.Connection, batch: WriteBatch) -> None:
    _put(connection, "acked", list(batch.acked))
    floors = [(floor, name) for name, floor in batch.floors.items()]
    connection.executemany("UPDATE groups SET floor=?1, crc=row_crc(name, ?1, detached) WHERE name=?2", floors)
    connection.executemany("DELETE FROM acked WHERE seq<=? AND name=?", floors)
    raised = [(name, seq, attempt) for (name, seq), attempt in batch.attempts.items() if attempt]
    _put(connection, "attempts", list(raised))
    forgotten = [key for key, attempt in batch.attempts.items() if not attempt]
    connection.executemany("DELETE FROM attempts WHERE name=? AND seq=?", forgotten)
    connection.executemany("DELETE FROM leases WHERE name=? AND seq=?", list(batch.leases))
    held = [(name, seq, lease.slot, lease.fence) for (name, seq), lease in batch.leases.items() if lease is not None]
    _put(connection, "leases", list(held))
    for name, gap in batch.gaps:
        _write_gap(connection, name, gap)
    detached = [(detached, name) for name, detached in batch.detached.items()]
    connection.executemany("UPDATE groups SET detached=?1, crc=row_crc(name, floor, ?1) WHERE name=?2", detached)


def _write_steps(connection: sqlite3.Connection, steps: list[Step]) -> None:
    if not steps:
        return
    _put(
        connection, "steps", [(s.n, s.seq, s.group, s.at_ms, s.what, s.attempt, s.slot, s.fence, s.text) for s in steps]
    )
    connection.execute("DELETE FROM steps WHERE id <= (SELECT max(id) FROM steps) - ?", (STEPS_KEPT,))


def _change_letter(connection: sqlite3.Connection, change: LetterPut | LettersReplay | LetterDrop) -> None:
    if isinstance(change, LetterPut):
        letter = change.letter
        place = (letter.group, letter.seq, letter.topic, letter.subject, int(change.replaying))
        _put(connection, "letters", [(*place, msgspec.json.encode(letter))])
    elif isinstance(change, LetterDrop):
        connection.execute("DELETE FROM letters WHERE name=? AND seq=?", (change.group, change.seq))
    else:
        released = [(change.group, seq) for seq in change.seqs]
        sealed = "row_crc(name, seq, topic, subject, 1, letter)"
        connection.executemany(f"UPDATE letters SET replaying=1, crc={sealed} WHERE name=? AND seq=?", released)  # noqa: S608 constant


def _trim(connection: sqlite3.Connection, below: int, log_bytes: int) -> Trimmed:
    sql = "SELECT topic, count(*), sum(length(body)) FROM events WHERE seq<? GROUP BY topic"
    gone = connection.execute(sql, (below,)).fetchall()
    connection.execute("DELETE FROM events WHERE seq<?", (below,))
    connection.execute("DELETE FROM steps WHERE seq<?", (below,))
    # Held letters hold the log: these are of groups that are detached or not declared, and could not be replayed.
    connection.execute("DELETE FROM letters WHERE seq<?", (below,))
    _count_topics(connection, Counter({topic: -count for topic, count, _ in gone}))
    _set_meta(connection, oldest=below)
    log_bytes -= sum(size for _, _, size in gone)
    return Trimmed(below, log_bytes, dict(connection.execute("SELECT topic, events FROM topics")))


def _read_producers(connection: sqlite3.Connection) -> Iterator[tuple[str, ProducerRecord]]:
    for name, mark, last_id, refused in connection.execute("SELECT producer, mark, last_id, refused FROM producers"):
        yield name, ProducerRecord(mark, last_id, _refusals.decode(refused))


def _read_group(connection: sqlite3.Connection, name: str, topics: list[str], oldest: int) -> GroupRecord:
    """Letters of events that the log no longer has (their group was not declared for a while) are not replayable."""
    query: Callable[..., sqlite3.Cursor] = connection.execute
    floor, detached = query("SELECT floor, detached FROM groups WHERE name=?", (name,)).fetchone()
    acked = {seq for (seq,) in query("SELECT seq FROM acked WHERE name=? AND seq>?", (name, floor))}
    attempts = dict(query("SELECT seq, attempt FROM attempts WHERE name=?", (name,)))
    sql = "SELECT seq, topic, subject, replaying FROM letters WHERE name=? AND seq>=? ORDER BY seq"
    marks = query(sql, (name, oldest))
    dead = [DeadMark(seq, topic, subject, bool(replaying)) for seq, topic, subject, replaying in marks]
    places = ",".join("?" * len(topics))
    sql = f"SELECT count(*) FROM events WHERE seq>? AND topic IN ({places})"  # noqa: S608 question marks alone
    behind = query(sql, (floor, *topics)).fetchone()[0]
    done = len(acked | {mark.seq for mark in dead if mark.seq > floor})
    held = query("SELECT seq, slot, fence FROM leases WHERE name=?", (name,))
    leases = {seq: Lease(slot, fence) for seq, slot, fence in held}
    gaps = [Gap(*row) for row in query("SELECT first, last, why, at_ms FROM gaps WHERE name=? ORDER BY first", (name,))]
    waiting = behind - done + sum(mark.replaying for mark in dead)
    return GroupRecord(floor, acked, attempts, dead, waiting, leases, gaps, bool(detached))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sync_directory(directory: Path) -> None:
    """The file's name must survive a power cut too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
