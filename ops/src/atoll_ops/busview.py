"""What the bus holds, as lines for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from atoll_ops.logview import harmless

_STALLED_MS = 1000


def as_json(answer: Any) -> int:
    """For programs."""
    print(json.dumps(answer, indent=2))
    return 0


def groups(answer: dict[str, Any]) -> int:
    """A line a group."""
    print(f"{'group':<16}{'lag':>8}{'in flight':>11}{'delayed':>9}{'dead':>6}{'parked keys':>13}{'members':>9}")
    for name, group in sorted(answer["groups"].items()):
        members = group["members"] if isinstance(group["members"], int) else len(group["members"])
        waits = f"{group['lag']:>8}{group['in_flight']:>11}{group.get('delayed', 0):>9}"
        print(f"{name:<16}{waits}{group['dead']:>6}{group['parked_keys']:>13}{members:>9}{_remarks(group)}")
    return 0


def _remarks(group: dict[str, Any]) -> str:
    """What is not as usual."""
    found = ["detached"] if group.get("detached") else []
    if group.get("stalled_ms", 0) >= _STALLED_MS:
        found.append(f"no progress for {group['stalled_ms'] / 1000:.0f} s")
    if group.get("rate"):
        found.append(f"at most {group['rate']:g} events/s")
    found += [f"never got {gap['first']} to {gap['last']}: {gap['why']}" for gap in _as_gaps(group)]
    return harmless("  " + "; ".join(found)) if found else ""


def _as_gaps(group: dict[str, Any]) -> list[dict[str, Any]]:
    gaps: list[dict[str, Any]] = group.get("gaps", [])
    return gaps[-1:]


def topics(answer: dict[str, Any]) -> int:
    """A line a topic."""
    for name, topic in sorted(answer["topics"].items()):
        speaks, hears = (", ".join(topic.get(side, [])) or "nobody" for side in ("publishers", "groups"))
        print(f"{name:<36}{topic['events']:>10} events  {speaks:<14}→ {hears}")
    return 0


def faults(answer: dict[str, Any]) -> int:
    """A line a fault."""
    if not answer["faults"]:
        print("no faults")
    for fault in answer["faults"]:
        where = fault["group"] if fault["topic"] is None else f"{fault['group']}: {fault['topic']}"
        late = f" by {fault['delay_ms']} ms" if fault["kind"] == "delay" else ""
        share = f"{fault['share']:.0%} of deliveries" if fault["share"] < 1 else "every delivery"
        left = f"{fault['left_ms'] / 1000:.0f} s left"
        hits = f"{fault['hits']} hit"
        print(harmless(f"{fault['id']:<8}{fault['kind']}{late}  {where}  {share}  {left}  {hits}  by {fault['by']}"))
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
