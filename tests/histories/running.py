"""Starting a stage in namespaces of its own, and the environment that the broker and the island run in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from fleet import REPOSITORY
from histories import clock
from histories.plan import Least

#: Runs a stage to its end; its folder. `play(name, least, planted={part: folder of a planted fault})`.
Play = Callable[..., Path]
TESTS = REPOSITORY / "tests"
SDK = REPOSITORY / "sdk" / "atoll"
#: Start, heal, drain (three times its promise), the last state: what a stage may take beside its faults.
BESIDE_FAULTS_SECONDS_MAX = 240.0
_TOOLS = ("unshare", "setpriv", "nsenter", "ip", "ss", "nft")
#: New process, mount and network namespaces. If we go, it goes (setpriv), and with it all that it started.
_APART = (
    "setpriv", "--pdeathsig", "KILL", "--",
    "unshare", "--pid", "--mount-proc", "--net", "--fork", "--kill-child", "--",
)  # fmt: skip


@cache
def missing() -> str:
    """Why no stage can be set up on this machine; empty where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux can make namespaces"
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if clock.compiler() is None:
        absent.append("cc")
    if absent:
        return f"no {', '.join(absent)}"
    rules = "table inet faults {\n}\n"
    tried = subprocess.run([*_APART, "nft", "-f", "-"], input=rules, capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"no namespace with rules of nftables: {tried.stderr.strip()}"


def environment(folder: Path) -> Path:
    """An environment with the broker and the SDK as they are now; its Python."""
    uv = shutil.which("uv") or str(REPOSITORY / ".atoll" / "tools" / "uv" / "bin" / "uv")
    python = folder / "bin" / "python"

    def run(*words: str) -> None:
        done = subprocess.run([uv, *words], cwd=SDK, text=True, capture_output=True, timeout=300, check=False)
        assert done.returncode == 0, f"uv {' '.join(words)}:\n{done.stderr}"

    run("venv", "--quiet", str(folder))
    run("pip", "sync", "--quiet", "--python", str(python), "pins-test.txt", "local-test.txt")
    return python


def variables() -> dict[str, str]:
    """For a Python that finds the modules of the tests."""
    return os.environ | {"PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1"}


def run_apart(module: str, *words: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE WORDS` in namespaces of its own, to its end."""
    return subprocess.run(
        [*_APART, sys.executable, "-m", module, *words], cwd=TESTS, env=variables(), stdin=subprocess.DEVNULL,
        text=True, capture_output=True, timeout=seconds, check=False,
    )  # fmt: skip


class Run:
    """One stage at work."""

    def __init__(
        self, folder: Path, python: Path, *, seed: str, least: Least,
        planted: Mapping[str, Path] | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.log = folder.with_suffix(".log")
        words = [
            *_APART, sys.executable, "-m", "histories.stage", str(folder), "--seed", seed, "--least", least.write(),
            "--python", str(python),
        ]  # fmt: skip
        for part, home in (planted or {}).items():
            words += ["--planted", part, str(home)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                words, cwd=TESTS, env=variables(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def wait(self, seconds: float) -> int:
        """Its exit code. Raises AssertionError when it takes longer."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the stage did not end within {seconds:g} s:\n{self.said()}") from None

    def said(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-4000:]

    def end(self) -> None:
        """Whatever is left of it, at once: the first process of its namespace goes, and the kernel ends the rest."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
