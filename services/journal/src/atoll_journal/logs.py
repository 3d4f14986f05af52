"""Logs: a JSON line an event on stderr, with `time level event service slot`, as every part writes them."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from atoll_journal.settings import LEVELS


class Log:
    def __init__(self, slot: str, level: str = "info", stream: TextIO | None = None) -> None:
        self._slot = slot
        self._least = LEVELS.index(level)
        self._stream = stream or sys.stderr

    def debug(self, event: str, **fields: Any) -> None:
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if LEVELS.index(level) < self._least:
            return
        head = {
            "time": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": level,
            "event": event[:4096],
            "service": self._slot.partition("/")[0],
            "slot": self._slot,
        }
        try:
            self._stream.write(json.dumps(head | fields, default=str) + "\n")
            self._stream.flush()
        except OSError:  # nobody reads the log, or its disk is full: that must not stop the witness
            pass
