"""What payments hears from orders and inventory. Each handler runs inside one commit of inbox, state and outbox."""

import atoll
from atoll_payments import charging, domain, messages


def subscriptions(decline_above: int | None) -> atoll.SubscriptionTable:
    """The handlers, with the amount (ten-thousandths) above which a payment is declined; None declines none."""
    events = atoll.SubscriptionTable()

    @events.on("orders.order.placed.v1", messages.OrderPlaced)
    def remember_total(event: atoll.Event[messages.OrderPlaced], tx: atoll.Transaction) -> None:
        charging.placed(tx, event.subject, _total(event.data.total), decline_above)

    @events.on("inventory.stock.reserved.v1", messages.StockReserved)
    def capture(event: atoll.Event[messages.StockReserved], tx: atoll.Transaction) -> None:
        charging.reserved(tx, event.subject, decline_above)

    @events.on("orders.order.cancelled.v1", messages.OrderCancelled)
    def refund_cancelled(event: atoll.Event[messages.OrderCancelled], tx: atoll.Transaction) -> None:
        charging.cancelled(tx, event.subject)

    @events.on("orders.return.received.v1", messages.ReturnReceived)
    def refund_return(event: atoll.Event[messages.ReturnReceived], tx: atoll.Transaction) -> None:
        charging.returned(tx, event.subject, _total(event.data.total))

    return events


def _total(text: str) -> int:
    try:
        return domain.amount_of(text)
    except ValueError as error:
        raise atoll.Reject(str(error), field="total") from None
