"""What a run says beside passed and failed: times beside their promises, seeds, counts of faults.

pytest hides what a passing test prints; these lines come in its summary, and `./atoll test` repeats them.
"""

from __future__ import annotations

#: Begins each line, so that the command finds them in a suite's log.
MARK = "» "
_lines: list[str] = []


def say(line: str) -> None:
    """Report one line at the end of the run, and at once for who runs pytest with -s."""
    _lines.append(line)
    print(line, flush=True)


def lines() -> list[str]:
    """Everything said so far."""
    return [MARK + line for line in _lines]
