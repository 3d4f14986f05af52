"""The SQL that counts a document. Imported by the bus handlers alone."""

import atoll
from atoll_sales import store
from atoll_sales.domain import Dimension, Document, Figures


def count(tx: atoll.Transaction, document: Document) -> bool:
    """Adds a document to all the sums it touches, once; says whether it was new."""
    figures = document.figures
    added = tx.execute(
        "INSERT INTO documents (id, kind, country, day, units, revenue) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        document.id,
        document.kind,
        document.country,
        document.day,
        figures.units,
        figures.revenue,
    )
    if added == 0:
        return False
    for dimension, key, share in document.shares():
        _add(tx, dimension, key, share)
    return True


def _add(tx: atoll.Transaction, dimension: Dimension, key: str, share: Figures) -> None:
    sums = store.find(tx, dimension, key) + share
    tx.execute(
        "INSERT INTO totals (dimension, key, orders, units, revenue) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET orders = excluded.orders, units = excluded.units, revenue = excluded.revenue",
        dimension,
        key,
        sums.orders,
        sums.units,
        str(sums.revenue),
    )
