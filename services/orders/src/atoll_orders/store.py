"""All the SQL of orders. Functions take the `Reader` or `Transaction` that they work in; the caller owns the commit."""

import sqlite3
from dataclasses import dataclass
from datetime import datetime

import msgspec

import atoll
from atoll_orders.domain import FIRST, Invoice, Kind, Line, Status, money
from atoll_orders.messages import Page, Summary

_LINES = msgspec.json.Decoder(tuple[Line, ...])


@dataclass(frozen=True, slots=True)
class Stored:
    """An invoice and where it stands. `reason` and `detail` are of a cancelled order, else None."""

    invoice: Invoice
    status: Status
    reason: str | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class Query:
    """Which invoices a list holds: None does not narrow it. `before` is the cursor of a page."""

    kind: Kind
    limit: int
    owner: str | None = None
    status: Status | None = None
    customer: str | None = None
    before: int | None = None


def add(tx: atoll.Transaction, invoice: Invoice, accepted_ms: int, deadline_ms: int | None) -> None:
    """Stores a new invoice in its first status. `deadline_ms` (ms since 1970) is for orders alone."""
    tx.execute(
        "INSERT INTO invoices (id, kind, owner, invoice, customer, country, placed_at, lines, total, units, status,"
        " accepted_ms, deadline_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        invoice.id,
        invoice.kind,
        invoice.owner,
        invoice.invoice,
        invoice.customer,
        invoice.country,
        invoice.placed_at.isoformat(),
        msgspec.json.encode(invoice.lines).decode(),
        invoice.total,
        invoice.units,
        FIRST[invoice.kind],
        accepted_ms,
        deadline_ms,
    )


def find(reader: atoll.Reader, kind: Kind, invoice_id: str) -> Stored | None:
    row = reader.one("SELECT * FROM invoices WHERE id = ? AND kind = ?", invoice_id, kind)
    return None if row is None else _stored(row)


def page(reader: atoll.Reader, query: Query) -> Page:
    """At most `query.limit` invoices, the newest first, and the cursor of what follows."""
    narrow = {
        "kind = ?": query.kind,
        "owner = ?": query.owner,
        "status = ?": query.status,
        "customer = ?": query.customer,
        "seq < ?": query.before,
    }
    given = {condition: value for condition, value in narrow.items() if value is not None}
    sql = (
        "SELECT seq, id, invoice, customer, country, placed_at, status, reason, detail, total, units"  # noqa: S608
        f" FROM invoices WHERE {' AND '.join(given)} ORDER BY seq DESC LIMIT ?"  # put together from our own words
    )
    rows = reader.all(sql, *given.values(), query.limit + 1)
    shown = rows[: query.limit]
    return Page([_summary(row) for row in shown], next=str(shown[-1]["seq"]) if len(rows) > len(shown) else None)


def move(
    tx: atoll.Transaction,
    invoice_id: str,
    left: Status,
    entered: Status,
    reason: str | None = None,
    detail: str | None = None,
) -> bool:
    """Moves an invoice on, if it is still where the caller saw it; says whether it was."""
    moved = tx.execute(
        "UPDATE invoices SET status = ?, reason = ?, detail = ? WHERE id = ? AND status = ?",
        entered,
        reason,
        detail,
        invoice_id,
        left,
    )
    return moved == 1


def overdue(reader: atoll.Reader, now_ms: int, limit: int) -> list[str]:
    """The ids of at most `limit` orders that are still placed at their deadline, the longest overdue first."""
    rows = reader.all(
        "SELECT id FROM invoices WHERE status = 'placed' AND deadline_ms <= ? ORDER BY deadline_ms LIMIT ?",
        now_ms,
        limit,
    )
    return [row["id"] for row in rows]


def _stored(row: sqlite3.Row) -> Stored:
    invoice = Invoice(
        kind=Kind(row["kind"]),
        owner=row["owner"],
        invoice=row["invoice"],
        customer=row["customer"],
        country=row["country"],
        placed_at=datetime.fromisoformat(row["placed_at"]),
        lines=_LINES.decode(row["lines"]),
    )
    return Stored(invoice, Status(row["status"]), row["reason"], row["detail"])


def _summary(row: sqlite3.Row) -> Summary:
    return Summary(
        id=row["id"],
        invoice=row["invoice"],
        customer=row["customer"],
        country=row["country"],
        placed_at=datetime.fromisoformat(row["placed_at"]),
        status=row["status"],
        reason=row["reason"],
        detail=row["detail"],
        total=money(row["total"]),
        units=row["units"],
    )
