"""What a handler sees: the event, and the table that binds topics to handlers.

A service reads its events as it reads its routes: a `SubscriptionTable` beside a `RouteTableDef`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from ._decoding import explain
from ._errors import Reject

if TYPE_CHECKING:
    from ._database import Transaction

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


class Event(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One delivered event, its `data` decoded into the handler's own type."""

    id: str
    """Unique within `source`; the same on every delivery."""
    source: str
    type: str
    """The topic, such as `orders.order.placed.v1`."""
    subject: str
    """The ordering key: events of one subject are handled one after the other."""
    time: str
    """When it was published, RFC 3339, by the publisher's clock."""
    data: T
    attempt: int
    """1 on the first delivery."""
    traceparent: str | None = None


Handler = Callable[[Event[Any], "Transaction"], object]


class Subscription(msgspec.Struct, frozen=True):
    """A topic, the type of its data, and who handles it."""

    topic: str
    data_type: type[msgspec.Struct]
    handler: Handler
    decoder: msgspec.json.Decoder[Any]

    def decode(self, data: bytes | msgspec.Raw) -> Any:
        """Raises Reject naming the field: what cannot be read now cannot be read later either."""
        try:
            return self.decoder.decode(data)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            text, field = explain(error)
            raise Reject(f"data does not fit {self.data_type.__name__}: {text}", field) from None


class SubscriptionTable:
    """Topics and their handlers; one handler a topic."""

    def __init__(self) -> None:
        self._by_topic: dict[str, Subscription] = {}

    def on(
        self, topic: str, data_type: type[S]
    ) -> Callable[[Callable[[Event[S], Transaction], object]], Callable[[Event[S], Transaction], object]]:
        """Decorates the handler of `topic`. The handler is synchronous and runs on the database's writer thread.

        Its effects, the inbox row and what it publishes are one commit. Raise `Reject` to dead-letter the event,
        `Retry` to see it again after a given time; any other exception is a retry with the group's backoff.
        """

        def register(handler: Callable[[Event[S], Transaction], object]) -> Callable[[Event[S], Transaction], object]:
            if inspect.iscoroutinefunction(handler):
                raise TypeError(f"{handler.__qualname__}: a handler is synchronous, it runs on the writer thread")
            if topic in self._by_topic:
                raise ValueError(f"{topic} has a handler already: {self._by_topic[topic].handler!r}")
            self._by_topic[topic] = Subscription(topic, data_type, handler, msgspec.json.Decoder(data_type))
            return handler

        return register

    @property
    def topics(self) -> list[str]:
        """All topics, sorted."""
        return sorted(self._by_topic)

    def get(self, topic: str) -> Subscription | None:
        """The subscription of `topic`, if there is one."""
        return self._by_topic.get(topic)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self._by_topic.values())

    def __len__(self) -> int:
        return len(self._by_topic)
