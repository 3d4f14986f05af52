"""Everything before the first process: who owns the state directory, which ports, which keys, which environments.

Checks come before changes, so a refused `up` leaves a state directory as it found it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atoll_ops import keys, mesh, ports
from atoll_ops.agent import filled_slots
from atoll_ops.errors import AlreadyRunningError, MeshError, OperationError
from atoll_ops.jaeger import existing, settings
from atoll_ops.launch import Plan
from atoll_ops.slots import Slot, SlotFiles, acquire, is_held
from atoll_ops.state import State, SystemFile

Say = Callable[[str, str], None]


@dataclass(frozen=True)
class Wish:
    """What `up` was asked for."""

    ports: int | None = None  # base of all ports; 0: free ones, None: as last time, else the default
    only: tuple[str, ...] = ()  # start these parts alone; none: all
    without: tuple[str, ...] = ()  # but not these
    jaeger: str = ""  # use somebody's Jaeger, whose query API is there, instead of a part of ours


#: A `status` holds the lock shared for an instant, which is no agent.
_LOOKERS_SECONDS = 0.5


def own(state: State) -> int:
    """The agent's lock as an open descriptor; whoever holds it is the one agent of this state directory.

    Raises AlreadyRunningError, before anything is touched, if there is one.
    """
    if is_held(state.agent_lock):
        raise AlreadyRunningError(_who_runs(state))
    state.prepare()
    return hold(state)


def hold(state: State) -> int:
    """The agent's lock in a state directory that is there already. Raises AlreadyRunningError if another has it."""
    lock = acquire(state.agent_lock, wait_seconds=_LOOKERS_SECONDS)
    if lock is None:
        raise AlreadyRunningError(_who_runs(state))
    note_owner(lock, os.getpid())
    return lock


def note_owner(lock: int, pid: int) -> None:
    """Write the owner's pid into the lock file, for messages only."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{pid}\n".encode(), 0)


def owner(state: State) -> int | None:
    """The pid that the lock's owner noted, if somebody holds it."""
    try:
        return int(state.agent_lock.read_text()) if is_held(state.agent_lock) else None
    except (OSError, ValueError):
        return None


def plan(root: Path, state: State, whole: mesh.Mesh, wish: Wish, say: Say) -> Plan:
    """Decide what is to run where, check it, and write it down. The caller holds the agent's lock.

    Parts that still run are adopted, so they are part of the plan too, wished for or not.
    """
    external = existing.query_url(wish.jaeger) if wish.jaeger else ""
    ours = [keys.JAEGER] if external and keys.JAEGER in whole.parts else []
    page = whole.choose(wish.only, [*wish.without, *ours])
    stored = state.read_system()
    running = filled_slots(state, list(stored.kinds) if stored else [])
    if external and Slot(keys.JAEGER) in running:
        raise OperationError(f"--jaeger {external}: a Jaeger of ours still runs: `./atoll down` first")
    page = whole.only([*page.parts, *(slot.name for slot in running if slot.name in whole.parts)])
    chosen = _ports(page, wish.ports, stored, [str(slot) for slot in running])
    for part in page.parts.values():
        if not part.folder.is_dir():
            raise MeshError(f"{page.path}: part.{part.name}.path: there is no folder {part.folder}")
        if part.name == keys.JAEGER:
            settings.check(part.settings, f"{page.path}: part.{part.name}.settings")
    ports.check_free(chosen, [name for name in page.needed() if Slot(name) not in running])
    _clean_stale(state, page, say)
    state.write_credentials(chosen, keys.ensure(state, page.parts), external)
    kinds = {part.name: part.kind for part in page.parts.values()}
    state.write_system(SystemFile(page.system.name, str(page.path), chosen, kinds, external))
    if running:
        say("adopting", f"{len(running)} that still run: {', '.join(str(slot) for slot in running)}")
    return Plan(root, state, page, chosen, external)


def again(root: Path, state: State) -> Plan:
    """The plan that was written down, for the agent process that carries it out."""
    system = _noted(state)
    return Plan(root, state, mesh.read(Path(system.mesh), root).only(list(system.kinds)), system.ports, system.jaeger)


def without_page(root: Path, state: State) -> Plan:
    """The noted plan without its system page: enough to find and end what runs, whatever became of the page."""
    system = _noted(state)
    parts = {
        name: mesh.Part(name, root, system.ports.parts[name] - system.ports.base, kind, {}, ())
        for name, kind in system.kinds.items()
    }
    return Plan(root, state, mesh.Mesh(Path(system.mesh), mesh.System(system.name), parts), system.ports)


def _noted(state: State) -> SystemFile:
    system = state.read_system()
    if system is None:
        raise OperationError(f"{state.root} has never been up")
    return system


def _ports(page: mesh.Mesh, asked: int | None, stored: SystemFile | None, running: list[str]) -> ports.Ports:
    """Where processes still run, their ports are not up for choice."""
    if not running or stored is None:
        return ports.choose(page, asked, stored.ports if stored else None)
    kept = ports.choose(page, None, stored.ports)
    if asked not in (None, 0, kept.base):
        raise OperationError(
            f"{len(running)} parts still run with ports from {kept.base}: `./atoll down` first, or leave out --ports"
        )
    return kept


def _clean_stale(state: State, page: mesh.Mesh, say: Say) -> None:
    """What an agent that ended badly left behind: its socket, and records of processes that are gone."""
    files = [SlotFiles(state, Slot(name)) for name in page.parts]
    records = [one for one in files if one.record.exists() and not one.filled()]
    stale_socket = state.agent_socket.exists()
    for one in records:
        one.record.unlink()
    if records or stale_socket:
        state.agent_socket.unlink(missing_ok=True)
        words = ["its socket"] * stale_socket + [f"{len(records)} records of ended processes"] * bool(records)
        say("cleaned up", f"after an agent that is gone: {' and '.join(words)}")


def _who_runs(state: State) -> str:
    pid = owner(state)
    return (
        f"already up{f' (agent pid {pid})' if pid else ''} in {state.root}: "
        "see `./atoll status`; `./atoll down` ends it"
    )
