"""Errors, named for their cause and for who is at fault.

The wire codes are data in spec/errors.json as well; a test holds the two together.
"""

from __future__ import annotations

from typing import Final

# What a process that ends badly says by its exit code.
EXIT_CONFIGURATION: Final = 64
EXIT_PORT_TAKEN: Final = 69
EXIT_INTERNAL: Final = 70
EXIT_STORAGE: Final = 74
EXIT_LOCKED: Final = 75

# code -> does an ERR with it end the session? (ACL ends it only as the answer to HELLO.)
CODES: Final[dict[str, bool]] = {
    "FRAMES": True,
    "VERSION": True,
    "COMMAND": False,
    "HEADER": True,
    "PAYLOAD": True,
    "NO_SESSION": True,
    "SESSION": True,
    "ACL": False,
    "GROUP": False,
    "PRODUCER": True,
    "CONTRACT": True,
    "VERB": False,
    "LIMIT": True,
    "SCHEMA": False,
    "TOO_LARGE": False,
    "BUSY": False,
    "EXPECTED": False,
}


class BrokerError(Exception):
    """The base of what this broker raises on purpose."""


class ConfigurationError(BrokerError):
    """The operator's: an environment variable or a field of mesh.toml is wrong. The text names it."""


class WireError(BrokerError):
    """The peer's: what it sent is refused. Becomes an ERR; never stops the broker.

    `field` is a path in the header (`endpoints.routes[0].path`), or None where no field is to blame.
    """

    def __init__(self, code: str, text: str, field: str | None = None, *, closes: bool | None = None) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.field = field
        self.closes = CODES[code] if closes is None else closes


class EventRefusedError(BrokerError):
    """The publisher's: this event is never accepted. Becomes an entry in PUBACK.refused and spends its pseq."""

    def __init__(self, code: str, field: str, text: str) -> None:
        super().__init__(f"{code}: {field}: {text}")
        self.code = code
        self.field = field
        self.text = text


class StorageFailedError(BrokerError):
    """The disk's: a write or a flush failed, or the log is corrupt. The broker seals itself and exits 74.

    After a failed flush nobody knows what the disk holds, so trying again would turn a guess into an ack.
    """


class StorageFullError(BrokerError):
    """The disk is full: nothing of this batch was written. Publishers are told BUSY until there is room again."""


class StorageLockedError(BrokerError):
    """Another process holds the data directory (exit 75)."""


class PortTakenError(BrokerError):
    """A listen address is in use or can not be bound (exit 69). The text names the variable to change."""
