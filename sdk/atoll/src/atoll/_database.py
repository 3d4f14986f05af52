"""One SQLite file, one thread that writes it, one that reads it.

SQLite has one writer at a time whatever one does, so the writer is a thread with a queue: no lock waits, no BUSY, and
works that arrive together share one commit (*group commit*). On a disk where a commit costs 1 ms that is the difference
between 1,000 and tens of thousands of writes a second.

    BEGIN IMMEDIATE
      SAVEPOINT work   first work …    RELEASE            a work that raises rolls back its own savepoint alone
      SAVEPOINT work   second work …   RELEASE
      number the appended events from the counter row, insert them into the outbox     the last step: no gaps
    COMMIT                                                                             WAL + synchronous=FULL: fsynced
    … only now are results handed out

Nobody sees a result before the COMMIT that holds it has returned; if that fails, or a statement finds the disk full or
the file damaged, every work of the group fails. An I/O error or corruption seals the database: after a failed fsync
nobody knows what the file holds, so no further write is tried and the process should end (exit code 74) and start again
from what is on the disk.

Two processes never open one database: an flock'ed file beside it sees to that. Not a lock on the database itself, since
closing any descriptor of that file would drop SQLite's own locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import fcntl
import os
import queue
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import msgspec
import structlog

from . import _migrations, _outbox, _schema
from ._errors import AtollError, DatabaseLockedError, OverloadedError, StorageError

T = TypeVar("T")
_log = structlog.get_logger("atoll.database")

WORKS_QUEUED_MAX = 4096
"""Writes that may wait for the writer thread; more are refused with OverloadedError."""
READS_QUEUED_MAX = 4096
"""The same for the reader thread."""
GROUP_WORKS_MAX = 256
"""Works in one commit: enough that fsync no longer dominates, small enough that nobody waits long for a neighbour."""
CLOSE_SECONDS = 1.0
"""For the threads to end. One that hangs in a work is left behind: it dies with the process, and commits nothing."""
_PAGES_BEFORE_CHECKPOINT = 4000
"""16 MB of WAL. The default of 1,000 pages checkpoints four times as often, each time on the commit path."""
# Error codes after which SQLite's own state is in doubt; a full disk is not among them: it can be freed.
_FATAL_CODES = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN})


class Reader:
    """Reads within one work. Valid until the work returns."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: sqlite3.Connection | None = connection

    def one(self, sql: str, *params: object) -> sqlite3.Row | None:
        """The first row, or None."""
        return cast("sqlite3.Row | None", self._use().execute(sql, params).fetchone())

    def all(self, sql: str, *params: object) -> list[sqlite3.Row]:
        """All rows. Put a LIMIT into the statement: the list is in memory."""
        return self._use().execute(sql, params).fetchall()

    def _use(self) -> sqlite3.Connection:
        if self._connection is None:
            raise AtollError("this transaction is over: use it only inside the work that it was given to")
        return self._connection

    def _end(self) -> None:
        self._connection = None


class Transaction(Reader):
    """Reads, writes and publishes within one work; all of it is committed, or nothing."""

    def __init__(self, connection: sqlite3.Connection, publisher: _outbox.Publisher) -> None:
        super().__init__(connection)
        self._publisher = publisher
        self._appended: list[_outbox.Appended] = []

    def execute(self, sql: str, *params: object) -> int:
        """Runs one statement and returns the number of rows it changed."""
        return self._use().execute(sql, params).rowcount

    def publish(self, topic: str, subject: str, data: msgspec.Struct) -> str:
        """Appends an event to the outbox in this transaction and returns its id.

        It is sent after the commit, in the order of commits, and reaches every group at least once.
        `subject` is the ordering key, 1…256 characters. The trace context is taken here and never changes.
        Raises UndeclaredTopicError, EventTooLargeError or ValueError; nothing is appended then.
        """
        self._use()
        appended = self._publisher.event(topic, subject, data)
        self._appended.append(appended)
        return appended.id


def connection_of(reader: Reader) -> sqlite3.Connection:
    """The connection under a transaction, for this library's own tables; raises AtollError once it is over."""
    return reader._use()


class Outcome(NamedTuple):
    """What became of one work: its value, or its error."""

    value: Any
    error: Exception | None


Work = Callable[[Transaction], Any]


class _Job(NamedTuple):
    works: Sequence[Work]
    context: contextvars.Context
    """The caller's: the span that an event is published under is the request's, though another thread runs the work."""
    done: Callable[[list[Outcome]], None]


