"""What the others say of our orders and returns. Each runs inside one commit of inbox, state and outbox."""

import atoll
from atoll_orders import messages, saga
from atoll_orders.domain import Fact, Kind, money

events = atoll.SubscriptionTable()


@events.on("inventory.stock.rejected.v1", messages.StockRejected)
def cancel_without_stock(event: atoll.Event[messages.StockRejected], tx: atoll.Transaction) -> None:
    short = event.data
    detail = f"{short.sku}: {short.wanted} wanted, {short.available} available"
    saga.cancel(tx, saga.known(tx, Kind.ORDER, event.subject), Fact.STOCK_REJECTED, detail)


@events.on("payments.payment.declined.v1", messages.PaymentDeclined)
def cancel_unpaid(event: atoll.Event[messages.PaymentDeclined], tx: atoll.Transaction) -> None:
    saga.cancel(tx, saga.known(tx, Kind.ORDER, event.subject), Fact.PAYMENT_DECLINED, event.data.reason)


@events.on("payments.payment.captured.v1", messages.PaymentCaptured)
def confirm_paid(event: atoll.Event[messages.PaymentCaptured], tx: atoll.Transaction) -> None:
    order = saga.known(tx, Kind.ORDER, event.subject)
    total = money(order.invoice.total)
    if event.data.amount != total:  # the same money is written the same way; anything else is for a person to look at
        raise atoll.Reject(f"captured {event.data.amount}, the order's total is {total}", field="amount")
    saga.confirm(tx, order)


@events.on("payments.payment.refunded.v1", messages.PaymentRefunded)
def close_refunded_return(event: atoll.Event[messages.PaymentRefunded], tx: atoll.Transaction) -> None:
    if event.data.reason == "return":  # the other reason is our own cancellation, which is already done
        saga.refund(tx, saga.known(tx, Kind.RETURN, event.subject))
