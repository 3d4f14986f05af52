"""Slots: the places NAME/N that processes fill, and how one finds out who fills them.

A slot's truth is an flock. Its lock file's open description is inherited by the process that fills the slot, so the
kernel holds the lock exactly as long as a member of that process's group lives, whoever started it and whatever
became of the starter. That is why a second process can never fill a slot, and how the next agent knows what to adopt.
Beside it lies a record (pid and start time, port, restarts); it is a note, checked against the kernel before it is
believed: a pid alone may have been given to somebody else since.

Lock files are never deleted while a system may run: a deleted one and its successor would be two locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

import msgspec

from atoll_ops.state import State, write_private

#: A `status` looks by trying a shared lock for an instant; an agent that meets it just tries again.
_ACQUIRE_SECONDS = 0.5

#: The exit code of a tool that this machine cannot have: no failure, and no reason to try again until somebody asks.
ABSENT = 69
#: In its data directory a tool may leave a line for the operator: how far it is, or why it is absent.
NOTE = "note"
EXIT_MEANINGS = {
    0: "stopped cleanly",
    64: "configuration error",
    ABSENT: "port taken",
    74: "storage failed",
    75: "database locked by another process, or not ours",
}
_SIGNALLED = {-9: "killed", -15: "terminated", -11: "segmentation fault", -6: "aborted", -2: "interrupted"}


class Slot(msgspec.Struct, frozen=True, order=True):
    """One place for a process: `orders/1`."""

    name: str
    instance: int = 1

    def __str__(self) -> str:
        return f"{self.name}/{self.instance}"

    @classmethod
    def parse(cls, text: str) -> Slot:
        """`orders` or `orders/2`. Raises ValueError for anything else."""
        name, slash, number = text.partition("/")
        if not name or (slash and not (number.isdecimal() and int(number) >= 1)):
            raise ValueError(f"{text!r}: expected NAME or NAME/N, as in orders/1")
        return cls(name, int(number) if slash else 1)


class Exit(msgspec.Struct, frozen=True):
    """How a process of a slot ended. `code` is negative for a signal, None when it was not our child."""

    at: float  # seconds since the epoch
    code: int | None
    meaning: str
    after_seconds: float


class Record(msgspec.Struct):
    """What is noted of the process in a slot."""

    pid: int
    born: str  # the kernel's start time: tells this process from a later one with the same pid
    port: int
    started_at: float  # seconds since the epoch
    restarts: int = 0
    exits: list[Exit] = []
    paused_until: float | None = None  # seconds since the epoch
    paused_by: str = ""
    paused_reason: str = ""


def meaning(code: int | None) -> str:
    """An exit code in words."""
    if code is None:
        return "ended while no agent watched"
    if code < 0:
        return _SIGNALLED.get(code, f"signal {-code}")
    return EXIT_MEANINGS.get(code, "crashed")


def born(pid: int) -> str | None:
    """The start time of a living process as the kernel counts it; None if there is none, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return _born_without_proc(pid) if not Path("/proc/self").exists() else None
    except ProcessLookupError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def _born_without_proc(pid: int) -> str | None:
    import psutil

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def is_stopped(pid: int) -> bool:
    """Whether a process stands still under SIGSTOP."""
    import psutil

    try:
        return str(psutil.Process(pid).status()) == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


class SlotFiles:
    """The lock and the record of one slot."""

    def __init__(self, state: State, slot: Slot) -> None:
        self.slot = slot
        stem = f"{slot.name}-{slot.instance}"
        self.lock = state.run / f"{stem}.lock"
        self.record = state.run / f"{stem}.json"

    def acquire(self) -> int | None:
        """The slot's lock as a descriptor to hand on, or None if a process fills the slot."""
        return acquire(self.lock, wait_seconds=_ACQUIRE_SECONDS)

    def filled(self) -> bool:
        """Whether any process fills the slot."""
        return is_held(self.lock)

    def read(self) -> Record | None:
        """The record, or None if there is none that can be read."""
        try:
            return msgspec.json.decode(self.record.read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError):
            return None

    def write(self, record: Record) -> None:
        """Note who fills the slot."""
        write_private(self.record, msgspec.json.encode(record))

    def living(self) -> Record | None:
        """The record, if the slot is filled by exactly the process that it notes."""
        record = self.read()
        if record is None or not self.filled() or born(record.pid) != record.born:
            return None
        return record

    def holders(self) -> list[int]:
        """Every process that inherited the slot's lock, by looking at all: for when the record is no help.

        A part's descriptor is open for writing. One that only reads is a `status` that looks, or somebody's pager.
        """
        wanted = os.path.realpath(self.lock)
        return [pid for pid in _all_pids() if pid != os.getpid() and _may_write(pid, wanted)]


def acquire(path: Path, wait_seconds: float = 0.0) -> int | None:
    """An exclusive flock on `path` as an open descriptor; None if another holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(0.005)  # a looker's shared lock lasts microseconds


def is_held(path: Path) -> bool:
    """Whether somebody holds an exclusive flock on `path`."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def _all_pids() -> list[int]:
    with contextlib.suppress(OSError):
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return []


def _may_write(pid: int, wanted: str) -> bool:
    try:
        found = [entry.name for entry in Path(f"/proc/{pid}/fd").iterdir() if str(entry.readlink()) == wanted]
        return any(_mode(pid, descriptor) == os.O_RDWR for descriptor in found)
    except OSError:  # it ended meanwhile, or belongs to another user
        return False


def _mode(pid: int, descriptor: str) -> int:
    """How a process opened a descriptor: O_RDONLY, O_WRONLY or O_RDWR."""
    fields = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text().split()
    return int(fields[fields.index("flags:") + 1], 8) & os.O_ACCMODE
