"""What is counted. Each handler runs inside one commit of inbox and sums."""

import atoll
from atoll_sales import ledger, messages
from atoll_sales.domain import Kind

events = atoll.SubscriptionTable()


@events.on("orders.order.confirmed.v1", messages.OrderConfirmed)
def count_order(event: atoll.Event[messages.OrderConfirmed], tx: atoll.Transaction) -> None:
    _count(Kind.ORDER, event.subject, event.data, tx)


@events.on("orders.return.refunded.v1", messages.ReturnRefunded)
def count_return(event: atoll.Event[messages.ReturnRefunded], tx: atoll.Transaction) -> None:
    _count(Kind.RETURN, event.subject, event.data, tx)


def _count(
    kind: Kind,
    subject: str,
    data: messages.OrderConfirmed | messages.ReturnRefunded,
    tx: atoll.Transaction,
) -> None:
    try:
        document = messages.document(kind, subject, data)
    except ValueError as error:
        raise atoll.Reject(str(error), field="lines") from None
    ledger.count(tx, document)
