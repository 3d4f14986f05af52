"""The operators' record, in control's own database. An act that cannot be recorded does not happen."""

from __future__ import annotations

import time
from typing import Any

import atoll

PAGE_MAX = 200
#: An act whose end nobody saw (control was down) is looked for again this long.
UNENDED_SECONDS_MAX = 600.0


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


def unended(reader: atoll.Reader) -> list[str]:
    """Operations that began not long ago and whose end is not noted."""
    rows = reader.all(
        "SELECT operation_id FROM audit WHERE result IS NULL AND at > ? LIMIT 1000", time.time() - UNENDED_SECONDS_MAX
    )
    return [str(row["operation_id"]) for row in rows]


def page(reader: atoll.Reader, limit: int, before: int | None) -> list[dict[str, Any]]:
    """Records, newest first, below an id."""
    rows = reader.all("SELECT * FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?", before or 2**62, limit)
    return [dict(row) for row in rows]
