"""`logs`: the parts' JSON lines, merged by time and made readable; what is no JSON is shown as it is."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from atoll_ops.errors import OperationError
from atoll_ops.state import State

_LINES = 200
_TAIL_BYTES = 512 * 1024
_LOOK_EVERY_SECONDS = 0.2
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_HIDDEN = ("time", "level", "event", "service", "slot")


def show(state: State, name: str | None, *, follow: bool) -> int:
    """Print the last lines, then with `follow` whatever comes. Raises OperationError if there is no such log."""
    paths = _paths(state, name)
    offsets = {path: path.stat().st_size for path in paths}
    lines = sorted((entry for path in paths for entry in _tail(path)), key=lambda entry: entry[0])
    for _, text in lines[-_LINES:]:
        print(text)
    while follow:
        sys.stdout.flush()
        time.sleep(_LOOK_EVERY_SECONDS)
        for path in _paths(state, name):
            offsets[path] = _print_from(path, offsets.get(path, 0))
    return 0


def _paths(state: State, name: str | None) -> list[Path]:
    wanted = "*" if name is None else name.replace("/", "-") if "/" in name or name == "agent" else f"{name}-[0-9]*"
    found = sorted(state.logs.glob(f"{wanted}.log"))
    if not found:
        raise OperationError(f"no logs of {name or 'anything'} in {state.logs}")
    return found


def _tail(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        moment = ""
        for line in file.read().decode(errors="replace").splitlines()[-_LINES:]:
            said, text = readable(line, path.stem)
            moment = said or moment  # a traceback's lines stay with the line that they follow
            yield moment, text


def _print_from(path: Path, offset: int) -> int:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < offset:  # put aside, and begun anew
            offset = 0
        file.seek(offset)
        chunk = file.read()
    whole = chunk[: chunk.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        print(readable(line, path.stem)[1])
    return offset + len(whole)


def readable(line: str, source: str) -> tuple[str, str]:
    """A log line's time and its text for people."""
    try:
        entry = json.loads(line)
        moment = str(entry["time"])
    except (ValueError, KeyError, TypeError):
        return "", f"{'':12} {source:<12} {harmless(line)}"
    shown = ((key, value) for key, value in entry.items() if key not in _HIDDEN and value not in (None, ""))
    details = " ".join(f"{key}={value}" for key, value in shown)
    level = str(entry.get("level", ""))
    text = f"{moment[11:23]:12} {source:<12} {level:<8} {entry.get('event', '')}  {details}"
    return moment, harmless(text.rstrip())


def harmless(text: str) -> str:
    """Without what a terminal would obey: parts log, and events carry, words that strangers chose."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\n", "\n" + " " * 13))
