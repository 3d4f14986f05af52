"""What inventory hears from orders. Each handler runs inside one commit of inbox, state and outbox."""

import atoll
from atoll_inventory import messages, reserving


def subscriptions(opening_stock: int) -> atoll.SubscriptionTable:
    """The handlers, with the units that a SKU has before it first moves."""
    events = atoll.SubscriptionTable()

    @events.on("orders.order.placed.v1", messages.OrderPlaced)
    def reserve(event: atoll.Event[messages.OrderPlaced], tx: atoll.Transaction) -> None:
        reserving.reserve(tx, event.subject, messages.lines_of(event.data), opening_stock)

    @events.on("orders.order.cancelled.v1", messages.OrderCancelled)
    def release(event: atoll.Event[messages.OrderCancelled], tx: atoll.Transaction) -> None:
        reserving.release(tx, event.subject, opening_stock)

    @events.on("orders.return.refunded.v1", messages.ReturnRefunded)
    def restock(event: atoll.Event[messages.ReturnRefunded], tx: atoll.Transaction) -> None:
        reserving.restock(tx, event.subject, messages.lines_of(event.data), opening_stock)

    return events
