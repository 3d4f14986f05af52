"""What the tests of this service stand on: a bus of one process, options, events, and SMTP servers."""

import asyncio
import inspect
import json
import uuid
from pathlib import Path
from typing import Any

import zmq

import atoll
from atoll_notifications.settings import Settings, Smtp

PROJECT = Path(__file__).parents[1]
NAME = PROJECT.name


class Bus:
    """Hands events to their handlers as the library does, one transaction each."""

    def __init__(self, database: atoll.Database, events: atoll.SubscriptionTable) -> None:
        self.database = database
        self._events = events

    async def deliver(self, topic: str, subject: str, data: dict[str, Any], **more: Any) -> None:
        """Raises what the handler raises; its effects are undone then. `more` replaces fields of the event."""
        subscription = self._events.get(topic)
        assert subscription is not None, f"{topic} has no handler"
        fields: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "source": topic.partition(".")[0],
            "type": topic,
            "subject": subject,
            "time": "2010-12-01T08:26:00Z",
            "data": subscription.decode(json.dumps(data).encode()),
            "attempt": 1,
        }
        event: atoll.Event[Any] = atoll.Event(**(fields | more))
        await self.database.write(lambda tx: subscription.handler(event, tx))

    async def count(self, sql: str, *params: object) -> Any:
        """The one value that a query gives."""
        row = await self.database.read(lambda reader: reader.one(sql, *params))
        assert row is not None
        return row[0]


def options(folder: Path) -> atoll.Options:
    """Options of a service whose broker is away: it runs all the same."""
    keys = folder / "keys"
    keys.mkdir()
    public, secret = zmq.curve_keypair()
    for name, key in (("curve.public", public), ("curve.secret", secret), ("broker.public", public)):
        (keys / name).write_bytes(key + b"\n")
    return atoll.Options(
        slot=f"{NAME}/1",
        host="127.0.0.1",
        port=0,
        data=folder / "data",
        keys=keys,
        bus="tcp://127.0.0.1:9",
        contract=PROJECT / "contract",
        migrations=PROJECT / "migrations",
    )


CONFIRMED, CANCELLED = "orders.order.confirmed.v1", "orders.order.cancelled.v1"


def confirmed(*lines: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The data of an order that is a sale."""
    default = {"sku": "85123A", "description": "WHITE HANGING HEART", "quantity": 6, "unit_price": "2.55"}
    return {"invoice": "536365", "customer": "17850", "total": "15.30", "lines": list(lines) or [default]} | more


def cancelled(**more: Any) -> dict[str, Any]:
    """The data of an order that was cancelled."""
    return {
        "invoice": "536366", "customer": "17850", "reason": "payment_declined", "detail": "101.00 is above 100.00"
    } | more  # fmt: skip


def settings(folder: Path, smtp: Smtp | None = None) -> Settings:
    return Settings(maildir=folder / "maildir", smtp=smtp)


async def until(what: str, holds: Any, seconds: float = 10) -> None:
    """Polls; a time-out says what was waited for."""
    try:
        async with asyncio.timeout(seconds):
            while not (  # noqa: ASYNC110 - any condition
                await holds() if inspect.iscoroutinefunction(holds) else holds()
            ):
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited {seconds:g} s for {what}") from None
