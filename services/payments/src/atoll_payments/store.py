"""All the SQL of payments. Functions take the `Transaction` that they work in; the caller owns the commit."""

from dataclasses import dataclass

import atoll
from atoll_payments import domain
from atoll_payments.domain import Status
from atoll_payments.messages import RefundReason


@dataclass(frozen=True, slots=True)
class Order:
    """Where an order stands: `status` None if it was never heard of, `amount` (ten-thousandths) None until known."""

    order_id: str
    status: Status | None = None
    amount: int | None = None


def order(reader: atoll.Reader, order_id: str) -> Order:
    row = reader.one("SELECT status, amount FROM orders WHERE order_id = ?", order_id)
    return Order(order_id) if row is None else Order(order_id, Status(row["status"]), row["amount"])


def move(tx: atoll.Transaction, seen: Order, entered: Status, amount: int | None) -> None:
    """Moves an order on from where the caller, in this transaction, saw it."""
    if seen.status is None:
        changed = tx.execute(
            "INSERT INTO orders (order_id, status, amount) VALUES (?, ?, ?)", seen.order_id, entered, amount
        )
    else:
        changed = tx.execute(
            "UPDATE orders SET status = ?, amount = ? WHERE order_id = ? AND status = ?",
            entered,
            amount,
            seen.order_id,
            seen.status,
        )
    assert changed == 1, "one writer: nobody moved the order in between"


def add_payment(tx: atoll.Transaction, order_id: str, amount: int) -> None:
    tx.execute(
        "INSERT INTO payments (payment_id, order_id, amount) VALUES (?, ?, ?)",
        domain.payment_id(order_id),
        order_id,
        amount,
    )


def add_refund(tx: atoll.Transaction, reference: str, amount: int, reason: RefundReason) -> bool:
    """Records a refund; False if this reference was refunded before."""
    added = tx.execute(
        "INSERT INTO refunds (refund_id, reference, amount, reason) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        domain.refund_id(reference),
        reference,
        amount,
        reason,
    )
    return added == 1
