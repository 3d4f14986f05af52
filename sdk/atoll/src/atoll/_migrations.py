"""Numbered SQL files, each applied once and in order, in a transaction of its own.

What was applied is written down with a checksum. A changed, renamed or missing applied file refuses the start: two
databases that both say "at 3" must have been made by the same three files.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ._errors import MigrationError

_NAME = re.compile(r"(?P<number>[0-9]{4})-(?P<name>[a-z0-9-]+)\.sql")
_TABLE = """
CREATE TABLE IF NOT EXISTS atoll_migration (
  component TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL,
  PRIMARY KEY (component, number)
) STRICT, WITHOUT ROWID
"""


class Migration(NamedTuple):
    """One step: its number, its name and its SQL."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Checksum of the text, as recorded."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read_folder(folder: Path) -> list[Migration]:
    """The files `NNNN-name.sql` of `folder` in order; raises MigrationError on any other `.sql` name or a gap."""
    if not folder.is_dir():
        raise MigrationError(f"migrations: expected a folder of NNNN-name.sql files at {str(folder)!r}")
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"migrations: {path.name!r}: expected a name such as 0001-orders.sql")
        found.append(Migration(int(match["number"]), match["name"], path.read_text(encoding="utf-8")))
    for expected, migration in enumerate(found, start=1):
        if migration.number != expected:
            raise MigrationError(f"migrations: expected number {expected:04d}, found {migration.number:04d}")
    return found


def migrate(connection: sqlite3.Connection, component: str, migrations: Sequence[Migration]) -> int:
    """Brings `component` up to date and returns how many were applied now. Raises MigrationError, naming the file."""
    connection.execute(_TABLE)
    applied = connection.execute(
        "SELECT number, name, sha256 FROM atoll_migration WHERE component = ? ORDER BY number", (component,)
    ).fetchall()
    for row in applied:
        _check_applied(component, row, migrations)
    fresh = migrations[len(applied) :]
    for migration in fresh:
        _apply(connection, component, migration)
    return len(fresh)


def _check_applied(component: str, row: tuple[int, str, str], migrations: Sequence[Migration]) -> None:
    number, name, sha256 = row
    file = f"{component} migration {number:04d}-{name}.sql"
    if number > len(migrations):
        raise MigrationError(f"{file} was applied to this database and is missing: the program is older than its data")
    if migrations[number - 1].sha256 != sha256 or migrations[number - 1].name != name:
        raise MigrationError(f"{file} was changed after it was applied: restore it, write the change as a new one")


def _apply(connection: sqlite3.Connection, component: str, migration: Migration) -> None:
    file = f"{component} migration {migration.number:04d}-{migration.name}.sql"
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _statements(migration.sql):
            connection.execute(statement)
            if not connection.in_transaction:
                raise MigrationError(f"{file} ends its own transaction: leave BEGIN, COMMIT and ROLLBACK out")
        connection.execute(
            "INSERT INTO atoll_migration VALUES (?, ?, ?, ?)",
            (component, migration.number, migration.name, migration.sha256),
        )
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise MigrationError(f"{file}: {error}") from error


def _statements(sql: str) -> Iterator[str]:
    """Splits a script. `executescript` would commit first and so break "all of the file or nothing"."""
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending
