"""Frames to messages and back: wire version 1 by the standard library's JSON. Pure.

    [ "A1" command ][ header: JSON object ]( [ payload: JSON array of events ] with PUB and MSG alone )

An event is kept as the very bytes that came, which is what the witness is for; it is parsed beside them only to read
its envelope.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll_journal import shapes
from atoll_journal.errors import WireError

VERSION = b"A1"
NESTING_MAX = 100
_DIGITS_MAX = 640
"""The least that `sys.set_int_max_str_digits` can be set to."""
_WITH_PAYLOAD = frozenset({"PUB", "MSG"})
_SPACE = re.compile(r"[ \t\n\r]*")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _integer(text: str) -> int | str:
    """JSON has integers of any length, Python reads none of thousands of digits: one that long stays its text."""
    return int(text) if len(text) <= _DIGITS_MAX else text


_parse = json.JSONDecoder(parse_constant=_no_constant, parse_int=_integer)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a batch: its bytes, and what they say."""

    raw: bytes
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    command: str
    header: dict[str, Any]
    events: list[Event] | None = None


def encode(command: str, **header: Any) -> list[bytes]:
    """The frames of a command to the broker, without payload. Raises WireError naming a field that does not fit."""
    whole = shapes.TO_BROKER[command](header, "")
    return [VERSION + command.encode(), json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()]


def decode_from_broker(frames: Sequence[bytes]) -> Message | None:
    """A message to a client; None for a command that this version does not know. Raises WireError."""
    try:
        return decode(frames, shapes.TO_CLIENT)
    except WireError as error:
        if error.code == "COMMAND":
            return None
        raise


def decode(
    frames: Sequence[bytes], commands: Mapping[str, shapes.Check], events_max: int = shapes.EXACT_MAX
) -> Message:
    """A message of one of these commands. Raises WireError with the code and field of the spec."""
    command, check = _command(frames, commands)
    wanted = 3 if command in _WITH_PAYLOAD else 2
    if len(frames) != wanted:
        raise WireError("FRAMES", f"{command} has {wanted} frames, got {len(frames)}")
    header = check(_json(frames[1], "HEADER"), "")
    events = _batch(frames[2], events_max) if wanted == 3 else None
    if command == "MSG" and events is not None and len(events) != len(header["messages"]):
        raise WireError("PAYLOAD", f"{len(header['messages'])} deliveries are announced, {len(events)} came")
    return Message(command, header, events)


def fields_of(raw: bytes) -> dict[str, Any]:
    """What an event's bytes say, read as when it came; empty if they are no object. Raises ValueError."""
    value = _parse.decode(raw.decode())
    return value if isinstance(value, dict) else {}


def _command(frames: Sequence[bytes], commands: Mapping[str, shapes.Check]) -> tuple[str, shapes.Check]:
    if not 2 <= len(frames) <= 3:
        raise WireError("FRAMES", f"a message has 2 or 3 frames, got {len(frames)}")
    if not frames[0].startswith(VERSION):
        raise WireError("VERSION", f"the first frame begins with A1, got {frames[0][:16]!r}")
    name = frames[0][len(VERSION) :].decode("ascii", errors="replace")
    check = commands.get(name)
    if check is None:
        raise WireError("COMMAND", f"unknown command {name[:16]!r}")
    return name, check


def _json(data: bytes, code: str) -> Any:
    text = _text(data, code)
    try:
        value = _parse.decode(text)
    except (ValueError, RecursionError) as error:
        raise WireError(code, f"not JSON: {error}") from None
    _check_depth(value, code)
    return value


def _batch(data: bytes, events_max: int) -> list[Event]:
    """The events of a JSON array, each with the very bytes that it has there."""
    text = _text(data, "PAYLOAD")
    events: list[Event] = []
    try:
        at = _skip(text, 0, "[")
        while True:
            at = _skip(text, at)
            value, end = _parse.raw_decode(text, at)
            if len(events) == events_max:
                raise WireError("PAYLOAD", f"more than {events_max} events")
            _check_depth(value, "PAYLOAD")
            events.append(Event(text[at:end].encode(), value if isinstance(value, dict) else {}))
            at = _skip(text, end)
            if text[at : at + 1] == "]":
                _skip_end(text, at + 1)
                return events
            at = _skip(text, at, ",")
    except (ValueError, RecursionError) as error:
        raise WireError("PAYLOAD", f"not a JSON array of events: {error}") from None


def _skip(text: str, at: int, char: str = "") -> int:
    match = _SPACE.match(text, at)
    at = match.end() if match else at
    if char and text[at : at + 1] != char:
        raise ValueError(f"expected {char} at {at}")
    return at + len(char)


def _skip_end(text: str, at: int) -> None:
    if _skip(text, at) != len(text):
        raise ValueError(f"something follows the array at {at}")


def _text(data: bytes, code: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WireError(code, f"not UTF-8: {error.reason} at {error.start}") from None


def _check_depth(value: Any, code: str) -> None:
    """Arrays and objects are levels; libraries give up at different depths, and what one reads the next must too."""
    level = [value]
    for _ in range(NESTING_MAX):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)]
        if not level:
            return
    raise WireError(code, f"nests deeper than {NESTING_MAX} levels")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
