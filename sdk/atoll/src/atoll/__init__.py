"""Atoll's client library: publish from an outbox, consume into an inbox, over one ZeroMQ session.

A service needs `Options`, `Database`, `SubscriptionTable` and `atoll.web.attach` (pip extra `web`); the rest is for
parts that talk to the bus without being services. What it promises, in order:

1. What a transaction publishes is sent if, and only if, the transaction is committed and fsynced.
2. No event leaves the outbox before the broker has acknowledged it, and it has it on disk then.
3. A handler's effects happen once per event, however often the event is delivered.
4. Nothing on the business path waits for the broker, for telemetry or for logs.
"""

from . import logs, telemetry
from ._database import Database, Reader, Transaction
from ._errors import (
    AtollError,
    BusRefusedError,
    BusUnavailableError,
    ConfigurationError,
    DatabaseLockedError,
    EventTooLargeError,
    FatalError,
    MigrationError,
    OverloadedError,
    PortTakenError,
    Reject,
    Retry,
    StorageError,
    UndeclaredTopicError,
)
from ._events import Event, SubscriptionTable
from ._options import Options
from ._session import Session
from ._tap import Missed, Tap, Tapped

__all__ = [
    "AtollError",
    "BusRefusedError",
    "BusUnavailableError",
    "ConfigurationError",
    "Database",
    "DatabaseLockedError",
    "Event",
    "EventTooLargeError",
    "FatalError",
    "MigrationError",
    "Missed",
    "Options",
    "OverloadedError",
    "PortTakenError",
    "Reader",
    "Reject",
    "Retry",
    "Session",
    "StorageError",
    "SubscriptionTable",
    "Tap",
    "Tapped",
    "Transaction",
    "UndeclaredTopicError",
    "logs",
    "telemetry",
]
