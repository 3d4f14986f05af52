"""What PID 1 owes a container: to wait for the processes that nobody else will.

A process whose parent died becomes PID 1's child, and stays a zombie after its end until PID 1 waits for it; a few
thousand of them, and the container can start nothing any more. Our own children are not touched: whoever started them
waits for them, and must get their exit codes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection
from pathlib import Path


def reap(ours: Callable[[], Collection[int]]) -> list[int]:
    """Wait for every zombie of this process that is not among `ours`; their pids.

    `ours` is asked after the looking: a child that ends is still known to its starter then, or is no zombie any more.
    """
    found = _zombies_of(os.getpid())
    known = ours()
    reaped = []
    for pid in found:
        if pid not in known:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    reaped.append(pid)
    return reaped


def _zombies_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] == "Z" and int(fields[1]) == parent:
                    found.append(int(entry.name))
    return found
