"""How the system is, from the agent, or without one from locks and records alone."""

from __future__ import annotations

import time
from typing import Any

from atoll_ops import acts, client, prepare
from atoll_ops.agent import read_stopped
from atoll_ops.errors import AgentGoneError, OperationError
from atoll_ops.instance import memory_mb
from atoll_ops.keys import CONTROL
from atoll_ops.ports import HOST
from atoll_ops.slots import Record, Slot, SlotFiles, is_held, is_stopped
from atoll_ops.state import State, SystemFile

_CONTROL_SECONDS = 1.0


def snapshot(state: State) -> dict[str, Any]:
    """The agent's snapshot with what control observes beside it, or one made from the outside without an agent."""
    try:
        return _with_observed(state, client.ask(state, do="snapshot"))
    except AgentGoneError:
        return from_locks(state)


def _with_observed(state: State, seen: dict[str, Any]) -> dict[str, Any]:
    """The agent's word stands, since it is the newer one; control adds what it alone knows, if it answers at once."""
    control = next((part for part in seen["parts"] if part["name"] == CONTROL), None)
    if control is None or control["state"] not in ("running", "degraded"):
        return seen
    try:
        observed: dict[str, Any] = acts.control(state, "GET", "/ops/snapshot", seconds=_CONTROL_SECONDS)
    except (acts.ControlDownError, OperationError):
        return seen
    by_slot = {(part["name"], part["instance"]): part for part in observed["parts"]}
    parts = [by_slot.get((part["name"], part["instance"]), {}) | part for part in seen["parts"]]
    return observed | seen | {"parts": parts}


def from_locks(state: State) -> dict[str, Any]:
    """What the kernel knows: which slots are filled, and by whom. Whether a part is well, only an agent asks."""
    system = state.read_system()
    stopped = read_stopped(state)
    parts = [_part(state, system, Slot(name), stopped) for name in system.kinds] if system else []
    return {
        "system": system.name if system else None,
        "as_of": time.time(),
        "agent": _agent(state),
        "parts": parts,
    }


def _agent(state: State) -> dict[str, Any]:
    """The lock tells one that is gone from one that does not speak yet (it installs) or any more (it hangs)."""
    if not is_held(state.agent_lock):
        return {"state": "gone", "pid": None}
    return {"state": "unknown" if state.agent_socket.exists() else "starting", "pid": prepare.owner(state)}


def _part(state: State, system: SystemFile, slot: Slot, stopped: set[str]) -> dict[str, Any]:
    files = SlotFiles(state, slot)
    record = files.living()
    word, why = _state(files, record, str(slot) in stopped)
    return {
        "name": slot.name,
        "instance": slot.instance,
        "kind": system.kinds[slot.name],
        "pid": record.pid if record else None,
        "state": word,
        "why": why,
        "host": HOST,
        "port": system.ports.parts[slot.name],
        "restarts": record.restarts if record else 0,
        "exits": [],
        "failures": 0,
        "wanted": "stopped" if str(slot) in stopped else "up",
        "uptime_seconds": round(time.time() - record.started_at, 1) if record else None,
        "memory_mb": memory_mb(record.pid) if record else None,
        "paused_until": record.paused_until if record else None,
        "paused_by": record.paused_by if record else "",
        "paused_reason": record.paused_reason if record else "",
        "operation": None,
    }


def _state(files: SlotFiles, record: Record | None, stopped: bool) -> tuple[str, str]:
    if record is not None:
        still = is_stopped(record.pid)
        return ("paused", "no agent will resume it") if still else ("running", "no agent looks after it")
    if files.filled():
        return "unknown", "filled by a process without a record"
    return ("stopped", "stopped by an operator") if stopped else ("down", "no process")
