"""Of others' events what notifications reads. Unknown fields are ignored: their owners may add."""

from msgspec import Struct

from atoll_notifications.domain import Cancellation, Confirmation, Line, amount_of

# The subject of both is the order's id.


class LineRead(Struct, frozen=True):
    sku: str
    description: str | None
    quantity: int
    unit_price: str


class OrderConfirmed(Struct, frozen=True):
    invoice: str
    customer: str | None
    total: str
    lines: list[LineRead]


class OrderCancelled(Struct, frozen=True):
    invoice: str
    customer: str | None
    reason: str
    detail: str


CONSUMES: dict[str, type[Struct]] = {
    "orders.order.confirmed.v1": OrderConfirmed,
    "orders.order.cancelled.v1": OrderCancelled,
}


def confirmation(order_id: str, data: OrderConfirmed) -> Confirmation:
    """What is to be told. ValueError if an amount is none."""
    lines = tuple(
        Line(line.sku, line.description or "", line.quantity, amount_of(line.unit_price)) for line in data.lines
    )
    return Confirmation(order_id, data.invoice, data.customer or "", lines, amount_of(data.total))


def cancellation(order_id: str, data: OrderCancelled) -> Cancellation:
    """What is to be told."""
    return Cancellation(order_id, data.invoice, data.customer or "", data.reason, data.detail)
