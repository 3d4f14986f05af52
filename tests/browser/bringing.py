"""What this suite needs beside the pinned Python packages: a Chromium, and axe-core's rules.

Chromium is the machine's own (`.ci/run` installs Debian's where it may); failing that, Playwright's download, once,
into the user's cache. axe-core comes from the registry that npm is set up for, by the hash in `package-lock.json`, into
`.atoll/tools/axe`. Whoever has neither still runs every other suite: these tests then skip, and say which is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet import REPOSITORY

_HERE = Path(__file__).resolve().parent
_TOOLS = REPOSITORY / ".atoll" / "tools"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_DOWNLOAD_SECONDS_MAX = 180
_NPM_SECONDS_MAX = 120
_NPM_FILES = ("package.json", "package-lock.json", ".npmrc")


class AbsentError(Exception):
    """A tool that this machine does not have and that could not be brought; the text says which and why."""


def chromium() -> Path:
    """A Chromium's executable. Raises AbsentError."""
    on_path = next(filter(None, map(shutil.which, _NAMES)), None)
    if on_path is not None:
        return Path(on_path)
    cached = _playwrights_own()
    if not cached.exists():
        _download_chromium()
    if not cached.exists():
        raise AbsentError(f"Chromium: Playwright's download left nothing at {cached}")
    return cached


def _playwrights_own() -> Path:
    """Where Playwright keeps the browser of its version. Asked in a process of its own: it starts an event loop."""
    program = "from playwright.sync_api import sync_playwright as s\nwith s() as p: print(p.chromium.executable_path)"
    done = _run([sys.executable, "-c", program], 60, "Chromium: Playwright does not start")
    return Path(done.strip().splitlines()[-1])


def _download_chromium() -> None:
    what = f"Chromium: none of {', '.join(_NAMES)} on PATH, and Playwright's download failed"
    _run([sys.executable, "-m", "playwright", "install", "chromium"], _DOWNLOAD_SECONDS_MAX, what)


def axe_core() -> str:
    """The source of axe-core, to be run inside a page. Raises AbsentError."""
    home = _TOOLS / "axe"
    with _locked(_TOOLS / "axe.lock"):
        wanted = hashlib.sha256(b"".join((_HERE / name).read_bytes() for name in _NPM_FILES)).hexdigest()
        stamp = home / "stamp"
        if not stamp.is_file() or stamp.read_text() != wanted:
            _install_axe(home)
            stamp.write_text(wanted)
    return (home / "node_modules" / "axe-core" / "axe.min.js").read_text()


def _install_axe(home: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise AbsentError("axe-core: there is no npm on PATH to install it with")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for name in _NPM_FILES:
        shutil.copy(_HERE / name, home)
    _run([npm, "ci"], _NPM_SECONDS_MAX, "axe-core: npm could not install it", cwd=home)


def _run(command: list[str], seconds: float, what: str, cwd: Path | None = None) -> str:
    """Its output. Raises AbsentError with the last line it said."""
    try:
        done = subprocess.run(
            command, cwd=cwd, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise AbsentError(f"{what}: not done in {seconds:.0f} s") from None
    if done.returncode != 0:
        said = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise AbsentError(f"{what}: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One at a time: two suites may run beside each other in one repository."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
