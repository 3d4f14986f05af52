"""The run of all suites, seen as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from system import poll_until

ABANDONED = """
import sys
from pathlib import Path
from atoll_ops import suites
from atoll_ops.environments import Workshop

Workshop.sync = lambda *_: None
suites._Plan.light = lambda self: [suites.Suite("long", ("sleep", sys.argv[2]), Path("/"))]
suites._Plan.spanning = lambda self: []
suites.run(Path(sys.argv[1]), [], Path(sys.argv[1]) / "results")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_run_that_is_given_up_ends_its_suites(tmp_path: Path, number: signal.Signals) -> None:
    """Each suite is in a session of its own: nobody but the run ends it."""
    seconds = f"61.{os.getpid()}{number.value}"  # tells this sleep from all others

    def living() -> list[int]:
        return [one.pid for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", seconds]]

    run = subprocess.Popen([sys.executable, "-c", ABANDONED, str(tmp_path), seconds], stderr=subprocess.DEVNULL)
    try:
        poll_until("the suite to run", living)
        run.send_signal(number)
        run.wait(20)
        assert living() == []
    finally:
        run.kill()
        run.wait()
        for pid in living():
            os.kill(pid, signal.SIGKILL)


NAMED = """
import sys
from pathlib import Path
from atoll_ops import suites
from atoll_ops.environments import Workshop

Workshop.sync = lambda *_: None
folder = Path(sys.argv[1])
script = (sys.executable, str(folder / "long.py"))
suites._Plan.spanning_suite = lambda self, title, arguments: suites.Suite(title, script, folder, folder / "junit.xml")
sys.exit(suites.run(folder, ["tests"], folder / "results"))
"""
LONG = """
import time
from pathlib import Path

here = Path(__file__).parent
try:
    (here / "began").touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)  # what was started is taken down, which takes longer than Popen's own patience
    (here / "taken down").touch()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_named_run_that_is_given_up_takes_down_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C comes from the terminal, to the whole group; the others to the one process that somebody knows of."""
    (tmp_path / "long.py").write_text(LONG)
    run = subprocess.Popen(
        [sys.executable, "-c", NAMED, str(tmp_path)], stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        poll_until("the run to begin", (tmp_path / "began").exists)
        if number == signal.SIGINT:
            os.killpg(run.pid, number)
        else:
            run.send_signal(number)
        run.wait(20)
        assert (tmp_path / "taken down").exists()
    finally:
        run.kill()
        run.wait()
