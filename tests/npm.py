"""What tests take from npm: packages by the hashes of a committed lock, into `.atoll/tools/NAME`.

They come from the registry that npm is set up for; neither the lock nor anything here names one.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet import REPOSITORY

_TOOLS = REPOSITORY / ".atoll" / "tools"
_SECONDS_MAX = 120
_FILES = ("package.json", "package-lock.json", ".npmrc")


class AbsentError(Exception):
    """A tool that this machine does not have and that could not be brought; the text says which and why."""


def installed(name: str, folder: Path) -> Path:
    """`node_modules` of the packages that `folder`'s lock names, installed once. Raises AbsentError."""
    home = _TOOLS / name
    with _locked(_TOOLS / f"{name}.lock"):
        wanted = hashlib.sha256(b"".join((folder / one).read_bytes() for one in _FILES)).hexdigest()
        stamp = home / "stamp"
        if not stamp.is_file() or stamp.read_text() != wanted:
            _install(name, folder, home)
            stamp.write_text(wanted)
    return home / "node_modules"


def _install(name: str, folder: Path, home: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise AbsentError(f"{name}: there is no npm on PATH to install it with")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for one in _FILES:
        shutil.copy(folder / one, home)
    run([npm, "ci"], _SECONDS_MAX, f"{name}: npm could not install it", cwd=home)


def run(command: list[str], seconds: float, what: str, cwd: Path | None = None) -> str:
    """A command's output. Raises AbsentError with `what` and the last line it said."""
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
