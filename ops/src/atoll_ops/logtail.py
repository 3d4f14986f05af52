"""The last lines of a log, for programs: each with its time, level, event, text and trace, as far as it has them.

A log may be long, and one of its lines too: so many bytes are read from its end and no more, and a long text is cut.
What is no JSON (a traceback, a word of a library's) is a line with a text alone.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LINES_MAX = 500
BYTES_MAX = 256 * 1024
TEXT_MAX = 4000  # characters; with every one of them escaped, 500 lines fit into what an agent may answer
_LEVEL_MAX = 16
_TOLD_APART = ("time", "level", "event", "service", "slot")
_TRACE_ID = re.compile(r"[0-9a-f]{16,32}")

Line = dict[str, Any]


def last_lines(log: Path, count: int) -> list[Line]:
    """`{at, level, event, text, trace_id}` of the last lines, oldest first; `at` in seconds since the epoch.

    Fewer where so many are not within BYTES_MAX. A log that was put aside just now is read on in the older one.
    """
    found = _ending(log, BYTES_MAX)
    if len(found) < count:
        read = sum(len(line) + 1 for line in found)
        found = _ending(log.with_suffix(".log.1"), BYTES_MAX - read) + found
    return [structured(line.decode(errors="replace")) for line in found[-count:]]


def _ending(log: Path, bytes_max: int) -> list[bytes]:
    """The lines in a file's last bytes. One whose beginning is not among them is left out, if there is another."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - bytes_max))
            lines = file.read(bytes_max).split(b"\n")
    except OSError:
        return []  # none yet: the instance was never started here
    if size > bytes_max and len(lines) > 1:
        lines = lines[1:]
    return [line for line in lines if line.strip()]


def structured(line: str) -> Line:
    """One line, told apart."""
    entry = _entry(line)
    if entry is None:
        return {"at": None, "level": None, "event": None, "text": _cut(line), "trace_id": None}
    trace_id = entry.get("trace_id")
    traced = isinstance(trace_id, str) and _TRACE_ID.fullmatch(trace_id) is not None
    hidden = (*_TOLD_APART, "trace_id") if traced else _TOLD_APART
    shown = ((name, value) for name, value in entry.items() if name not in hidden and value not in (None, ""))
    level, event = entry.get("level"), entry.get("event")
    return {
        "at": _moment(entry.get("time")),
        "level": str(level).lower()[:_LEVEL_MAX] if level else None,
        "event": _cut(str(event)) if event else None,
        "text": _cut(" ".join(f"{name}={value}" for name, value in shown)),
        "trace_id": trace_id if traced else None,
    }


def _entry(line: str) -> dict[str, Any] | None:
    """The line as an object that has a word of ours, or None."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and ("event" in entry or "time" in entry) else None


def _moment(told: object) -> float | None:
    if not isinstance(told, str):
        return None
    try:
        moment = datetime.fromisoformat(told)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]} … and {len(text) - TEXT_MAX} characters more"
