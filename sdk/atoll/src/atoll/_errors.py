"""Errors of the client library, named for the cause and saying what the caller may do.

The verdicts `Reject` and `Retry` are raised *by* handlers, to say what becomes of an event.
Those with an `exit_code` end the process at its start; `web.serve` prints their one line and exits with it.
"""

from __future__ import annotations


class AtollError(Exception):
    """Base of all errors that this library raises by itself."""


class FatalError(AtollError):
    """The process cannot go on: print the text, exit with `exit_code` (the supervisor reads it)."""

    exit_code: int = 70


class ConfigurationError(FatalError):
    """A variable, a field or a file of the configuration is wrong; the text names it and what was expected.

    Correct it and start again: nothing was touched. Exit code 64.
    """

    exit_code = 64


class PortTakenError(FatalError):
    """Another process listens on the HTTP address. Exit code 69."""

    exit_code = 69


class StorageError(FatalError):
    """The database could not be read or committed: full or failing disk, or corruption. Exit code 74.

    What was in the failed transaction is undone or unknown; nothing of it was published.
    """

    exit_code = 74


class DatabaseLockedError(FatalError):
    """Another live process has this database open, or it was made by another service. Exit code 75."""

    exit_code = 75


class MigrationError(ConfigurationError):
    """The migrations in the folder do not continue what was applied to the database. Exit code 64.

    Restore the changed or missing file; write the change as a new, higher number.
    """


class OverloadedError(AtollError):
    """Too many writes wait for the writer thread. Nothing was done: try again later."""


class UndeclaredTopicError(AtollError):
    """`publish` on a topic that is not in `contract/publishes`. A bug in the service: declare the topic."""


class EventTooLargeError(AtollError):
    """The event is larger than the bus takes. Nothing was appended; the transaction fails unless this is caught."""


class BusUnavailableError(AtollError):
    """No session with the broker, or it ended before the answer came. For a request, the outcome is unknown."""


class BusRefusedError(AtollError):
    """The broker refused a request. `code` and `field` are the broker's; sending it again will not help."""

    def __init__(self, code: str, text: str, field: str | None = None) -> None:
        super().__init__(f"{code}: {text}" + (f" ({field})" if field else ""))
        self.code = code
        self.text = text
        self.field = field


class Reject(Exception):  # noqa: N818 - a verdict, not an error
    """Raise in a handler: the event can never be handled. Its effects are undone; it becomes a dead letter at once.

    `field` is the JSON path of the part of `data` that is at fault, where there is one.
    """

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason if field is None else f"{reason} ({field})")
        self.reason = reason
        self.field = field


class Retry(Exception):  # noqa: N818 - a verdict, not an error
    """Raise in a handler: undo its effects and deliver the event again after this many seconds.

    It counts as an attempt. Without a wish for the delay raise any other exception: the group's backoff applies.
    """

    def __init__(self, after_seconds: float) -> None:
        if not 0 <= after_seconds <= 3600:
            raise ValueError(f"after_seconds must be 0…3600, is {after_seconds}")
        super().__init__(f"again after {after_seconds:g} s")
        self.after_seconds = after_seconds
