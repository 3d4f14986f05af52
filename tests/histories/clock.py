"""A wall clock that the test sets while the process runs; see clock_shim.c. Needs a C compiler."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock_shim.c")
_LAYOUT = struct.Struct("=qQ")


def compiler() -> str | None:
    """`cc`, where there is one."""
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path) -> Path:
    """The shared object for LD_PRELOAD. Raises subprocess.CalledProcessError."""
    made, cc = folder / "clock_shim.so", compiler()
    assert cc, "ask compiler() first"
    subprocess.run([cc, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", str(SOURCE), "-o", str(made)], check=True)
    return made


class WallClock:
    """Steers every process that was started with `variables`."""

    def __init__(self, folder: Path, shim: Path) -> None:
        path = folder / "clock"
        path.write_bytes(bytes(_LAYOUT.size))
        self.variables = {"LD_PRELOAD": str(shim), "ATOLL_CLOCK_FILE": str(path)}
        with path.open("r+b") as file:
            self._mapped = mmap.mmap(file.fileno(), _LAYOUT.size)

    def shift(self, seconds: float) -> None:
        """Set it so far before (or behind) the real one."""
        self._mapped[:8] = struct.pack("=q", int(seconds * 1e9))

    @property
    def answered(self) -> int:
        """How often it was asked: a clock that nobody looks at was not shifted for anybody."""
        count: int = _LAYOUT.unpack(self._mapped[:])[1]
        return count
