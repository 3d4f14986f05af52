"""The broker and its clients as processes, each of which can be killed, stopped and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq

READY_SECONDS = 60.0
END_SECONDS = 20.0
HTTP_PORT = 7002


class WorldError(Exception):
    """Something died that nobody killed, or did not come up."""


class Actor:
    """One slot and the process that fills it. `command(life)` is what to start for its n-th life."""

    def __init__(
        self, name: str, command: Callable[[int], Sequence[str]], logs: Path, *, cwd: Path | None = None,
        variables: dict[str, str] | None = None, ready: Callable[[], bool] | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.life = 0
        self.lock = threading.RLock()
        """Held while somebody does something to it: the supervisor takes a death under it for nobody's fault."""
        self._command = command
        self._log = logs / f"{name}.log"
        self._cwd = cwd
        self._variables = variables or {}
        self.ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that fills it. Raises WorldError if none does."""
        if self._process is None or self._process.poll() is not None:
            raise WorldError(f"{self.name} has no process")
        return self._process.pid

    def start(self) -> None:
        """The next life."""
        self.life += 1
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(self.life), cwd=self._cwd, env={**os.environ, **self._variables},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def wait_ready(self) -> float:
        """Until it serves; seconds. Raises WorldError with its last words."""
        began = time.monotonic()
        while self.ready is not None and not self.ready():
            self.check()
            if time.monotonic() - began > READY_SECONDS:
                raise WorldError(f"{self.name} was not ready within {READY_SECONDS:g} s: {self.last_words()}")
            time.sleep(0.02)
        return time.monotonic() - began

    def check(self) -> None:
        """Raises WorldError if it has died by itself."""
        with self.lock:
            if self._process is not None and (code := self._process.poll()) is not None:
                raise WorldError(f"{self.name} ended by itself with {code}: {self.last_words()}")

    def signal(self, number: signal.Signals) -> None:
        """To the process that fills it."""
        os.kill(self.pid, number)

    def kill(self) -> int:
        """SIGKILL; how it ended, as the kernel says (-9)."""
        self.signal(signal.SIGKILL)
        return self._gone()

    def end(self) -> int:
        """SIGTERM, and what it does then; the exit code."""
        self.signal(signal.SIGTERM)
        return self._gone()

    def wait(self, seconds: float) -> int | None:
        """The exit code once it has ended by itself, or None."""
        assert self._process is not None
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._process = None
        return code

    def _gone(self) -> int:
        code = self.wait(END_SECONDS)
        if code is None:
            raise WorldError(f"{self.name} did not end within {END_SECONDS:g} s")
        return code

    def last_words(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-1500:].strip() if self._log.exists() else ""

    def is_stopped(self) -> bool:
        """Does the kernel say T?"""
        return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def broker_ready() -> bool:
    """Does its /ready say so?"""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{HTTP_PORT}/ready", timeout=1) as answer:
            return bool(json.load(answer)["ready"])
    except (urllib.error.URLError, ConnectionError, TimeoutError, OSError, ValueError):
        return False


def make_keys(folder: Path, identities: Sequence[str]) -> None:
    """A key folder for the broker and for each identity, as ATOLL_KEYS expects it."""
    (folder / "broker" / "clients").mkdir(parents=True)
    public = _write_pair(folder / "broker")
    for identity in identities:
        (folder / identity).mkdir()
        own = _write_pair(folder / identity)
        (folder / "broker" / "clients" / f"{identity}.public").write_bytes(own)
        (folder / identity / "broker.public").write_bytes(public)


def _write_pair(folder: Path) -> bytes:
    public, secret = zmq.curve_keypair()
    for name, key in (("curve.public", public), ("curve.secret", secret)):
        (folder / name).write_bytes(key)
        (folder / name).chmod(0o600)
    return public
