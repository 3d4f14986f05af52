"""The SQL that reads the sums. What writes them is `ledger`, which only the bus handlers import: a client's request
can never change a figure."""

import atoll
from atoll_sales.domain import Dimension, Figures

ROWS_MAX = 50_000


def total(reader: atoll.Reader) -> Figures:
    return find(reader, Dimension.ALL, "")


def find(reader: atoll.Reader, dimension: Dimension, key: str) -> Figures:
    """The sums of one key; zeros if nothing was counted for it."""
    row = reader.one("SELECT orders, units, revenue FROM totals WHERE dimension = ? AND key = ?", dimension, key)
    return Figures() if row is None else Figures(row["orders"], row["units"], int(row["revenue"]))


def rows(reader: atoll.Reader, dimension: Dimension) -> list[tuple[str, Figures]]:
    """The sums of every key, sorted by key; one more than `ROWS_MAX` if there are more than the answer holds."""
    found = reader.all(
        "SELECT key, orders, units, revenue FROM totals WHERE dimension = ? ORDER BY key LIMIT ?",
        dimension,
        ROWS_MAX + 1,
    )
    return [(row["key"], Figures(row["orders"], row["units"], int(row["revenue"]))) for row in found]
