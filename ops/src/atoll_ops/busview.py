"""What the bus holds, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from atoll_ops.logview import harmless


def groups(answer: dict[str, Any]) -> int:
    """A line a group."""
    print(f"{'group':<16}{'lag':>8}{'in flight':>11}{'dead':>6}{'parked keys':>13}{'members':>9}")
    for name, group in sorted(answer["groups"].items()):
        members = group["members"] if isinstance(group["members"], int) else len(group["members"])
        cells = (group["lag"], group["in_flight"], group["dead"], group["parked_keys"], members)
        print(f"{name:<16}{cells[0]:>8}{cells[1]:>11}{cells[2]:>6}{cells[3]:>13}{cells[4]:>9}")
    return 0


def topics(answer: dict[str, Any]) -> int:
    """A line a topic."""
    for name, topic in sorted(answer["topics"].items()):
        print(f"{name:<36}{topic['events']:>10} events   → {', '.join(topic['groups']) or 'nobody'}")
    return 0


def dead_letters(letters: dict[str, Iterator[dict[str, Any]]]) -> int:
    """A line a dead letter, by group, oldest first."""
    some = False
    for group, found in letters.items():
        for letter in found:
            some = True
            place = f"{group:<16}{letter['seq']:>8}  {letter['topic']:<34}{letter['subject']:<38}"
            print(harmless(f"{place}{letter['cause']}: {letter['error']}"))
    if not some:
        print("no dead letters")
    return 0
