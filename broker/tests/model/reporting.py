"""Lines for the end of the run; `./atoll test` repeats those that begin with the mark."""

from __future__ import annotations

from typing import Final

MARK: Final = "» "
_lines: list[str] = []


def say(line: str) -> None:
    _lines.append(line)


def lines() -> list[str]:
    return [MARK + line for line in _lines]
