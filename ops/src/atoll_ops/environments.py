"""Python environments: one per deployable in `.atoll/env/<name>`, built by uv from committed pins.

An environment is exactly what `pins*.txt` (third parties, hashed) and `local*.txt` (paths: the SDKs, then the project
itself) say. Three traps shape this module, all measured: syncing the pins alone would uninstall the local projects, so
both files are always given together; `--require-hashes` refuses local paths, so it is left out (hashes that are present
are still checked); and a sync that changes nothing still costs seconds, so a stamp over everything that goes in decides
whether to run it at all.

Standard library only, because the launcher runs this before any environment exists.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from atoll_ops.errors import EnvironmentFailedError

#: Oldest uv that reads our pyproject files as meant (cache-keys, dependency groups, its own build backend).
UV_VERSION_MIN = (0, 9, 0)
#: Installers at once: two keep both a small machine's cores and the network busy, more only get in each other's way.
PARALLEL_MAX = 2
#: What uv and pip say when nobody answers: one cause, many wordings.
_NO_REGISTRY = re.compile(
    r"dns error|failed to lookup address|Connection refused|client error \(Connect\)|timed out|Network is unreachable"
    r"|Network connectivity is disabled|not found in the cache|Failed to fetch|error sending request",
    re.IGNORECASE,
)

Report = Callable[[str, str], None]


@dataclass(frozen=True)
class Environment:
    """One environment to be: its name, the project folder it is built in, and the requirement files there."""

    name: str
    folder: Path
    files: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path, *, tests: bool = False) -> Environment:
        """A deployable's environment, or with `tests` the one that its tests run in."""
        suffix = "-test" if tests else ""
        return cls(folder.name + suffix, folder, (f"pins{suffix}.txt", f"local{suffix}.txt"))

    @classmethod
    def tools(cls, root: Path) -> Environment:
        """Lint, types and the tests that span parts: the repository root's own pins, no local project."""
        return cls("tools", root, ("pins.txt",))


class Workshop:
    """Where environments stand and how they are made: `.atoll/env` of one repository.

    `python` is the interpreter they are made for; its version goes into the stamps.
    """

    def __init__(self, root: Path, python: str = sys.executable) -> None:
        self.root = root
        self.home = root / ".atoll" / "env"
        self._python = python

    def python(self, name: str) -> Path:
        """The interpreter of an environment, whether or not it exists yet."""
        return self.home / name / "bin" / "python"

    def stale(self, wanted: Iterable[Environment]) -> list[Environment]:
        """Those whose stamp does not fit what they would be built from now."""
        return [one for one in wanted if self._recorded(one) != self.stamp(one)]

    def stamp(self, environment: Environment) -> str:
        """Digest of all that goes in: Python version, requirement files, every source that is installed from a path."""
        digest = hashlib.sha256(f"{sys.version_info[:3]} {sys.platform}\n".encode())
        for path in _inputs(environment):
            if not path.is_file():
                raise EnvironmentFailedError(f"environment {environment.name}: {path} is missing")
            digest.update(f"{os.path.relpath(path, self.root)}\n".encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def sync(self, wanted: Sequence[Environment], report: Report) -> None:
        """Make or mend every stale environment, at most two at a time; `report(name, text)` hears of each.

        Raises EnvironmentFailedError naming the first that could not be made; installers still running are then ended,
        and an environment is never stamped before it is whole.
        """
        if not self.stale(wanted):
            return
        with self._locked(report):
            stale = self.stale(wanted)  # another ./atoll may have made them while this one waited
            if stale:
                self._install_all(stale, find_uv(self.root, report), report)

    def _install_all(self, stale: list[Environment], uv: str, report: Report) -> None:
        waiting, running = list(reversed(stale)), list[_Installation]()
        try:
            while waiting or running:
                while waiting and len(running) < PARALLEL_MAX:
                    environment = waiting.pop()
                    report(environment.name, "installing")
                    running.append(_Installation(self, environment, uv))
                for installation in [one for one in running if one.finished()]:
                    running.remove(installation)
                    installation.conclude()
                    report(installation.environment.name, f"installed  {installation.seconds():.1f} s")
                time.sleep(0.02)  # a child's end makes no file descriptor ready: look often enough not to be felt
        finally:
            for installation in running:
                installation.end()

    def _recorded(self, environment: Environment) -> str | None:
        if not os.access(self.python(environment.name), os.X_OK):
            return None
        try:
            return self.stamp_file(environment).read_text()
        except OSError:
            return None

    def stamp_file(self, environment: Environment) -> Path:
        """Where the stamp of a whole environment is kept: inside it, so that the two vanish together."""
        return self.home / environment.name / "atoll.stamp"

    @contextmanager
    def _locked(self, report: Report) -> Iterator[None]:
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "lock").open("wb") as lock:
            _wait_for(lock, report)
            yield


