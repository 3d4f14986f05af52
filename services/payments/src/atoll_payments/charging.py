"""What each fact about an order or a return does to its money, and what is told of it. Each is one transaction."""

import atoll
from atoll_payments import messages, store
from atoll_payments.domain import Fact, Status, Step, settled, step
from atoll_payments.messages import RefundReason
from atoll_payments.store import Order


def placed(tx: atoll.Transaction, order_id: str, total: int, decline_above: int | None) -> None:
    """Remembers what the order owes (ten-thousandths)."""
    order = store.order(tx, order_id)
    match step(order.status, Fact.PLACED):
        case Step.REMEMBER:
            store.move(tx, order, Status.DUE, total)
        case Step.SETTLE:
            _settle(tx, order, total, decline_above)


def reserved(tx: atoll.Transaction, order_id: str, decline_above: int | None) -> None:
    """Captures the order's total, 0 too, or declines one that is above `decline_above`."""
    order = store.order(tx, order_id)
    match step(order.status, Fact.RESERVED):
        case Step.AWAIT:
            store.move(tx, order, Status.AWAITED, None)
        case Step.SETTLE:
            assert order.amount is not None, "an order that is due has an amount"
            _settle(tx, order, order.amount, decline_above)


def cancelled(tx: atoll.Transaction, order_id: str) -> None:
    """Gives back what was captured; if nothing was, sees to it that nothing will be."""
    order = store.order(tx, order_id)
    match step(order.status, Fact.CANCELLED):
        case Step.VOID:
            store.move(tx, order, Status.VOID, order.amount)
        case Step.REFUND:
            assert order.amount is not None, "what was captured has an amount"
            store.move(tx, order, Status.REFUNDED, order.amount)
            _refund(tx, order_id, order.amount, "order_cancelled")


def returned(tx: atoll.Transaction, return_id: str, total: int) -> None:
    """Gives back the total of a return, once."""
    _refund(tx, return_id, total, "return")


def _settle(tx: atoll.Transaction, order: Order, amount: int, decline_above: int | None) -> None:
    entered = settled(amount, decline_above)
    store.move(tx, order, entered, amount)
    if entered is Status.CAPTURED:
        store.add_payment(tx, order.order_id, amount)
        tx.publish("payments.payment.captured.v1", order.order_id, messages.captured(order.order_id, amount))
    else:
        assert decline_above is not None, "only a limit declines"
        declined = messages.declined(order.order_id, amount, decline_above)
        tx.publish("payments.payment.declined.v1", order.order_id, declined)


def _refund(tx: atoll.Transaction, reference: str, amount: int, reason: RefundReason) -> None:
    if store.add_refund(tx, reference, amount, reason):
        tx.publish("payments.payment.refunded.v1", reference, messages.refunded(reference, amount, reason))
