"""The SQL that counts a document. Imported by the bus handlers alone."""

import atoll
from atoll_sales import store
from atoll_sales.domain import Dimension, Document, Figures


def count(tx: atoll.Transaction, document: Document) -> None:
    """Adds a document to all the sums it touches.

    That it comes only once is the inbox's word. Should that ever fail, the sums stay right and it is not passed over in
    silence: Reject, a dead letter that an operator sees.
    """
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
        raise atoll.Reject(f"{document.kind} {document.id} was counted before", field="subject")
    for dimension, key, share in document.shares():
        _add(tx, dimension, key, share)


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
