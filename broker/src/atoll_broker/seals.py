"""What makes damage in the broker's small tables loud: a CRC in each row, and a look at the whole of them at boot.

SQLite's pages carry no checksum, so a bit that flips in a cursor would be believed: a floor that jumped ahead skips
events, and nobody would ever know. The log's own rows are checked when they are read (`storage_sqlite`); those of the
tables here are all read at boot, so they are all checked then, their trees too, for a row that can no longer be
found has no CRC to fail.

The schema has a seal as well: a damaged name or type would give other words the same bytes.
"""

from __future__ import annotations

import sqlite3
import zlib
from typing import Final

from .errors import StorageFailedError

#: Table -> the columns under its `crc`, in this order. `steps` is history: long, so its rows are checked when read.
SEALED: Final[dict[str, tuple[str, ...]]] = {
    "meta": ("name", "value"),
    "producers": ("producer", "mark", "last_id", "refused"),
    "groups": ("name", "floor", "detached"),
    "acked": ("name", "seq"),
    "attempts": ("name", "seq", "attempt"),
    "letters": ("name", "seq", "topic", "subject", "replaying", "letter"),
    "kept": ("kind", "value"),
    "leases": ("name", "seq", "slot", "fence"),
    "gaps": ("name", "first", "last", "why", "at_ms"),
    "steps": ("n", "seq", "name", "at_ms", "what", "attempt", "slot", "fence", "text"),
}
_READ_LATER: Final = "steps"
#: `topics` only counts; `sqlite_master` brings the list of free pages with it.
_TREES: Final = ("sqlite_master", "topics", *SEALED)

Value = int | str | bytes | None


def row_crc(*values: Value) -> int:
    """Over values and their types, each with its length, so that no byte can move from one column to the next."""
    return zlib.crc32(b"".join(map(_as_bytes, values)))


def _as_bytes(value: Value) -> bytes:
    """A letter for the type that SQLite keeps it as, the length, and the value."""
    if isinstance(value, str):
        data = value.encode()
        return b"s%d %b" % (len(data), data)
    if isinstance(value, int):
        data = b"%d" % value
        return b"i%d %b" % (len(data), data)
    return b"n0 " if value is None else b"b%d %b" % (len(value), value)


def register(connection: sqlite3.Connection) -> None:
    """`row_crc` in SQL, for rows that are changed in place."""
    connection.create_function("row_crc", -1, row_crc, deterministic=True)


def add_columns(connection: sqlite3.Connection) -> None:
    """Give rows that were written before there were seals their first. In the caller's transaction."""
    for table, columns in SEALED.items():
        connection.execute(f"ALTER TABLE {table} ADD COLUMN crc INTEGER NOT NULL DEFAULT 0")
        connection.execute(f"UPDATE {table} SET crc=row_crc({','.join(columns)})")  # noqa: S608 constants


def schema_crc(connection: sqlite3.Connection) -> int:
    """Over what the database says that it is made of."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")
    return row_crc(*(value for row in rows for value in row))


def verify(connection: sqlite3.Connection, schema: Value) -> None:
    """Raises StorageFailedError, naming the first thing found damaged. `schema`: the seal of the schema."""
    for table in _TREES:
        said = connection.execute(f"PRAGMA integrity_check({table})").fetchone()[0]
        if said != "ok":
            raise StorageFailedError(f"{table} is corrupt: {said.splitlines()[-1]}")  # the lines before say less
    if schema != schema_crc(connection):
        raise StorageFailedError("the schema is corrupt: its CRC does not fit")
    _verify_roots(connection)
    for table, columns in SEALED.items():
        if table != _READ_LATER:
            _verify_rows(connection, table, columns)


def _verify_roots(connection: sqlite3.Connection) -> None:
    sql = "SELECT count(*) - count(DISTINCT rootpage) FROM sqlite_master WHERE rootpage > 0"
    if connection.execute(sql).fetchone()[0]:
        raise StorageFailedError("the schema is corrupt: two tables have the same pages")


def _verify_rows(connection: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> None:
    sql = f"SELECT {columns[0]}, {columns[1]} FROM {table} WHERE crc IS NOT row_crc({','.join(columns)}) LIMIT 1"  # noqa: S608 constants
    found = connection.execute(sql).fetchone()
    if found is not None:
        raise StorageFailedError(f"a row of {table} is corrupt: its CRC does not fit ({found[0]!r}, {found[1]!r})")
