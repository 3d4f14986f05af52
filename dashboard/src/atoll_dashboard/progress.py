"""Operations in words: states, not clicks. `payments: requested → stopped (killed, 0.1 s) → started (2.1 s)`."""

from __future__ import annotations

from typing import Any

#: What a part's badge says while an operation has got so far and the next snapshot is still to come.
_BADGE = {"stopping": "degraded", "stopped": "down", "paused": "paused", "started": "starting", "timed out": "unknown"}
_END_IS_STOPPED = "stop"


def line(operation: dict[str, Any]) -> str:
    """An operation with all its steps; times are seconds since the one before."""
    steps = operation.get("steps") or []
    said = [_step(step, steps[place - 1] if place else None) for place, step in enumerate(steps)]
    if not operation.get("done"):
        said.append("…")
    return f"{operation.get('name')}: {' → '.join(said)}"


def _step(step: dict[str, Any], before: dict[str, Any] | None) -> str:
    if before is None:
        return str(step["state"])
    took = f"{max(0.0, float(step['at']) - float(before['at'])):.1f} s"
    detail = _without_pid(str(step.get("text") or ""))
    return f"{step['state']} ({f'{detail}, ' if detail else ''}{took})"


def ended(result: str) -> str:
    """How an operation ended, as the audit has it: `started: pid 8`."""
    state, _, text = result.partition(": ")
    detail = _without_pid(text)
    return f"{state}: {detail}" if detail else state


def _without_pid(text: str) -> str:
    return "" if text.startswith("pid ") else text  # it tells nobody anything here


def ahead(operation: dict[str, Any], snapshot_as_of: float) -> str | None:
    """The state that an operation knows better than a snapshot of that time; None once the snapshot is younger."""
    steps = operation.get("steps") or []
    if not steps:
        return None
    last = steps[-1]
    if operation.get("done") and float(last["at"]) < snapshot_as_of:
        return None
    if last["state"] == "stopped" and operation.get("act") == _END_IS_STOPPED:
        return "stopped"
    return _BADGE.get(str(last["state"]))


def ended_badly(operation: dict[str, Any]) -> bool:
    """Whether it is over and did not do what was asked."""
    return bool(operation.get("done")) and not operation.get("ok")
