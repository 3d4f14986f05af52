"""The agent's log: JSON lines in logs/agent.log, as every part writes them; or on its own output, as PID 1."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from atoll_ops.launch import bound_log, open_log


class Journal:
    """An append-only log; one line a write, so that lines of two processes never mix."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._descriptor = open_log(path)

    def write(self, event: str, level: str = "info", **details: Any) -> None:
        """Write one line; lost if the disk takes none, which must not end the agent."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._path is not None:
            bound_log(self._path)
        line = {"time": now, "level": level, "event": event, "service": "agent"} | details
        with contextlib.suppress(OSError):
            os.write(self._descriptor, json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
