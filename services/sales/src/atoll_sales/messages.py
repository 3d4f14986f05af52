"""The shapes that sales gives out over HTTP, and of others' events what it reads. Unknown fields are ignored: their
owners may add."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from atoll_sales.domain import Document, Figures, Kind, Line, amount_of, money

# ---- events in: of each only what is read; the subject is the order's or the return's id -----------------------


class LineRead(Struct, frozen=True):
    sku: str
    quantity: int
    unit_price: str


class OrderConfirmed(Struct, frozen=True):
    country: str
    placed_at: Annotated[datetime, Meta(tz=True)]
    lines: list[LineRead]


class ReturnRefunded(Struct, frozen=True):
    country: str
    placed_at: Annotated[datetime, Meta(tz=True)]
    lines: list[LineRead]


CONSUMES: dict[str, type[Struct]] = {
    "orders.order.confirmed.v1": OrderConfirmed,
    "orders.return.refunded.v1": ReturnRefunded,
}


def document(kind: Kind, document_id: str, data: OrderConfirmed | ReturnRefunded) -> Document:
    """What an event says was sold or sent back. ValueError if a price is none."""
    lines = tuple(Line(line.sku, line.quantity, amount_of(line.unit_price)) for line in data.lines)
    return Document(kind, document_id, data.country, data.placed_at, lines)


# ---- HTTP out -------------------------------------------------------------------------------------------------


class Total(Struct, frozen=True, kw_only=True):
    orders: int
    units: int
    revenue: str

    @classmethod
    def of(cls, figures: Figures) -> "Total":
        return cls(orders=figures.orders, units=figures.units, revenue=money(figures.revenue))


class Row(Struct, frozen=True, kw_only=True):
    key: str
    orders: int
    units: int
    revenue: str

    @classmethod
    def of(cls, key: str, figures: Figures) -> "Row":
        return cls(key=key, orders=figures.orders, units=figures.units, revenue=money(figures.revenue))


class Sales(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`truncated` is there, and true, only where there are more rows than one answer holds; `total` has all of them."""

    rows: list[Row]
    total: Total
    truncated: bool = False
