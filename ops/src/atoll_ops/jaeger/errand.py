"""`./atoll test` needs a Jaeger later on: it is brought meanwhile, by a process of its own, and waited for when due."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_ENDING_SECONDS = 15.0
_LOOK_EVERY_SECONDS = 0.2


class Errand:
    """`./atoll jaeger` in the background. Whoever began it ends it, whatever happens."""

    def __init__(self, root: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "atoll_ops", "jaeger"], env=os.environ | {"ATOLL_ROOT": str(root)},
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    def wait(self, say: Callable[[str, str], None]) -> bool:
        """Wait for its end, a line each time that it moved; whether there is a Jaeger now."""
        shown = ""
        while True:
            over = self._process.poll() is not None
            for line in self._lines()[-1:]:
                if line != shown and not (over and self._process.returncode == 0):
                    say("jaeger", line.removeprefix("jaeger").strip())
                    shown = line
            if over:
                return self._process.returncode == 0
            time.sleep(_LOOK_EVERY_SECONDS)

    def end(self) -> None:
        """End it, and what it started; nothing if it is over."""
        if self._process.poll() is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDING_SECONDS)
                return

    def _lines(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()
