"""`doctor`: what this machine and this state directory are like, each finding with what to do about it."""

from __future__ import annotations

import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from atoll_ops import keys, mesh, ports, status
from atoll_ops.environments import Workshop
from atoll_ops.errors import OperationError
from atoll_ops.jaeger import bring, existing
from atoll_ops.launch import environments
from atoll_ops.slots import Slot, SlotFiles
from atoll_ops.state import State

_DISK_BYTES_MIN = 1024**3

#: Well, not well, or neither (a choice, or a lack that nothing waits for); and the line that says it.
Finding = tuple[bool | None, str]
_MARKS = {True: "✓", False: "✕", None: "–"}


def examine(root: Path, state: State, page: Path) -> int:
    """Print every finding; 0 if all is well."""
    findings = list(_findings(root, state, page))
    for well, text in findings:
        print(f"{_MARKS[well]} {text}")
    return 1 if any(well is False for well, _ in findings) else 0


def _findings(root: Path, state: State, page: Path) -> Iterator[Finding]:
    yield True, f"Python {sys.version.split()[0]}"
    yield Path("/proc/self/fd").exists(), "/proc is mounted (long socket paths, finding who holds a slot)"
    yield from _disk(root if not state.root.exists() else state.root)
    try:
        read = mesh.read(page, root)
    except OperationError as error:
        yield False, str(error)
        return
    yield True, f"{page.name}: {len(read.parts)} parts"
    yield from _environments(root, read)
    yield from _jaeger(state, read)
    yield from _secrets(state)
    yield from _running(state, read)


def _disk(path: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(path).free
    yield free > _DISK_BYTES_MIN, f"{free / 1024**3:.1f} GiB free for state (the broker's log is bounded in mesh.toml)"


def _environments(root: Path, read: mesh.Mesh) -> Iterator[Finding]:
    workshop = Workshop(root)
    there = [one for one in environments(read) if one.folder.is_dir()]
    for environment in sorted(there, key=lambda one: one.name):
        try:
            fresh = not workshop.stale([environment])
        except OperationError as error:
            yield False, str(error)
            continue
        yield True, f"environment {environment.name}: {'up to date' if fresh else 'made by the next `./atoll up`'}"


def _jaeger(state: State, read: mesh.Mesh) -> Iterator[Finding]:
    system = state.read_system()
    if system is not None and system.jaeger:
        why = existing.silence(system.jaeger)
        yield None if why else True, f"jaeger: {system.jaeger} {f'does not answer: {why}' if why else 'answers'}"
    elif keys.JAEGER in read.parts:
        try:
            text = bring.prospect(read.parts[keys.JAEGER].folder)
        except OperationError as error:
            yield False, f"jaeger: {error}"
            return
        yield None if text.startswith("none") else True, f"jaeger: {text}"


def _secrets(state: State) -> Iterator[Finding]:
    for path in (state.credentials, *sorted(state.keys.glob("**/*"))):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield False, f"{path} can be read by others: chmod go= '{path}'"
            return
    yield True, "keys and credentials are readable by you alone"


def _running(state: State, read: mesh.Mesh) -> Iterator[Finding]:
    snapshot = status.snapshot(state)
    filled = [part for part in snapshot["parts"] if part["pid"]]
    agent = snapshot["agent"]["state"]
    adopt = ": `./atoll up` adopts them, `./atoll down` ends them"
    orphaned = agent == "gone" and bool(filled)
    yield not orphaned, f"agent {agent}, {len(filled)} parts running{adopt if orphaned else ''}"
    if agent == "unknown":
        pid = snapshot["agent"]["pid"]
        yield False, f"the agent (pid {pid}) holds its lock but does not answer: kill {pid}, then `./atoll up`"
    for part in snapshot["parts"]:
        if part["state"] in ("down", "unknown") and agent != "gone":
            yield False, f"{part['name']}/{part['instance']} {part['state']}: {part['why']}"
        if part["state"] == "absent":
            yield None, f"{part['name']} is absent, everything else runs: {part['why']}"
    yield from _ports(state, read)


def _ports(state: State, read: mesh.Mesh) -> Iterator[Finding]:
    system = state.read_system()
    layout = system.ports if system else ports.Ports.of(read, None)
    needed = [name for name in layout.parts if name in read.needed()]
    unfilled = [name for name in needed if not SlotFiles(state, Slot(name)).filled()]
    try:
        ports.check_free(layout, unfilled)
        yield True, f"ports from {layout.base} are ours or free"
    except OperationError as error:
        yield False, str(error)
