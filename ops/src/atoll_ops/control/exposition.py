"""Prometheus' text form, as much of it as control reads: named families in, everything else passed over.

Not prometheus_client's parser: that makes objects of every line of every family, of which a fraction is wanted here
(measured: docs/decisions/0015-control-observes.md). What is scraped comes from a part that may be of any make, or
broken, so a line that does not parse is skipped, never an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator

Series = tuple[str, dict[str, str], float]
"""Name, labels, value."""

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}
_ESCAPED = re.compile(r"\\.")
_NAME_ENDS = re.compile(r"[{ \t]")


def read(text: str, wanted: Container[str]) -> Iterator[Series]:
    """The series whose names are wanted, in the text's order."""
    for line in text.split("\n"):
        if _NAME_ENDS.split(line, maxsplit=1)[0] not in wanted:
            continue
        found = _LINE.fullmatch(line.rstrip())
        if found is not None and (value := _number(found[3])) is not None:
            yield found[1], _labels(found[2]), value


def _labels(text: str | None) -> dict[str, str]:
    return {name: _ESCAPED.sub(_unescape, value) for name, value in _LABEL.findall(text or "")}


def _unescape(escaped: re.Match[str]) -> str:
    return _ESCAPES.get(escaped[0], escaped[0])


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
