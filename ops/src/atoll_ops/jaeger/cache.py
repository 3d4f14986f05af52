"""The user's cache: one binary for each set of pins, brought by one process at a time, whole or not at all.

ROOT/jaeger/DIGEST/jaeger    the binary, renamed into place with its folder
ROOT/jaeger/DIGEST/origin    a line: where it came from
ROOT/jaeger/DIGEST.lock      held (flock) by whoever brings it
ROOT/jaeger/DIGEST.progress  how far they are, for whoever waits
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll_ops.slots import acquire

Say = Callable[[str], None]
_LOOK_EVERY_SECONDS = 0.25


@dataclass(frozen=True)
class Binary:
    """A Jaeger that can be run, where it came from, and whether it carries its UI."""

    path: Path
    origin: str
    has_ui: bool = True


def root() -> Path:
    """Where this user's caches lie."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():
        return given / "atoll"
    home = Path("~").expanduser()
    return home / "Library" / "Caches" / "atoll" if sys.platform == "darwin" else home / ".cache" / "atoll"


class Place:
    """The place in the cache for one set of pins. Creating the object touches nothing."""

    def __init__(self, digest: str, parent: Path | None = None) -> None:
        self._parent = parent or root() / "jaeger"
        self._digest = digest
        self.folder = self._parent / digest

    def find(self) -> Binary | None:
        """What lies there."""
        path = self.folder / "jaeger"
        with contextlib.suppress(OSError):
            if not os.access(path, os.X_OK) or path.stat().st_size == 0:
                return None
            origin = (self.folder / "origin").read_text().strip()
            return Binary(path, origin, has_ui=not origin.startswith("built"))
        return None

    @contextmanager
    def claimed(self, say: Say) -> Iterator[Say]:
        """Be the only one who brings a binary here; gives the `say` to use, which those who wait hear too."""
        self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self._wait(say)
        try:
            self._sweep()
            yield self._both(say)
        finally:
            self._progress.unlink(missing_ok=True)
            os.close(lock)

    @contextmanager
    def workroom(self) -> Iterator[Path]:
        """A folder to work in, on the cache's own disk; nothing of it is left, whatever happens."""
        path = Path(tempfile.mkdtemp(prefix=f".{self._digest}-", dir=self._parent))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def put(self, made: Path, origin: str) -> Binary:
        """Take a finished binary (in a workroom) in: checked before, visible to others all at once."""
        new = made.parent / "place"
        new.mkdir(mode=0o755)
        made.chmod(0o755)
        made.rename(new / "jaeger")
        (new / "origin").write_text(origin + "\n")
        for each in (new / "jaeger", new / "origin", new):
            _fsync(each)  # or a power cut leaves the name without the bytes, and that would be found for ever
        shutil.rmtree(self.folder, ignore_errors=True)  # what lacked a part; a whole one was found and not replaced
        new.rename(self.folder)
        found = self.find()
        assert found is not None
        return found

    @property
    def _progress(self) -> Path:
        return self._parent / f"{self._digest}.progress"

    def _wait(self, say: Say) -> int:
        """The lock, waited for as long as another works: how far it is, is told meanwhile."""
        while (lock := acquire(self._parent / f"{self._digest}.lock")) is None:
            try:
                say(self._progress.read_text().strip() or "another ./atoll brings it")
            except OSError:
                say("another ./atoll brings it")
            time.sleep(_LOOK_EVERY_SECONDS)
        return lock

    def _both(self, say: Say) -> Say:
        def tell(text: str) -> None:
            with contextlib.suppress(OSError):  # a progress that nobody can read stops no work
                self._progress.write_text(text)
            say(text)

        return tell

    def _sweep(self) -> None:
        """Workrooms of processes that were killed; the lock says that nobody is in them."""
        for left in self._parent.glob(f".{self._digest}-*"):
            shutil.rmtree(left, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