class _Installation:
    """One uv at work on one environment."""

    def __init__(self, workshop: Workshop, environment: Environment, uv: str) -> None:
        self.environment = environment
        self._began = time.monotonic()
        self._workshop = workshop
        self._stamp = workshop.stamp(environment)  # before the work: an edit made meanwhile makes it stale again
        self._log_path = workshop.home / f"{environment.name}.log"
        workshop.stamp_file(environment).unlink(missing_ok=True)
        with self._log_path.open("wb") as log:
            self._ensure_venv(uv, log)
            self._process = subprocess.Popen(
                [uv, "pip", "sync", "--python", str(workshop.python(environment.name)), *environment.files],
                cwd=environment.folder, env=_uv_variables(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def _ensure_venv(self, uv: str, log: BinaryIO) -> None:
        home = self._workshop.home / self.environment.name
        if os.access(home / "bin" / "python", os.X_OK) and _same_python(home):
            return
        shutil.rmtree(home, ignore_errors=True)
        made = subprocess.run(
            [uv, "venv", "--python", self._workshop._python, str(home)],
            cwd=self._workshop.root, env=_uv_variables(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False,
        )  # fmt: skip
        if made.returncode != 0:
            raise self._failure()

    def finished(self) -> bool:
        return self._process.poll() is not None

    def seconds(self) -> float:
        return time.monotonic() - self._began

    def conclude(self) -> None:
        if self._process.returncode != 0:
            raise self._failure()
        self._workshop.stamp_file(self.environment).write_text(self._stamp)
        self._log_path.unlink(missing_ok=True)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _failure(self) -> EnvironmentFailedError:
        output = self._log_path.read_text(errors="replace")
        why = f"{_cause(output)} (all of it: {self._log_path})"
        return EnvironmentFailedError(f"environment {self.environment.name}: {why}")


def _cause(output: str) -> str:
    """The one line of an installer's output that says why."""
    if _NO_REGISTRY.search(output):
        return "the package registry cannot be reached; check the network, a proxy, or UV_DEFAULT_INDEX"
    lines = [re.sub(r"^[\s×│├─▶╰]*((error|cause): )?", "", line) for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"fail|mismatch|no solution|not found|invalid|unsatisf", line, re.I)]
    return (telling or lines or ["the installer said nothing"])[-1]


def _inputs(environment: Environment) -> Iterator[Path]:
    for name in environment.files:
        yield environment.folder / name
    for project in _local_projects(environment):
        yield project / "pyproject.toml"
        yield from sorted(
            path for path in (project / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts
        )


def _local_projects(environment: Environment) -> Iterator[Path]:
    for name in environment.files:
        if not name.startswith("local"):
            continue
        for line in (environment.folder / name).read_text().splitlines():
            path = line.split("#")[0].split("[")[0].strip()
            if path:
                yield (environment.folder / path).resolve()


def _same_python(home: Path) -> bool:
    """Whether a venv was made for this very Python version (a patch release may move its library)."""
    try:
        text = (home / "pyvenv.cfg").read_text()
    except OSError:
        return False
    found = re.search(r"(?m)^version(?:_info)?\s*=\s*(\d+\.\d+\.\d+)", text)
    return found is not None and found[1] == ".".join(map(str, sys.version_info[:3]))


def _uv_variables() -> dict[str, str]:
    """The user's environment, less what would send uv to another environment or fetch another Python."""
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    return kept | {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}


def _wait_for(lock: BinaryIO, report: Report) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        report("environments", "waiting for another ./atoll that installs")
        fcntl.flock(lock, fcntl.LOCK_EX)


# ---- uv itself ---------------------------------------------------------------------------------------------------


def find_uv(root: Path, report: Report) -> str:
    """A uv that is new enough: the user's own on PATH, or a private one that is brought into `.atoll/tools/uv`.

    Raises EnvironmentFailedError with the one thing to do where neither works.
    """
    private = root / ".atoll" / "tools" / "uv"
    for candidate in (shutil.which("uv"), str(private / "bin" / "uv")):
        if candidate and _uv_new_enough(candidate):
            return candidate
    report("uv", "installing a private copy")
    _bring_uv(private)
    report("uv", "installed")
    return str(private / "bin" / "uv")


def _uv_new_enough(uv: str) -> bool:
    try:
        said = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.match(r"uv (\d+)\.(\d+)\.(\d+)", said)
    return found is not None and tuple(map(int, found.groups())) >= UV_VERSION_MIN


def _bring_uv(home: Path) -> None:
    """A virtual environment with nothing but uv in it; whole, or not there at all."""
    if not _has_ensurepip():
        raise EnvironmentFailedError(
            "this Python cannot make virtual environments; on Debian or Ubuntu: "
            f"apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        )
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    minimum = ".".join(map(str, UV_VERSION_MIN))
    try:
        _run_quietly([sys.executable, "-m", "venv", str(home)])
        _run_quietly([str(home / "bin" / "python"), "-m", "pip", "install", "--no-cache-dir", f"uv>={minimum}"])
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise


def _has_ensurepip() -> bool:
    asked = subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True, check=False)
    return asked.returncode == 0


def _run_quietly(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        output = done.stderr + done.stdout
        if "No matching distribution" in output or _NO_REGISTRY.search(output):
            raise EnvironmentFailedError("uv: the package registry cannot be reached; check the network or a proxy")
        raise EnvironmentFailedError(f"uv: {_cause(output)}")
