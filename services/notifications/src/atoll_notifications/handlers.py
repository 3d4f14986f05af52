"""What notifications hears from orders. Each handler runs inside one commit of inbox row and mail."""

import time
from collections.abc import Callable
from typing import Any

import atoll
from atoll_notifications import letter, messages, store
from atoll_notifications.domain import Notice, mail_name, recipient
from atoll_notifications.settings import Settings


def subscriptions(settings: Settings, on_mail: Callable[[], None]) -> atoll.SubscriptionTable:
    """The handlers. `on_mail` is called on the writer thread for each mail, before it is committed."""
    events = atoll.SubscriptionTable()

    @events.on("orders.order.confirmed.v1", messages.OrderConfirmed)
    def tell_confirmed(event: atoll.Event[messages.OrderConfirmed], tx: atoll.Transaction) -> None:
        try:
            notice = messages.confirmation(event.subject, event.data)
        except ValueError as error:
            raise atoll.Reject(str(error), field="data") from None
        _write(event, notice, tx)

    @events.on("orders.order.cancelled.v1", messages.OrderCancelled)
    def tell_cancelled(event: atoll.Event[messages.OrderCancelled], tx: atoll.Transaction) -> None:
        _write(event, messages.cancellation(event.subject, event.data), tx)

    def _write(event: atoll.Event[Any], notice: Notice, tx: atoll.Transaction) -> None:
        try:
            message = letter.compose(notice, event.id, event.time, settings.sender)
        except ValueError as error:
            raise atoll.Reject(str(error), field="time") from None
        mail = store.Mail(
            order_id=event.subject,
            name=mail_name(event.id),
            topic=event.type,
            recipient=recipient(notice.customer),
            traceparent=event.traceparent,
            message=message,
            made_at=time.time(),
        )
        if not store.add(tx, mail, by_smtp=settings.smtp is not None):
            raise atoll.Reject(f"order {event.subject} has had its mail", field="subject")
        on_mail()

    return events
