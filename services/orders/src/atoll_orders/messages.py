"""The shapes that orders takes in and gives out: HTTP bodies, its own events, and of others' events what it reads.

HTTP bodies refuse unknown fields: a client that misspells one must hear of it. Events of others ignore them: their
owners may add. The constraints on our own events are for the JSON Schema that the broker checks them against.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from atoll_orders import domain
from atoll_orders.domain import Invoice, Kind, Line, Status, money

# ---- HTTP in --------------------------------------------------------------------------------------------------


class LineBody(Struct, frozen=True, forbid_unknown_fields=True):
    sku: str
    quantity: int
    unit_price: msgspec.Raw  # as written: a JSON number read as a float would not be the number that was sent
    description: str | None = None

    def line(self, index: int) -> Line:
        price = domain.unit_price(f"lines[{index}].unit_price", written(self.unit_price))
        return Line(index + 1, self.sku, self.description, self.quantity, price)


class InvoiceBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /orders` and of `POST /returns`."""

    invoice: str
    country: str
    placed_at: Annotated[datetime, Meta(tz=True)]
    lines: Annotated[list[LineBody], Meta(min_length=1, max_length=domain.LINES_MAX)]
    customer: str | None = None

    def accepted(self, kind: Kind, owner: str) -> Invoice:
        """The invoice that this body describes. Raises `InvalidError`."""
        invoice = Invoice(
            kind=kind,
            owner=owner,
            invoice=self.invoice,
            customer=self.customer,
            country=self.country,
            placed_at=domain.utc("placed_at", self.placed_at),
            lines=tuple(line.line(index) for index, line in enumerate(self.lines)),
        )
        return domain.check_invoice(invoice)


def written(value: msgspec.Raw) -> str:
    """The text of a JSON string, or a JSON number as it was written. Anything else comes out as no number at all."""
    text = bytes(value).strip()
    return msgspec.json.decode(text, type=str) if text.startswith(b'"') else text.decode()


# ---- events out -----------------------------------------------------------------------------------------------

Id = Annotated[str, Meta(min_length=1, max_length=64)]
Money = Annotated[str, Meta(pattern=r"^[0-9]{1,15}\.[0-9]{2,4}$", description="A decimal, exact.")]
Sku = Annotated[str, Meta(pattern=f"^{domain.SKU.pattern}$")]
Quantity = Annotated[int, Meta(ge=1, le=domain.QUANTITY_MAX)]
Units = Annotated[int, Meta(ge=1)]
Customer = Annotated[str, Meta(max_length=domain.CUSTOMER_LENGTH_MAX)]
Country = Annotated[str, Meta(min_length=1, max_length=domain.COUNTRY_LENGTH_MAX)]
Description = Annotated[str, Meta(max_length=domain.DESCRIPTION_LENGTH_MAX)]
InvoiceNumber = Annotated[str, Meta(min_length=1, max_length=domain.INVOICE_LENGTH_MAX)]
PlacedAt = Annotated[datetime, Meta(tz=True, description="UTC.")]
CancelReason = Literal["stock_rejected", "payment_declined", "deadline"]
_TEXT = Meta(extra_json_schema={"type": "string"})


class LineData(Struct, frozen=True):
    line: Annotated[int, Meta(ge=1, le=domain.LINES_MAX)]
    sku: Sku
    description: Description | None
    quantity: Quantity
    unit_price: Money

    @classmethod
    def of(cls, line: Line) -> "LineData":
        return cls(line.line, line.sku, line.description, line.quantity, money(line.unit_price))


class Head(Struct, frozen=True, kw_only=True):
    """What every event says of the invoice that it is about."""

    invoice: InvoiceNumber
    customer: Customer | None
    country: Country
    placed_at: PlacedAt


class Content(Head, frozen=True, kw_only=True):
    total: Money
    lines: Annotated[list[LineData], Meta(min_length=1, max_length=domain.LINES_MAX)]


class OrderPlaced(Content, frozen=True, kw_only=True):
    """An order was accepted; stock and payment are still to come."""

    order_id: Id


class OrderConfirmed(Content, frozen=True, kw_only=True):
    """Stock is reserved and the payment captured: this order is a sale."""

    order_id: Id
    units: Units


