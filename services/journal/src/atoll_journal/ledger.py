"""The witness's own database: what it saw, once, in the order in which it saw it, chained by hashes.

    hash(0) = 32 zero bytes
    hash(n) = SHA-256( hash(n−1) ‖ [position, log, seq, stored_ms] as JSON ‖ LF ‖ the event's bytes )

So a row that is changed, taken out or put in breaks every hash from there on; the head's hash, noted elsewhere, stands
for all of it. The other columns are read from the event's bytes, and `verify` reads them again.

Known is what came from the same place of the log with the same bytes. Nothing else about an event, its id least of all,
keeps it out: what publishers say of themselves is what a witness is there to check.

A batch is one transaction with `synchronous=FULL`: when `store` returns, what it stored has been fsynced.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll_journal.errors import ConfigurationError, LockedError, NoRoomError, StorageError

ROOT = bytes(32)
VIOLATIONS_TOLD_MAX = 100
_FATAL = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN})


@dataclass(frozen=True, slots=True)
class Sighting:
    """One delivery: where in the broker's log, and the event."""

    seq: int
    raw: bytes
    source: str
    id: str
    topic: str
    subject: str

    @classmethod
    def of(cls, seq: int, raw: bytes, fields: dict[str, Any]) -> Sighting:
        """Whatever the envelope holds is kept: a witness does not judge. What is no text is told as its JSON."""
        return cls(seq, raw, *(_text(fields.get(name)) for name in ("source", "id", "type", "subject")))


@dataclass(frozen=True, slots=True)
class Row:
    position: int
    log: str
    seq: int
    stored_ms: int
    source: str
    id: str
    topic: str
    subject: str
    event: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Violation:
    """What should not be: ORDER (a key went backwards), TWICE (one id, two seqs), SEQ (one seq, two events)."""

    kind: str
    seq: int
    subject: str
    text: str


@dataclass(slots=True)
class Stored:
    """What became of a batch: the seqs that were new, those that were known, and what was wrong."""

    new: list[int]
    known: list[int]
    violations: list[Violation]


class Ledger:
    """Writes. One process at a time; `open` it once."""

    def __init__(self, folder: Path, migrations: Path) -> None:
        self.path = folder / "journal.db"
        self._migrations = migrations
        self._lock = -1
        self._db: sqlite3.Connection | None = None
        self._position = 0
        self._hash = ROOT
        self._logs: dict[str, int] = {}
        self.violations = 0

    @property
    def position(self) -> int:
        """How many events there are."""
        return self._position

    def open(self) -> None:
        """Raises LockedError, StorageError, ConfigurationError (its migrations)."""
        self._lock = _lock(self.path)
        try:
            self._db = _connect(self.path)
            _migrate(self._db, self._migrations)
            self._read_head()
        except sqlite3.Error as error:
            raise StorageError(f"{self.path.name}: {error}") from error

    def close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def store(self, log: str, sightings: Sequence[Sighting]) -> Stored:
        """Stores what is new, in one commit that is on the disk when this returns; nothing of it on an exception.

        Raises NoRoomError (nothing was stored; try again later) or StorageError (the database can not be trusted).
        """
        assert self._db is not None, "open it first"
        try:
            self._db.execute("BEGIN IMMEDIATE")
            stored = self._store(self._db, log, sightings)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            if (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in _FATAL:
                raise StorageError(f"{self.path.name}: {error}") from error
            raise NoRoomError(f"{self.path.name}: {error}") from error
        except BaseException:
            self._undo()
            raise
        return stored

    def _undo(self) -> None:
        """Back to what is committed, of which a failed COMMIT may or may not be a part."""
        assert self._db is not None
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
        try:
            self._read_head()
        except sqlite3.Error as error:
            raise StorageError(f"{self.path.name}: {error}") from error

    def _read_head(self) -> None:
        assert self._db is not None
        head = self._db.execute("SELECT position, hash FROM events ORDER BY position DESC LIMIT 1").fetchone()
        self._position, self._hash = head or (0, ROOT)
        self._logs = dict(self._db.execute("SELECT log, number FROM logs").fetchall())
        self.violations = self._db.execute("SELECT count(*) FROM violations").fetchone()[0]

    def _store(self, db: sqlite3.Connection, log: str, sightings: Iterable[Sighting]) -> Stored:
        number = self._log_number(db, log)
        stored = Stored([], [], [])
        for sighting in sightings:
            known = db.execute(
                "SELECT 1 FROM events WHERE log = ? AND seq = ? AND event = ?", (number, sighting.seq, sighting.raw)
            ).fetchone()
            if known is not None:
                stored.known.append(sighting.seq)
                continue
            self._check(db, number, sighting, stored)
            self._append(db, number, log, sighting)
            stored.new.append(sighting.seq)
        for violation in stored.violations:
            self.violations += db.execute(
                "INSERT INTO violations (at_ms, kind, log, seq, subject, text) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                (_now_ms(), violation.kind, number, violation.seq, violation.subject, violation.text),
            ).rowcount
        return stored

    def _check(self, db: sqlite3.Connection, number: int, sighting: Sighting, stored: Stored) -> None:
        """A new event has an id and a seq of its own, behind all that came of its key. It is kept anyway, and told."""
        first = db.execute(
            "SELECT log, seq FROM events WHERE source = ? AND id = ? ORDER BY position LIMIT 1",
            (sighting.source, sighting.id),
        ).fetchone()
        if first is not None and first != (number, sighting.seq):
            where = f"seq {first[1]}" if first[0] == number else f"seq {first[1]} of another log"
            _violation(stored, "TWICE", sighting, f"event {sighting.id} came before as {where}")
        same = db.execute(
            "SELECT id FROM events WHERE log = ? AND seq = ? ORDER BY position LIMIT 1", (number, sighting.seq)
        ).fetchone()
        if same is not None:
            now = "other bytes of it" if same[0] == sighting.id else sighting.id
            _violation(stored, "SEQ", sighting, f"seq {sighting.seq} was event {same[0]} before, now {now}")
            return
        last = db.execute(
            "SELECT max(seq) FROM events WHERE subject = ? AND log = ?", (sighting.subject, number)
        ).fetchone()[0]
        if last is not None and sighting.seq < last:
            _violation(stored, "ORDER", sighting, f"event {sighting.id} came after seq {last} of its key")

    def _append(self, db: sqlite3.Connection, number: int, log: str, sighting: Sighting) -> None:
        position, stored_ms = self._position + 1, _now_ms()
        made = chained(self._hash, position, log, sighting.seq, stored_ms, sighting.raw)
        db.execute(
            "INSERT INTO events (position, log, seq, stored_ms, source, id, topic, subject, event, hash)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (position, number, sighting.seq, stored_ms, sighting.source, sighting.id, sighting.topic,
             sighting.subject, sighting.raw, made),
        )  # fmt: skip
        self._position, self._hash = position, made

    def _log_number(self, db: sqlite3.Connection, log: str) -> int:
        if log not in self._logs:
            db.execute("INSERT INTO logs (log) VALUES (?)", (log,))
            self._logs[log] = db.execute("SELECT number FROM logs WHERE log = ?", (log,)).fetchone()[0]
        return self._logs[log]


