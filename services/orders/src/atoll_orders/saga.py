"""How a fact moves an order or a return, and what is told of it: one place for the handlers and for the deadline."""

import atoll
from atoll_orders import messages, store
from atoll_orders.domain import Fact, Kind, status_after
from atoll_orders.messages import CancelReason

DETAIL_LENGTH_MAX = 512

_REASONS: dict[Fact, CancelReason] = {
    Fact.STOCK_REJECTED: "stock_rejected",
    Fact.PAYMENT_DECLINED: "payment_declined",
    Fact.DEADLINE: "deadline",
}


def confirm(tx: atoll.Transaction, order: store.Stored) -> bool:
    """Confirms an order that is paid. False, and nothing said, if it has already ended: a capture that comes after
    the cancellation is refunded by payments, on our `order.cancelled`."""
    if not _move(tx, order, Fact.PAYMENT_CAPTURED):
        return False
    tx.publish("orders.order.confirmed.v1", order.invoice.id, messages.confirmed(order.invoice))
    return True


def cancel(tx: atoll.Transaction, order: store.Stored, fact: Fact, detail: str) -> bool:
    """Cancels an order for `fact`, one of the three that do so. False, and nothing said, if it has already ended."""
    reason = _REASONS[fact]
    detail = detail[:DETAIL_LENGTH_MAX]
    if not _move(tx, order, fact, reason, detail):
        return False
    tx.publish("orders.order.cancelled.v1", order.invoice.id, messages.cancelled(order.invoice, reason, detail))
    return True


def refund(tx: atoll.Transaction, returned: store.Stored) -> bool:
    """Ends a return whose money was given back. False, and nothing said, if it had been ended before."""
    if not _move(tx, returned, Fact.RETURN_REFUNDED):
        return False
    tx.publish("orders.return.refunded.v1", returned.invoice.id, messages.refunded(returned.invoice))
    return True


def known(tx: atoll.Transaction, kind: Kind, invoice_id: str) -> store.Stored:
    """The order or return that an event names. Raises `atoll.Reject` for one that was never accepted here: no later
    event can change that, and somebody has to look."""
    stored = store.find(tx, kind, invoice_id)
    if stored is None:
        raise atoll.Reject(f"there is no {kind} {invoice_id}", field="subject")
    return stored


def _move(
    tx: atoll.Transaction, stored: store.Stored, fact: Fact, reason: str | None = None, detail: str | None = None
) -> bool:
    entered = status_after(stored.status, fact)
    if entered is None:
        return False
    return store.move(tx, stored.invoice.id, stored.status, entered, reason, detail)
