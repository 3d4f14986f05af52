"""All the SQL of inventory. Functions take the `Reader` or `Transaction` that they work in; the caller owns the commit.

A SKU that never moved has no row: it has `opening` units, a setting, and gets its row with its first movement. So an
order that is rejected leaves no rows behind for SKUs that nobody ever had.
"""

from collections.abc import Iterable, Sequence

import msgspec

import atoll
from atoll_inventory.domain import Line, Movement, Status
from atoll_inventory.messages import Stock

_LINES = msgspec.json.Decoder(list[Line])


def available(reader: atoll.Reader, skus: Iterable[str], opening: int) -> dict[str, int]:
    """Units available of each SKU."""
    found: dict[str, int] = {}
    for sku in set(skus):
        row = reader.one("SELECT available FROM stock WHERE sku = ?", sku)
        found[sku] = opening if row is None else row["available"]
    return found


def stock(reader: atoll.Reader, sku: str, opening: int) -> Stock:
    row = reader.one("SELECT available, reserved FROM stock WHERE sku = ?", sku)
    if row is None:
        return Stock(sku, available=opening, reserved=0, movements=0)
    count = reader.one("SELECT count(*) AS movements FROM movements WHERE sku = ?", sku)
    assert count is not None, "an aggregate without GROUP BY is one row"
    return Stock(sku, row["available"], row["reserved"], count["movements"])


def move(tx: atoll.Transaction, kind: Movement, reference: str, lines: Sequence[Line], opening: int) -> None:
    """Applies the lines, whose quantities are signed, one movement each. The caller has checked that none overdraws."""
    for line in lines:
        promised = -line.quantity if kind in (Movement.RESERVED, Movement.RELEASED) else 0
        # Two statements: an upsert checks the row that it would insert even where it updates another.
        tx.execute(
            "INSERT INTO stock (sku, opening, available, reserved) VALUES (?1, ?2, ?2, 0) ON CONFLICT DO NOTHING",
            line.sku,
            opening,
        )
        tx.execute(
            "UPDATE stock SET available = available + ?, reserved = reserved + ? WHERE sku = ?",
            line.quantity,
            promised,
            line.sku,
        )
        tx.execute(
            "INSERT INTO movements (kind, reference, line, sku, quantity, reason) VALUES (?, ?, ?, ?, ?, ?)",
            kind,
            reference,
            line.line,
            line.sku,
            line.quantity,
            line.reason,
        )


def moved(reader: atoll.Reader, kind: Movement, reference: str) -> list[Line]:
    """The lines of a reference that moved so, with their signed quantities; none if it never did."""
    rows = reader.all(
        "SELECT line, sku, quantity FROM movements WHERE kind = ? AND reference = ? ORDER BY line", kind, reference
    )
    return [Line(row["line"], row["sku"], row["quantity"]) for row in rows]


def status(reader: atoll.Reader, order_id: str) -> Status | None:
    row = reader.one("SELECT status FROM reservations WHERE order_id = ?", order_id)
    return None if row is None else Status(row["status"])


def set_status(tx: atoll.Transaction, order_id: str, left: Status | None, entered: Status) -> None:
    """Moves an order on from where the caller, in this transaction, saw it."""
    if left is None:
        changed = tx.execute("INSERT INTO reservations (order_id, status) VALUES (?, ?)", order_id, entered)
    else:
        changed = tx.execute(
            "UPDATE reservations SET status = ? WHERE order_id = ? AND status = ?", entered, order_id, left
        )
    assert changed == 1, "one writer: nobody moved the order in between"


def adjustment(reader: atoll.Reader, reference: str) -> list[Line] | None:
    """The lines that a reference was used for, or None."""
    row = reader.one("SELECT lines FROM adjustments WHERE reference = ?", reference)
    return None if row is None else _LINES.decode(row["lines"])


def add_adjustment(tx: atoll.Transaction, reference: str, lines: Sequence[Line]) -> None:
    encoded = msgspec.json.encode(lines).decode()
    tx.execute("INSERT INTO adjustments (reference, lines) VALUES (?, ?)", reference, encoded)
