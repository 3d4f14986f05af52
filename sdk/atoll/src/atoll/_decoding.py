"""Turns msgspec's error texts into (text, field): the field is a JSON path such as `lines[0].quantity`."""

from __future__ import annotations

import re

import msgspec

_NAMED = re.compile(r"(?:missing required|contains unknown) field `(?P<name>[^`]*)`")


def explain(error: msgspec.MsgspecError) -> tuple[str, str | None]:
    """What is wrong and where; None as the field means the value as a whole."""
    text, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`").removeprefix(".")
    named = _NAMED.search(text)
    if named:
        path = f"{path}.{named['name']}" if path else named["name"]
    return text, path or None
