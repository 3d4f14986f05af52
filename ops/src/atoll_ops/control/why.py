"""What became of one event, in each group: the broker's steps, and where the event stands now. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
#: The last step in a group → where the event stands there.
_AFTER = {
    "leased": "in hand",
    "done": "handled",
    "duplicate": "handled",
    "nack": "waits",
    "expired": "waits",
    "died": "waits",
    "fault": "waits",
    "replayed": "waits",
    "term": "dead",
    "dead": "dead",
    "behind": "dead",
    "let_go": "let go",
}


def told(answer: Mapping[str, Any], groups: Mapping[str, Any]) -> dict[str, Any]:
    """The broker's `why` with the trace's id, and by group where the event stands."""
    event = answer["event"]
    return {
        "event": event,
        "trace_id": trace_of(event.get("traceparent")),
        "steps": answer["steps"],
        "complete_since_ms": answer["complete_since_ms"],
        "groups": {
            name: standing(event, name, answer["steps"], group)
            for name, group in sorted(groups.items())
            if event["topic"] in group["topics"]
        },
    }


def trace_of(traceparent: object) -> str | None:
    """The trace's id in a W3C traceparent, or None."""
    found = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    return found["trace"] if found is not None else None


def standing(
    event: Mapping[str, Any], name: str, steps: list[dict[str, Any]], group: Mapping[str, Any]
) -> dict[str, Any]:
    """`{state, why}` of an event in one group. State: handled, in hand, waits, dead, let go."""
    last = next((step for step in reversed(steps) if step["group"] == name), None)
    if last is None and event["seq"] <= group["floor"]:
        return {"state": "handled", "why": "before the steps that are remembered"}
    state = "waits" if last is None else _AFTER.get(last["what"], "waits")
    return {"state": state, "why": _why(state, last, group)}


def _why(state: str, last: Mapping[str, Any] | None, group: Mapping[str, Any]) -> str:
    if state == "in hand" and last is not None:
        return f"with {last['slot']}, attempt {last['attempt']}"
    if state == "waits" and not group["members"]:
        return "the group is detached" if group.get("detached") else "the group has no member"
    if state == "waits":
        waiting = f"{group['lag']} events wait in this group"
        return waiting if last is None else f"to be delivered again, after {last['what']}"
    return str(last["text"]) if last is not None and state in ("dead", "let go") else ""