class OrderCancelled(Head, frozen=True, kw_only=True):
    """The order ended without a sale. Who reserved or captured for it gives back."""

    order_id: Id
    reason: Annotated[CancelReason, _TEXT]
    detail: Annotated[str, Meta(max_length=512)]


class ReturnReceived(Content, frozen=True, kw_only=True):
    """A customer sent goods back; the money is still to be refunded. Quantities are positive."""

    return_id: Id


class ReturnRefunded(Content, frozen=True, kw_only=True):
    """The money of a return was given back: its goods are stock again, and the sale is undone."""

    return_id: Id
    units: Units


def head(invoice: Invoice) -> dict[str, Any]:
    return {
        "invoice": invoice.invoice,
        "customer": invoice.customer,
        "country": invoice.country,
        "placed_at": invoice.placed_at,
    }


def content(invoice: Invoice) -> dict[str, Any]:
    return head(invoice) | {"total": money(invoice.total), "lines": [LineData.of(line) for line in invoice.lines]}


def placed(order: Invoice) -> OrderPlaced:
    return OrderPlaced(order_id=order.id, **content(order))


def confirmed(order: Invoice) -> OrderConfirmed:
    return OrderConfirmed(order_id=order.id, units=order.units, **content(order))


def cancelled(order: Invoice, reason: CancelReason, detail: str) -> OrderCancelled:
    return OrderCancelled(order_id=order.id, reason=reason, detail=detail, **head(order))


def received(returned: Invoice) -> ReturnReceived:
    return ReturnReceived(return_id=returned.id, **content(returned))


def refunded(returned: Invoice) -> ReturnRefunded:
    return ReturnRefunded(return_id=returned.id, units=returned.units, **content(returned))


EVENT_BYTES_MAX = 245_760


def fits_the_bus(invoice: Invoice) -> bool:
    """Whether the largest event about this invoice, the last, leaves the bus's 262,144 bytes room for its envelope.
    Asked before it is accepted: one that could be placed and not confirmed would only wait for its deadline."""
    largest = confirmed(invoice) if invoice.kind is Kind.ORDER else refunded(invoice)
    return len(msgspec.json.encode(largest)) <= EVENT_BYTES_MAX


PUBLISHES: dict[str, type[Struct]] = {
    "orders.order.placed.v1": OrderPlaced,
    "orders.order.confirmed.v1": OrderConfirmed,
    "orders.order.cancelled.v1": OrderCancelled,
    "orders.return.received.v1": ReturnReceived,
    "orders.return.refunded.v1": ReturnRefunded,
}

# ---- events in: of each only what is read; the subject is the order's or the return's id -----------------------


class StockRejected(Struct, frozen=True):
    sku: str
    wanted: int
    available: int


class PaymentCaptured(Struct, frozen=True):
    amount: str


class PaymentDeclined(Struct, frozen=True):
    reason: str


class PaymentRefunded(Struct, frozen=True):
    reason: str


CONSUMES: dict[str, type[Struct]] = {
    "inventory.stock.rejected.v1": StockRejected,
    "payments.payment.captured.v1": PaymentCaptured,
    "payments.payment.declined.v1": PaymentDeclined,
    "payments.payment.refunded.v1": PaymentRefunded,
}

# ---- HTTP out -------------------------------------------------------------------------------------------------


class Accepted(Struct, frozen=True):
    id: str
    status: str


class Summary(Struct, frozen=True, kw_only=True):
    """An order or a return in a list. `reason` and `detail` are null unless it is a cancelled order."""

    id: str
    invoice: str
    customer: str | None
    country: str
    placed_at: datetime
    status: str
    reason: str | None
    detail: str | None
    total: str
    units: int


class Whole(Summary, frozen=True, kw_only=True):
    lines: list[LineData]


class Page(Struct, frozen=True):
    """`next` is the cursor of the page that follows; null where none does."""

    items: list[Summary]
    next: str | None


def accepted(invoice: Invoice) -> Accepted:
    return Accepted(invoice.id, domain.FIRST[invoice.kind])


def whole(invoice: Invoice, status: Status, reason: str | None, detail: str | None) -> Whole:
    return Whole(id=invoice.id, status=status, reason=reason, detail=detail, units=invoice.units, **content(invoice))
