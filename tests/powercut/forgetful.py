"""The file system that forgets: `python forgetful.py MOUNTPOINT CONTROL_SOCKET SEED`. A process of its own, by libfuse.

It holds everything in memory (`disk.Disk`) and obeys the control socket: a line of JSON asks, a line of JSON answers
(`plug.Plug` is its client). A power cut kills the processes that it was told of before the call that set it off
returns, so none of them ever sees a result that the disk did not have. Until the power is on again, reads are EIO. A
file that was opened before the cut is EIO for good, so a process that the cut forgot can not go on as if nothing had
been: no process outlives its machine's power.

The page cache is in use, since SQLite maps its -shm; each open drops what was cached, so nobody sees bytes from before
a cut. Attributes and names are not cached.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import mfusepy  # type: ignore[import-untyped]

from disk import BLOCK, Disk, File, Folder, Node, Tally

KEEP: Final = (0.0, 0.5, 0.85)  # the moods of a cut: how likely a block that was not synced is kept whole


@dataclass
class Trap:
    """Cut the power at the `count`-th write or fsync, from now, of a file whose name ends so."""

    point: str  # write | before-sync | after-sync
    suffix: str
    count: int


@dataclass
class Cut:
    """What is known of a cut.

    `in_flight`: bytes of a commit were written, and its fsync had not returned. `checkpointing`: the same of bytes on
    their way from the write-ahead log into the database.
    """

    number: int
    point: str
    file: str
    in_flight: bool
    checkpointing: bool
    keep: float
    kept: int
    gone: int
    torn_blocks: int


class Machine:
    """The disk, its power and the faults that are set. Calls come one at a time: the lock is held around each."""

    def __init__(self, seed: int) -> None:
        self.disk = Disk()
        self.lock = threading.Lock()
        self.off = False
        self.cuts: list[Cut] = []
        self.syncs = self.log_syncs = self.failed_syncs = self.writes = 0
        self._dice = Random(seed)
        self._victims: list[int] = []
        self._trap: Trap | None = None
        self._bound: int | None = None
        self._failing = ""

    # ---- what the control socket asks ------------------------------------------------------------------------

    def arm(self, point: str, suffix: str, count: int) -> None:
        """Set the trap; there is one at most."""
        self._trap = Trap(point, suffix, count)

    def disarm(self) -> None:
        """Take it away."""
        self._trap = None

    def victims(self, pids: list[int]) -> None:
        """The processes of the machine that will lose its power."""
        self._victims = pids

    def cut(self, point: str = "at once", file: str = "") -> None:
        """The power is gone."""
        for pid in self._victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        in_flight = self._dirty("-wal") or (point == "after-sync" and file.endswith("-wal"))
        checkpointing = self._dirty(".sqlite") or (point == "after-sync" and file.endswith(".sqlite"))
        keep = self._dice.choice(KEEP)
        tally: Tally = self.disk.cut(self._dice, keep)
        self.cuts.append(Cut(len(self.cuts) + 1, point, file, in_flight, checkpointing, keep, **asdict(tally)))
        self.off, self._trap, self._victims = True, None, []

    def on(self) -> None:
        """The power is back. Faults that were set are not."""
        self.off, self._bound, self._failing = False, None, ""

    def bound(self, size: int | None) -> None:
        """No file grows beyond this total of bytes (ENOSPC); None takes the bound away."""
        self._bound = size

    def fail_syncs(self, suffix: str) -> None:
        """fsync of files whose name ends so is EIO from now on; an empty suffix ends that."""
        self._failing = suffix

    def status(self) -> dict[str, Any]:
        """What happened so far."""
        return {
            "off": self.off, "armed": self._trap is not None, "cuts": [asdict(cut) for cut in self.cuts],
            "size": self.disk.size, "writes": self.writes, "syncs": self.syncs, "log_syncs": self.log_syncs,
            "failed_syncs": self.failed_syncs,
        }  # fmt: skip

    def _dirty(self, suffix: str) -> bool:
        files = (node for path, node in self.disk.visible.items() if path.endswith(suffix))
        return any(isinstance(node, File) and node.pending for node in files)

    # ---- what programs ask -----------------------------------------------------------------------------------

    def need_power(self) -> None:
        """Raises EIO."""
        if self.off:
            raise OSError(errno.EIO, "no power")

    def wrote(self, path: str, file: File, offset: int, data: bytes) -> None:
        """A write; perhaps the one that was waited for."""
        self._need_room(max(0, offset + len(data) - len(file.visible)))
        file.write(offset, data)
        self.writes += 1
        self._spring("write", path)

    def truncated(self, file: File, size: int) -> None:
        """A new length."""
        self._need_room(max(0, size - len(file.visible)))
        file.truncate(size)

    def synced(self, path: str, file: File) -> None:
        """An fsync or fdatasync, in three steps at each of which the power can go."""
        self._spring("before-sync", path)
        self.need_power()
        if self._failing and path.endswith(self._failing):
            file.lose_pending()
            self.failed_syncs += 1
            raise OSError(errno.EIO, "the disk failed")
        file.sync()
        self.syncs += 1
        self.log_syncs += path.endswith("-wal")
        self._spring("after-sync", path)

    def room(self) -> int:
        """Bytes that are left."""
        return 1 << 32 if self._bound is None else max(0, self._bound - self.disk.size)

    def _need_room(self, grows: int) -> None:
        if self._bound is not None and grows and self.disk.size + grows > self._bound:
            raise OSError(errno.ENOSPC, "no space")

    def _spring(self, point: str, path: str) -> None:
        trap = self._trap
        if trap is None or self.off or trap.point != point or not path.endswith(trap.suffix):
            return
        trap.count -= 1
        if trap.count <= 0:
            self.cut(point, path)


class Forgetful(mfusepy.Operations):  # type: ignore[misc]
    """libfuse's calls on the machine."""

    use_ns = True

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._open: dict[int, tuple[Node, int]] = {}  # and how many cuts there had been
        self._handles = 0

    def init(self, path: str) -> None:
        """Mounted: tell whoever started this."""
        print("mounted", flush=True)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        with self._machine.lock:
            node = self._machine.disk.node(path)
            kind = stat.S_IFREG if isinstance(node, File) else stat.S_IFDIR
            size = len(node.visible) if isinstance(node, File) else 0
            return {
                "st_mode": kind | node.mode, "st_nlink": 1, "st_size": size, "st_uid": os.getuid(),
                "st_gid": os.getgid(), "st_blocks": -(-size // SECTORS_OF_STAT), "st_mtime": time.time_ns(),
            }  # fmt: skip

    def readdir(self, path: str, fh: int) -> list[str]:
        with self._machine.lock:
            return [".", "..", *self._machine.disk.children(path)]

    def create(self, path: str, mode: int) -> int:
        with self._machine.lock:
            self._machine.need_power()
            node = File(mode & 0o7777)
            self._machine.disk.add(path, node)
            return self._handle(node)

    def open(self, path: str, flags: int) -> int:
        with self._machine.lock:
            self._machine.need_power()
            return self._handle(self._machine.disk.file(path))

    def _handle(self, node: Node) -> int:
        self._handles += 1
        self._open[self._handles] = node, len(self._machine.cuts)
        return self._handles

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        with self._machine.lock:
            return bytes(self._opened(fh).visible[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        with self._machine.lock:
            self._machine.wrote(path, self._opened(fh), offset, data)
            return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        with self._machine.lock:
            self._machine.need_power()
            self._machine.truncated(self._opened(fh) if fh is not None else self._machine.disk.file(path), length)
            return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        with self._machine.lock:
            self._machine.synced(path, self._opened(fh))
            return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        with self._machine.lock:
            self._machine.need_power()
            self._machine.disk.sync_folder(path)
            return 0

    def flush(self, path: str, fh: int) -> int:
        return 0

    def release(self, path: str, fh: int) -> int:
        self._open.pop(fh, None)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        with self._machine.lock:
            self._machine.need_power()
            self._machine.disk.add(path, Folder(mode & 0o7777))
            return 0

    def unlink(self, path: str) -> int:
        with self._machine.lock:
            self._machine.need_power()
            self._machine.disk.remove(path)
            return 0

    def rmdir(self, path: str) -> int:
        return self.unlink(path)

    def rename(self, old: str, new: str) -> int:
        with self._machine.lock:
            self._machine.need_power()
            self._machine.disk.rename(old, new)
            return 0

    def chmod(self, path: str, mode: int) -> int:
        with self._machine.lock:
            self._machine.disk.node(path).mode = mode & 0o7777
            return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        with self._machine.lock:
            free = self._machine.room() // BLOCK
            total = free + self._machine.disk.size // BLOCK
            return {"f_bsize": BLOCK, "f_frsize": BLOCK, "f_blocks": total, "f_bavail": free, "f_bfree": free}

    def _opened(self, fh: int) -> File:
        node, cuts = self._open[fh]
        if cuts != len(self._machine.cuts):
            raise OSError(errno.EIO, "opened before the power went")
        assert isinstance(node, File), "a directory is not opened by open()"
        return node


SECTORS_OF_STAT: Final = 512


def serve_control(machine: Machine, listener: socket.socket) -> None:
    """One client at a time; a line a request."""
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as stream:
            for line in stream:
                request: dict[str, Any] = json.loads(line)
                with machine.lock:
                    answer = getattr(machine, request.pop("verb"))(**request)
                stream.write(json.dumps(answer) + "\n")
                stream.flush()


def main() -> None:
    """Mount, serve, and end when it is unmounted."""
    mountpoint, control, seed = sys.argv[1:]
    machine = Machine(int(seed))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(control)
        listener.listen()
        threading.Thread(target=serve_control, args=(machine, listener), daemon=True).start()
        mfusepy.FUSE(
            Forgetful(machine), mountpoint, foreground=True, nothreads=True, fsname="forgetful",
            attr_timeout=0, entry_timeout=0, negative_timeout=0,
        )  # fmt: skip
    Path(control).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
