"""The plug of a machine whose disk forgets: mounts the file system, sets faults, pulls the plug."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes.util import find_library
from pathlib import Path
from typing import Any

from left_out import leave_out

_PROGRAM = Path(__file__).with_name("forgetful.py")


class Plug:
    """A client of the control socket; see `forgetful.Machine` for what the verbs do."""

    def __init__(self, control: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(control))
        self._stream = self._socket.makefile("rw")

    def arm(self, point: str, suffix: str, count: int) -> None:
        """Cut at the `count`-th write, before-sync or after-sync of a file whose name ends so."""
        self._ask("arm", point=point, suffix=suffix, count=count)

    def disarm(self) -> None:
        """No trap any more."""
        self._ask("disarm")

    def victims(self, pids: Sequence[int]) -> None:
        """Who dies with the power."""
        self._ask("victims", pids=list(pids))

    def cut(self) -> None:
        """Pull the plug now."""
        self._ask("cut")

    def on(self) -> None:
        """Plug it in again."""
        self._ask("on")

    def bound(self, size: int | None) -> None:
        """ENOSPC beyond so many bytes."""
        self._ask("bound", size=size)

    def fail_syncs(self, suffix: str) -> None:
        """EIO on fsync of files whose name ends so; "" ends it."""
        self._ask("fail_syncs", suffix=suffix)

    def status(self) -> dict[str, Any]:
        """`off`, `armed`, `cuts`, `size`, `writes`, `syncs`, `log_syncs` (of write-ahead logs), `failed_syncs`."""
        found: dict[str, Any] = self._ask("status")
        return found

    def close(self) -> None:
        """End the connection."""
        self._stream.close()
        self._socket.close()

    def _ask(self, verb: str, **arguments: Any) -> Any:
        self._stream.write(json.dumps({"verb": verb} | arguments) + "\n")
        self._stream.flush()
        return json.loads(self._stream.readline())


@contextmanager
def forgetful_disk(folder: Path, seed: int) -> Iterator[tuple[Path, Plug]]:
    """A mounted file system below `folder`, unmounted at the end, and its plug."""
    need_fuse()
    mountpoint, control = folder / "disk", folder / "disk.control"
    mountpoint.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(_PROGRAM), str(mountpoint), str(control), str(seed)],
        stdout=subprocess.PIPE, text=True, cwd=_PROGRAM.parent,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == "mounted\n", f"the file system did not mount: {said!r}, exit {process.poll()}"
        plug = Plug(control)
        try:
            yield mountpoint, plug
        finally:
            plug.close()
    finally:
        _unmount(mountpoint, process)


def _unmount(mountpoint: Path, process: subprocess.Popen[str]) -> None:
    """Detached even where a process of the test still has a file open; then the program ends by itself."""
    subprocess.run([_unmounter(), "-u", "-z", str(mountpoint)], check=False, capture_output=True)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    if process.poll() is None:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
    assert not os.path.ismount(mountpoint), f"{mountpoint} is still mounted"


def _unmounter() -> str:
    return shutil.which("fusermount3") or shutil.which("fusermount") or "fusermount3"


def need_fuse() -> None:
    """Leave the test out where file systems in user space can not be had; on CI they can."""
    if not Path("/dev/fuse").exists():
        leave_out("power cuts: there is no /dev/fuse")
    if find_library("fuse3") is None and find_library("fuse") is None:
        leave_out("power cuts: libfuse is not installed (Debian: fuse3)")
    if shutil.which("fusermount3") is None and shutil.which("fusermount") is None:
        leave_out("power cuts: fusermount3 is not installed (Debian: fuse3)")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        leave_out("power cuts: /dev/fuse may not be opened")
