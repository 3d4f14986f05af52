"""The history of a role: JSON lines, each written before what it announces and after what it reports.

`publisher-shop.0003.jsonl` is the third life of the role `publisher-shop`. A life that was killed may end in half a
line: that operation was announced and not begun, so the reader leaves it out.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

Record = dict[str, Any]
Logs = dict[str, list[Record]]
"""Role -> its operations in the order in which it did them, over all its lives."""


class DamagedHistoryError(Exception):
    """A line that no role would have written."""


def dumps(value: object) -> str:
    """JSON without spaces, members in their order: equal text is equal content."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def digest(data: object) -> str:
    """Of an event's data, as it was published and as it arrived."""
    return hashlib.blake2b(dumps(data).encode(), digest_size=8).hexdigest()


def recorder_path(folder: Path, role: str, life: int) -> Path:
    """Where a life's history lies; it is there once the life has begun."""
    return folder / f"{role}.{life:04}.jsonl"


class Recorder:
    """Appends to one life's file. A line is with the operating system when `say` returns: a kill does not undo it."""

    def __init__(self, folder: Path, role: str, life: int) -> None:
        self._file = os.open(recorder_path(folder, role, life), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def say(self, op: str, **fields: Any) -> None:
        """One operation."""
        self.say_all([{"op": op, **fields}])

    def say_all(self, records: list[Record]) -> None:
        """Several operations, in one write."""
        left = "".join(dumps(record) + "\n" for record in records).encode()
        while left:
            left = left[os.write(self._file, left) :]


def read(folder: Path) -> Logs:
    """All histories of a folder. Raises DamagedHistoryError."""
    logs: Logs = {}
    for path in sorted(folder.glob("*.*.jsonl")):
        role = path.name.split(".")[0]
        logs.setdefault(role, []).extend(_lines(path))
    return logs


def _lines(path: Path) -> list[Record]:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    lines.pop()  # what follows the last newline: nothing, or half a line
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise DamagedHistoryError(f"{path}: {error}") from None
