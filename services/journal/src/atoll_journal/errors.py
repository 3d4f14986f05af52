"""What ends the process or a session, named for the cause."""


class FatalError(Exception):
    """The process cannot go on: one line on stderr, and this exit code."""

    exit_code = 70


class ConfigurationError(FatalError):
    """A variable or a file is wrong; the text names it and what was expected."""

    exit_code = 64


class PortTakenError(FatalError):
    exit_code = 69


class StorageError(FatalError):
    """The database can not be trusted any more: an I/O error, corruption."""

    exit_code = 74


class LockedError(FatalError):
    """Another process has the database open."""

    exit_code = 75


class NoRoomError(Exception):
    """Nothing can be stored now, and nothing was: the disk is full. It may be freed."""


class WireError(Exception):
    """A message is not wire version 1. `code` and `field` as in the spec's errors.json."""

    def __init__(self, code: str, text: str, field: str | None = None) -> None:
        super().__init__(f"{code}: {text}" + (f" ({field})" if field else ""))
        self.code = code
        self.field = field


class EndedError(Exception):
    """The session is over; the text says why. `refused`: the broker said no to HELLO: an operator has to act."""

    def __init__(self, why: str, *, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused
