"""The shapes that payments gives out, its own events, and of others' events what it reads.

Events of others ignore unknown fields: their owners may add. The constraints on our own events are for the JSON Schema
that the broker checks them against.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from atoll_payments import domain
from atoll_payments.domain import money

# ---- events out -----------------------------------------------------------------------------------------------

Id = Annotated[str, Meta(min_length=1, max_length=64)]
Money = Annotated[str, Meta(pattern=r"^[0-9]{1,15}\.[0-9]{2,4}$", description="A decimal, exact.")]
RefundReason = Literal["order_cancelled", "return"]
_TEXT = Meta(extra_json_schema={"type": "string"})


class PaymentCaptured(Struct, frozen=True):
    """The money of an order was taken: its total, no more and no less."""

    order_id: Id
    payment_id: Id
    amount: Money


class PaymentDeclined(Struct, frozen=True):
    """The money of an order could not be taken, and will not be tried again."""

    order_id: Id
    amount: Money
    reason: Annotated[str, Meta(min_length=1, max_length=200)]


class PaymentRefunded(Struct, frozen=True):
    """Money was given back: `reference` is the cancelled order's id, or the return's."""

    reference: Id
    refund_id: Id
    amount: Money
    reason: Annotated[RefundReason, _TEXT]


def captured(order_id: str, amount: int) -> PaymentCaptured:
    return PaymentCaptured(order_id, domain.payment_id(order_id), money(amount))


def declined(order_id: str, amount: int, decline_above: int) -> PaymentDeclined:
    return PaymentDeclined(order_id, money(amount), f"{money(amount)} is above the limit of {money(decline_above)}")


def refunded(reference: str, amount: int, reason: RefundReason) -> PaymentRefunded:
    return PaymentRefunded(reference, domain.refund_id(reference), money(amount), reason)


PUBLISHES: dict[str, type[Struct]] = {
    "payments.payment.captured.v1": PaymentCaptured,
    "payments.payment.declined.v1": PaymentDeclined,
    "payments.payment.refunded.v1": PaymentRefunded,
}

# ---- events in: of each only what is read; the subject is the order's or the return's id -----------------------


class OrderPlaced(Struct, frozen=True):
    total: str


class OrderCancelled(Struct, frozen=True):
    """That it happened is all that counts here."""


class StockReserved(Struct, frozen=True):
    """That it happened is all that counts here."""


class ReturnReceived(Struct, frozen=True):
    total: str


CONSUMES: dict[str, type[Struct]] = {
    "orders.order.placed.v1": OrderPlaced,
    "orders.order.cancelled.v1": OrderCancelled,
    "orders.return.received.v1": ReturnReceived,
    "inventory.stock.reserved.v1": StockReserved,
}
