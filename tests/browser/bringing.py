"""What this suite needs beside the pinned Python packages: a Chromium, and axe-core's rules.

Chromium is the machine's own (`.ci/run` installs Debian's where it may); failing that, Playwright's download, once,
into the user's cache. axe-core comes by npm (`tests/npm.py`). Whoever has neither still runs every other suite: these
tests then skip, and say which is missing.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import npm
from npm import AbsentError, run

__all__ = ["AbsentError", "axe_core", "chromium"]

_HERE = Path(__file__).resolve().parent
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_DOWNLOAD_SECONDS_MAX = 180


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
    done = run([sys.executable, "-c", program], 60, "Chromium: Playwright does not start")
    return Path(done.strip().splitlines()[-1])


def _download_chromium() -> None:
    what = f"Chromium: none of {', '.join(_NAMES)} on PATH, and Playwright's download failed"
    run([sys.executable, "-m", "playwright", "install", "chromium"], _DOWNLOAD_SECONDS_MAX, what)


def axe_core() -> str:
    """The source of axe-core, to be run inside a page. Raises AbsentError."""
    return (npm.installed("axe-core", _HERE) / "axe-core" / "axe.min.js").read_text()
