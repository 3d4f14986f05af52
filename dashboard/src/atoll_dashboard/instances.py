"""What control tells of one instance beyond the snapshot: its last log lines and its configuration."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

A = TypeVar("A", bound=msgspec.Struct)


class InstanceError(ValueError):
    """Control said something that this dashboard does not understand; the text names the field."""


class Line(msgspec.Struct, frozen=True):
    """A line of a log; `at` in seconds since the epoch. What was no JSON has a text alone."""

    text: str = ""
    at: float | None = None
    level: str | None = None
    event: str | None = None
    trace_id: str | None = None


class Log(msgspec.Struct, frozen=True):
    """The last lines, oldest first."""

    lines: list[Line]


class Setting(msgspec.Struct, frozen=True):
    """A variable of an instance's environment; of one that is `masked` not all is shown."""

    name: str
    value: str
    masked: bool = False


class Configuration(msgspec.Struct, frozen=True):
    """What the agent gives an instance when it starts it."""

    settings: list[Setting]


def read(answer: dict[str, Any], shape: type[A]) -> A:
    """An answer of control. Raises InstanceError naming the field that is not as expected."""
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as error:
        raise InstanceError(str(error)) from error
