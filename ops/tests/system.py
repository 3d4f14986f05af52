"""A small system of fake parts in a directory of the test's own, operated through the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")
FAKE_PART = Path(__file__).with_name("fake_part.py")


def poll_until(what: str, probe: Callable[[], T], holds: Callable[[T], object] = bool, seconds: float = 10) -> T:
    """Call `probe` until its result holds; AssertionError naming what was waited for and the last result."""
    deadline = time.monotonic() + seconds
    while True:
        result = probe()
        if holds(result):
            return result
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}; last: {result!r}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it said (both streams)."""

    code: int
    output: str


class System:
    """Parts `one` (service) and `two` (core) in a state directory; `settings` go to part one."""

    def __init__(self, root: Path, state: Path, **settings: str) -> None:
        self.root = root
        self.state = state
        self.told: dict[str, str] = {}  # further variables of the command line's environment
        self.write_mesh(None, **settings)

    def write_mesh(self, tool: Mapping[str, str] | None = None, **settings: str) -> None:
        """Write the system page; with `tool`, a third part of that kind, which has these settings."""
        command = json.dumps([sys.executable, str(FAKE_PART)])
        lines = [
            "[part.one]", 'path = "."', "port = 20", f"command = {command}",
            "[part.one.settings]", *(f'{name} = "{value}"' for name, value in settings.items()),
            "[part.two]", 'path = "."', "port = 21", 'kind = "core"', f"command = {command}",
        ]  # fmt: skip
        if tool is not None:
            lines += [
                "[part.tool]", 'path = "."', "port = 22", 'kind = "tool"', f"command = {command}",
                "[part.tool.settings]", *(f'{name} = "{value}"' for name, value in tool.items()),
            ]  # fmt: skip
        (self.root / "mesh.toml").write_text("\n".join(lines))

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the command line."""
        return os.environ | {"ATOLL_ROOT": str(self.root)} | self.told

    def command(self, *words: str) -> list[str]:
        """`./atoll WORDS --state STATE` without the launcher."""
        return [sys.executable, "-P", "-m", "atoll_ops", *words, "--state", str(self.state)]

    def run(self, *words: str, check: bool = True) -> Ran:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(*words), env=self.variables, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=90, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{words} exited {done.returncode}:\n{done.stdout}"
        return Ran(done.returncode, done.stdout)

    def up(self, *words: str, check: bool = True) -> Ran:
        """`up --detach` on free ports."""
        return self.run("up", "--detach", "--ports", "0", *words, check=check)

    def in_front(self, *words: str) -> subprocess.Popen[str]:
        """`up` in the foreground, in a session of its own as a terminal would give it."""
        return subprocess.Popen(
            self.command("up", "--ports", "0", *words), env=self.variables, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def snapshot(self) -> dict[str, Any]:
        """`status --json`."""
        found: dict[str, Any] = json.loads(self.run("status", "--json", check=False).output)
        return found

    def part(self, name: str) -> dict[str, Any]:
        """One part of it."""
        return next(part for part in self.snapshot()["parts"] if part["name"] == name)

    def wait_running(self, name: str, *, not_pid: int | None = None) -> dict[str, Any]:
        """Wait until a part runs, under another pid than `not_pid`."""
        return poll_until(
            f"{name} to run",
            lambda: self.part(name),
            lambda part: part["state"] == "running" and part["pid"] != not_pid,
        )

    def kill_agent(self) -> int:
        """SIGKILL to the agent alone; its pid."""
        pid = int(self.snapshot()["agent"]["pid"])
        os.kill(pid, signal.SIGKILL)
        poll_until("the agent to be gone", lambda: not _alive(pid))
        return pid

    def processes(self) -> list[psutil.Process]:
        """Every process that carries the state directory, but not this one."""
        return processes_of(self.state)


def processes_of(state: Path) -> list[psutil.Process]:
    """Every process with the state directory in its command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
            carries = process.pid != os.getpid() and any(str(state) in word for word in words)
            if carries and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