def chained(before: bytes, position: int, log: str, seq: int, stored_ms: int, event: bytes) -> bytes:
    """The hash of a row that follows the row with hash `before`."""
    head = json.dumps([position, log, seq, stored_ms], separators=(",", ":"), ensure_ascii=True).encode()
    return hashlib.sha256(before + head + b"\n" + event).digest()


# ---- reading ---------------------------------------------------------------------------------------------------------


class Reader:
    """Reads beside the process that writes. Raises ConfigurationError where there is no journal."""

    def __init__(self, folder: Path) -> None:
        path = folder / "journal.db"
        if not path.is_file():
            raise ConfigurationError(f"{folder}: expected the data directory of a journal, with journal.db in it")
        self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5, isolation_level=None)

    def rows(self, after: int = 0, subject: str | None = None, topic: str | None = None) -> Iterator[Row]:
        """Events behind this position, in order. What is stored while it reads may come too."""
        found = self._db.execute(
            "SELECT position, logs.log, seq, stored_ms, source, id, topic, subject, event, hash"
            " FROM events JOIN logs ON logs.number = events.log"
            " WHERE position > ?1 AND (?2 IS NULL OR subject = ?2) AND (?3 IS NULL OR topic = ?3) ORDER BY position",
            (after, subject, topic),
        )
        for row in found:
            yield Row(*row)

    def violations(self) -> list[tuple[int, Violation]]:
        """The first ones, each with the Unix milliseconds of its sighting."""
        found = self._db.execute(
            "SELECT at_ms, kind, seq, subject, text FROM violations ORDER BY number LIMIT ?", (VIOLATIONS_TOLD_MAX,)
        )
        return [(row[0], Violation(*row[1:])) for row in found]

    def close(self) -> None:
        self._db.close()


# ---- helpers ---------------------------------------------------------------------------------------------------------


def _violation(stored: Stored, kind: str, sighting: Sighting, text: str) -> None:
    stored.violations.append(Violation(kind, sighting.seq, sighting.subject, text))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", errors="replace").decode()  # a lone surrogate has no bytes


def _lock(path: Path) -> int:
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise LockedError(f"{path.name} is open in another process: stop that one first") from None
    return descriptor


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, cached_statements=64)
    path.chmod(0o600)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA busy_timeout = 2000")
    _empty_log(db)
    return db


def _empty_log(db: sqlite3.Connection) -> None:
    """Writes, and flushes, anew what lies in the write-ahead log.

    After a failed fsync the kernel may show bytes that never reached the disk, and call the next fsync a success: what
    is stored behind such bytes would be lost with them when the power goes.
    """
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:  # without room it stays as it is
            raise


def _migrate(db: sqlite3.Connection, folder: Path) -> None:
    """Applies the numbered files that are new, each in one transaction. Their number is `user_version`."""
    files = sorted(folder.glob("[0-9][0-9][0-9][0-9]-*.sql"))
    if not files:
        raise ConfigurationError(f"{folder}: expected migrations such as 0001-journal.sql")
    done = db.execute("PRAGMA user_version").fetchone()[0]
    if done > len(files):
        raise ConfigurationError(
            f"{folder}: the database is at migration {done}, there are {len(files)}: an older journal?"
        )
    for number, file in enumerate(files[done:], start=done + 1):
        if int(file.name[:4]) != number:
            raise ConfigurationError(f"{file.name}: expected number {number:04d}")
        db.executescript(
            f"BEGIN IMMEDIATE;\n{file.read_text(encoding='utf-8')}\nPRAGMA user_version = {number};\nCOMMIT;"
        )
