"""The shapes that inventory takes in and gives out: HTTP bodies, its own events, and of others' events what it reads.

HTTP bodies refuse unknown fields: a client that misspells one must hear of it. Events of others ignore them: their
owners may add. The constraints on our own events are for the JSON Schema that the broker checks them against.
"""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from atoll_inventory import domain
from atoll_inventory.domain import Line, Shortage

# ---- HTTP -----------------------------------------------------------------------------------------------------


class AdjustmentLineBody(Struct, frozen=True, forbid_unknown_fields=True):
    sku: str
    quantity: int
    reason: str


class AdjustmentBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /stock/adjustments`."""

    reference: str
    lines: Annotated[list[AdjustmentLineBody], Meta(min_length=1, max_length=domain.ADJUSTMENT_LINES_MAX)]

    def accepted(self) -> list[Line]:
        """The lines to apply, numbered from 1. Raises `InvalidError`."""
        lines = [Line(n, line.sku, line.quantity, line.reason) for n, line in enumerate(self.lines, start=1)]
        domain.check_adjustment(self.reference, lines)
        return lines


class Stock(Struct, frozen=True):
    """`reserved` is what orders took and did not give back; `movements` counts the rows of the movements table."""

    sku: str
    available: int
    reserved: int
    movements: int


class Adjusted(Struct, frozen=True):
    """The answer to an adjustment, the same however often it is sent."""

    reference: str
    lines: int


# ---- events out -----------------------------------------------------------------------------------------------

OrderId = Annotated[str, Meta(min_length=1, max_length=64)]
Sku = Annotated[str, Meta(pattern=f"^{domain.SKU.pattern}$")]
Quantity = Annotated[int, Meta(ge=1, le=domain.QUANTITY_MAX)]
SignedQuantity = Annotated[int, Meta(ge=-domain.ADJUSTMENT_MAX, le=domain.ADJUSTMENT_MAX)]


class LineData(Struct, frozen=True):
    line: Annotated[int, Meta(ge=1)]
    sku: Sku
    quantity: Quantity


LinesData = Annotated[list[LineData], Meta(min_length=1)]


class StockReserved(Struct, frozen=True):
    """All lines of the order are set aside."""

    order_id: OrderId
    lines: LinesData


class StockRejected(Struct, frozen=True):
    """Nothing is set aside, since of one SKU (the first such) there is less than the order wants in all its lines."""

    order_id: OrderId
    sku: Sku
    wanted: Annotated[int, Meta(ge=1)]
    available: Annotated[int, Meta(ge=0)]


class StockReleased(Struct, frozen=True):
    """What was set aside for the order is available again."""

    order_id: OrderId
    lines: LinesData


class AdjustmentLineData(Struct, frozen=True):
    sku: Sku
    quantity: SignedQuantity
    reason: Annotated[str, Meta(min_length=1, max_length=domain.REASON_LENGTH_MAX)]


class StockAdjusted(Struct, frozen=True):
    """Stock was counted, written off or brought in by hand."""

    reference: Annotated[str, Meta(min_length=1, max_length=domain.REFERENCE_LENGTH_MAX)]
    lines: Annotated[list[AdjustmentLineData], Meta(min_length=1, max_length=domain.ADJUSTMENT_LINES_MAX)]


def reserved(order_id: str, lines: Sequence[Line]) -> StockReserved:
    return StockReserved(order_id, [LineData(line.line, line.sku, line.quantity) for line in lines])


def rejected(order_id: str, short: Shortage) -> StockRejected:
    return StockRejected(order_id, short.sku, short.wanted, short.available)


def released(order_id: str, lines: Sequence[Line]) -> StockReleased:
    return StockReleased(order_id, [LineData(line.line, line.sku, line.quantity) for line in lines])


def adjusted(reference: str, lines: Sequence[Line]) -> StockAdjusted:
    return StockAdjusted(reference, [AdjustmentLineData(line.sku, line.quantity, line.reason or "") for line in lines])


PUBLISHES: dict[str, type[Struct]] = {
    "inventory.stock.reserved.v1": StockReserved,
    "inventory.stock.rejected.v1": StockRejected,
    "inventory.stock.released.v1": StockReleased,
    "inventory.stock.adjusted.v1": StockAdjusted,
}

# ---- events in: of each only what is read; the subject is the order's or the return's id -----------------------


class LineRead(Struct, frozen=True):
    line: int
    sku: str
    quantity: int


class OrderPlaced(Struct, frozen=True):
    lines: list[LineRead]


class OrderCancelled(Struct, frozen=True):
    """That it happened is all that counts here."""


class ReturnRefunded(Struct, frozen=True):
    lines: list[LineRead]


CONSUMES: dict[str, type[Struct]] = {
    "orders.order.placed.v1": OrderPlaced,
    "orders.order.cancelled.v1": OrderCancelled,
    "orders.return.refunded.v1": ReturnRefunded,
}


def lines_of(event: OrderPlaced | ReturnRefunded) -> list[Line]:
    return [Line(line.line, line.sku, line.quantity) for line in event.lines]
