"""The operators' record, in control's own database. An act that cannot be recorded does not happen."""

from __future__ import annotations

import time
from typing import Any

import msgspec

import atoll

PAGE_MAX = 200
TARGETS_MAX = 1000
#: An act whose end nobody saw (control was down) is looked for again this long.
UNENDED_SECONDS_MAX = 600.0
#: The result of an attempt that was refused begins so; how many more there were may follow.
DENIED = "denied"


def begin(
    tx: atoll.Transaction, *, who: str, act: str, target: str, reason: str, operation_id: str, trace_id: str | None,
    at: float | None = None,
) -> None:  # fmt: skip
    """Note an act before it is carried out (or, with the time `at` which it was, that it was)."""
    tx.execute(
        "INSERT INTO audit (at, who, act, target, reason, operation_id, trace_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
        at if at is not None else time.time(), who, act, target, reason, operation_id, trace_id,
    )  # fmt: skip


def end(tx: atoll.Transaction, operation_id: str, result: str) -> None:
    """Note how it ended; the first end stands."""
    tx.execute(
        "UPDATE audit SET result = ?, ended_at = ? WHERE operation_id = ? AND result IS NULL",
        result, time.time(), operation_id,
    )  # fmt: skip


def find(reader: atoll.Reader, operation_id: str) -> dict[str, Any] | None:
    """The record of one operation."""
    row = reader.one("SELECT * FROM audit WHERE operation_id = ?", operation_id)
    return dict(row) if row is not None else None


def unended(reader: atoll.Reader) -> list[tuple[str, str]]:
    """Operations that began not long ago and whose end is not noted, each with its act."""
    rows = reader.all(
        "SELECT operation_id, act FROM audit WHERE result IS NULL AND at > ? LIMIT 1000",
        time.time() - UNENDED_SECONDS_MAX,
    )
    return [(str(row["operation_id"]), str(row["act"])) for row in rows]


class Query(msgspec.Struct, frozen=True):
    """Which records: those that match every field that is given, exactly."""

    who: str | None = None
    act: str | None = None
    target: str | None = None


def page(reader: atoll.Reader, query: Query, limit: int, before: int | None) -> list[dict[str, Any]]:
    """Records that match, newest first, below an id."""
    given = {name: value for name, value in msgspec.structs.asdict(query).items() if value is not None}
    where = " AND ".join(["id < ?", *(f"{name} = ?" for name in given)])  # names of the struct's fields alone
    sql = f"SELECT * FROM audit WHERE {where} ORDER BY id DESC LIMIT ?"  # noqa: S608
    return [dict(row) for row in reader.all(sql, before or 2**62, *given.values(), limit)]


def last_by_target(reader: atoll.Reader) -> list[dict[str, Any]]:
    """The newest record of each instance and group: what was done last, not what was denied."""
    rows = reader.all(
        "SELECT * FROM audit WHERE id IN"
        " (SELECT max(id) FROM audit WHERE result IS NULL OR result NOT LIKE ? GROUP BY target)"
        " ORDER BY id DESC LIMIT ?",
        f"{DENIED}%",
        TARGETS_MAX,
    )
    return [dict(row) for row in rows]
