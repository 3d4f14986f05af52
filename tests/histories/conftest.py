"""The environment of the broker and the island, a short run and a long one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fleet import REPOSITORY
from histories import running
from histories.plan import Least
from histories.running import Play, Run
from left_out import leave_out

#: Kept when a run fails: what its one command reads again.
RESULTS = REPOSITORY / ".atoll" / "test" / "histories"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--history", metavar="DIR", help="judge the histories in DIR instead of running the system")


@pytest.fixture(scope="package")
def seed() -> str:
    """Of everything random in this run: `ATOLL_SEED` or a new one."""
    return os.environ.get("ATOLL_SEED") or uuid.uuid4().hex[:8]


@pytest.fixture(scope="package")
def commit() -> str:
    """What is tested."""
    asked = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(asked, cwd=REPOSITORY, text=True, capture_output=True, check=False)
    return done.stdout.strip() or "unknown"


@pytest.fixture(scope="package")
def apart() -> None:
    """Skips by name where no namespaces can be had."""
    if why := running.missing():
        leave_out(f"histories: {why}")


@pytest.fixture(scope="package")
def python(apart: None) -> Iterator[Path]:
    """Of an environment with the broker and the SDK as they are now."""
    with tempfile.TemporaryDirectory(prefix="atoll-histories-") as folder:
        yield running.environment(Path(folder) / "python")


@pytest.fixture(scope="package")
def play(python: Path, seed: str, request: pytest.FixtureRequest) -> Iterator[Play]:
    """Runs stages, each in RESULTS/NAME. Whatever they started is gone when the tests end, however they end; what they
    wrote is kept when one has failed.
    """
    runs: list[Run] = []

    def run(name: str, least: Least, planted: Mapping[str, Path] | None = None) -> Path:
        folder = RESULTS / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        started = Run(folder, python, seed=seed, least=least, planted=planted)
        runs.append(started)
        code = started.wait(least.seconds_max + running.BESIDE_FAULTS_SECONDS_MAX)
        assert code == 0, f"the stage of seed {seed} exited {code}:\n{started.said()}"
        return folder

    yield run
    for started in runs:
        started.end()
        if not request.session.testsfailed:
            shutil.rmtree(started.folder)
            started.log.unlink()