class Database:
    """A service's own database. Open it once, in the process that owns it; `web.attach` does so for you."""

    def __init__(self, path: Path, migrations: Path) -> None:
        self.path = path
        self._migrations = migrations
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._reads: queue.SimpleQueue[Callable[[sqlite3.Connection], None] | None] = queue.SimpleQueue()
        self._queued = 0
        self._threads: list[threading.Thread] = []
        self._lock_fd: int | None = None
        self._failure: StorageError | None = None
        self._open = False
        self.publisher = _outbox.Publisher()
        self.on_commit: Callable[[], None] | None = None
        """Called on the loop after a commit that appended events: the relay's bell."""
        self.on_failure: Callable[[StorageError], None] | None = None
        """Called on the loop when the database seals itself."""

    @property
    def failure(self) -> StorageError | None:
        """Why no write is taken any more, once the disk has failed."""
        return self._failure

    async def open(self) -> None:
        """Locks, migrates and opens the database, making it if it is missing. Opening it twice does nothing.

        Raises DatabaseLockedError, MigrationError (naming the file) or StorageError.
        """
        if self._open:
            return
        loop = asyncio.get_running_loop()
        writer, reader = await asyncio.to_thread(self._prepare)
        self._threads = [
            threading.Thread(target=self._write_loop, args=(writer, loop), name=f"write {self.path.name}", daemon=True),
            threading.Thread(target=self._read_loop, args=(reader,), name=f"read {self.path.name}", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self._open = True

    async def close(self) -> None:
        """Finishes what is queued, for at most CLOSE_SECONDS, then closes. What comes later is refused.

        Closing twice does nothing. A database with a work that hangs stays locked until the process has ended.
        """
        if not self._open:
            return
        self._open = False
        self._jobs.put(None)
        self._reads.put(None)
        await asyncio.to_thread(self._join)
        if any(thread.is_alive() for thread in self._threads):
            _log.error("a work hangs and was left behind", database=self.path.name)
            return
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def _join(self) -> None:
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Runs `work` on the writer thread and returns its value once it is committed and fsynced.

        `work` is synchronous and should touch nothing but its transaction. An exception in it undoes it and is raised
        here. Raises OverloadedError (nothing was done) or StorageError (undone or unknown).
        """
        value, error = (await self.write_each([work]))[0]
        if error is not None:
            raise error
        return cast("T", value)

    async def write_each(self, works: Sequence[Work]) -> list[Outcome]:
        """Runs the works in order within one commit, each undone alone if it raises; one outcome a work."""
        if not self._open:
            raise AtollError(f"{self.path.name} is not open")
        if self._queued + len(works) > WORKS_QUEUED_MAX:
            raise OverloadedError(f"{self._queued} writes wait already")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Outcome]] = loop.create_future()
        self._queued += len(works)

        def done(outcomes: list[Outcome]) -> None:
            self._queued -= len(works)
            if not future.done():
                future.set_result(outcomes)

        self._jobs.put(_Job(works, contextvars.copy_context(), done))
        return await future

    async def read(self, work: Callable[[Reader], T]) -> T:
        """Runs `work` on the reader thread over one consistent snapshot of what is committed.

        Raises what the work raises, or OverloadedError.
        """
        if not self._open:
            raise AtollError(f"{self.path.name} is not open")
        if self._reads.qsize() >= READS_QUEUED_MAX:
            raise OverloadedError(f"{READS_QUEUED_MAX} reads wait already")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run(connection: sqlite3.Connection) -> None:
            try:
                value = _snapshot(connection, work)
            except BaseException as error:  # as for works: a SystemExit must not end the reader thread
                told = error if isinstance(error, Exception) else AtollError(f"the work raised {error!r}")
                loop.call_soon_threadsafe(_set_error, future, told)
            else:
                loop.call_soon_threadsafe(_set_value, future, value)

        self._reads.put(run)
        return await future

    # ---- opening -----------------------------------------------------------------------------------------------

    def _prepare(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd = _lock(self.path)
        try:
            writer = self._open_writer()
            return writer, _connect(self.path, read_only=True)
        except sqlite3.DatabaseError as error:
            self._unlock()
            raise StorageError(f"{self.path.name}: {error}") from error
        except BaseException:
            self._unlock()
            raise

    def _unlock(self) -> None:
        assert self._lock_fd is not None
        os.close(self._lock_fd)
        self._lock_fd = None

    def _open_writer(self) -> sqlite3.Connection:
        connection = _connect(self.path, read_only=False)
        try:
            own = [_migrations.Migration(*step) for step in _schema.MIGRATIONS]
            _migrations.migrate(connection, "atoll", own)
            _migrations.migrate(connection, "service", _migrations.read_folder(self._migrations))
            connection.execute(
                "INSERT INTO atoll_producer VALUES (1, ?, NULL, 1, 0, NULL, NULL) ON CONFLICT DO NOTHING",
                (str(uuid.uuid4()),),
            )
        except BaseException:
            connection.close()
            raise
        return connection

    # ---- the writer thread -------------------------------------------------------------------------------------

    def _write_loop(self, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        running = True
        while running:
            jobs, running = self._take_jobs()
            if not jobs:
                continue
            works = [_bound(job.context, work) for job in jobs for work in job.works]
            outcomes, appended = self._run_group(connection, works)
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits for the results any more
                loop.call_soon_threadsafe(self._hand_out, jobs, outcomes, appended)
        connection.close()

    def _take_jobs(self) -> tuple[list[_Job], bool]:
        """Waits for a job, then takes what else is queued, up to one group. False once the queue is closed."""
        jobs: list[_Job] = []
        works = 0
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            works += len(job.works)
            if works >= GROUP_WORKS_MAX:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _run_group(self, connection: sqlite3.Connection, works: list[Work]) -> tuple[list[Outcome], bool]:
        """Runs one commit. Returns an outcome for each work, and whether events were appended."""
        if self._failure is not None:
            return [Outcome(None, self._failure)] * len(works), False
        outcomes: list[Outcome] = []
        appended: list[_outbox.Appended] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for work in works:
                outcomes.append(self._run_work(connection, work, appended))
            _outbox.append(connection, appended)
            connection.execute("COMMIT")
        except BaseException as error:
            failure = self._group_failed(connection, error)
            return [Outcome(None, failure)] * len(works), False
        return outcomes, bool(appended)

    def _run_work(self, connection: sqlite3.Connection, work: Work, appended: list[_outbox.Appended]) -> Outcome:
        transaction = Transaction(connection, self.publisher)
        connection.execute("SAVEPOINT work")
        try:
            value = work(transaction)
        except BaseException as error:  # a SystemExit in a handler must not end the writer thread and hang everybody
            # The disk's fault is no outcome of this work: nothing of the group may be committed. SQLite sees to that by
            # itself at times, by rolling everything back; from a damaged index it would go on.
            if not connection.in_transaction or _storage_failed(error):
                raise
            connection.execute("ROLLBACK TO work")
            connection.execute("RELEASE work")
            return Outcome(None, error if isinstance(error, Exception) else AtollError(f"the work raised {error!r}"))
        finally:
            transaction._end()
        connection.execute("RELEASE work")
        appended.extend(transaction._appended)
        return Outcome(value, None)

    def _group_failed(self, connection: sqlite3.Connection, error: BaseException) -> Exception:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        if not isinstance(error, sqlite3.Error):
            return error if isinstance(error, Exception) else AtollError(f"a work raised {error!r}")
        failure = StorageError(f"{self.path.name}: {error}")
        failure.__cause__ = error
        if _primary_code(error) in _FATAL_CODES:
            self._failure = failure
        return failure

    def _hand_out(self, jobs: list[_Job], outcomes: list[Outcome], appended: bool) -> None:
        position = 0
        for job in jobs:
            job.done(outcomes[position : position + len(job.works)])
            position += len(job.works)
        if appended and self.on_commit is not None:
            self.on_commit()
        if self._failure is not None and self.on_failure is not None:
            self.on_failure(self._failure)

    def _read_loop(self, connection: sqlite3.Connection) -> None:
        while (run := self._reads.get()) is not None:
            run(connection)
        connection.close()


def _bound(context: contextvars.Context, work: Work) -> Work:
    return lambda transaction: context.run(work, transaction)


def _lock(path: Path) -> int:
    lock = path.with_name(path.name + ".lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise DatabaseLockedError(f"{path.name} is open in another process: stop that one first") from None
    return descriptor


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA busy_timeout = 2000")  # an operator's sqlite3 shell, never a sibling
    connection.execute(f"PRAGMA wal_autocheckpoint = {_PAGES_BEFORE_CHECKPOINT}")
    if read_only:
        connection.execute("PRAGMA query_only = ON")
    else:
        path.chmod(0o600)
        _empty_log(connection)
    return connection


def _empty_log(connection: sqlite3.Connection) -> None:
    """Move the write-ahead log into the database, so that its pages are written, and flushed, anew.

    After a failed fsync the kernel may show bytes that never reached the disk, and call the next fsync a success: what
    is committed behind such bytes would be lost with them when the power goes.
    """
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.OperationalError as error:
        if _primary_code(error) != sqlite3.SQLITE_FULL:  # without room it stays as it is
            raise


def _snapshot(connection: sqlite3.Connection, work: Callable[[Reader], T]) -> T:
    reader = Reader(connection)
    connection.execute("BEGIN")
    try:
        return work(reader)
    finally:
        reader._end()
        connection.execute("ROLLBACK")


def _storage_failed(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and _primary_code(error) in _FATAL_CODES | {sqlite3.SQLITE_FULL}


def _primary_code(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _set_value(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _set_error(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
