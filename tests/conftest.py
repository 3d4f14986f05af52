"""Fixtures of the suites that span parts."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import measured
from fleet import LAUNCHER, REPOSITORY, Fleet, fleet
from invoices import REAL
from left_out import leave_out

#: A build by Go on two cores that others use too.
JAEGER_SECONDS_MAX = 1800


@contextmanager
def _directory() -> Iterator[Path]:
    """A temporary directory with a short path: a Unix socket's may have 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="atoll-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture
def state() -> Iterator[Path]:
    """An empty state directory of the test's own, removed afterwards."""
    with _directory() as path:
        yield path / "state"


@pytest.fixture(scope="module")
def shop() -> Iterator[Fleet]:
    """One running system for all tests of a module that do not break it."""
    with _directory() as path, fleet(path / "state") as running:
        yield running


@pytest.fixture(scope="session")
def real_orders() -> Path:
    """The real invoices, which lie beside the repository.

    Where nothing shared lies beside it they can not be had, on CI neither. Where it does, without them, the machine is
    not as it should be, and on CI that is no reason to leave out what they test.
    """
    if not REAL.exists():
        why = f"real orders: {REAL.name} is not in ../shared/data (see README, tests)"
        if REAL.parent.parent.exists():
            leave_out(why)
        pytest.skip(why)
    return REAL


@pytest.fixture(scope="session")
def jaeger_binary() -> Path:
    """The real Jaeger's program, brought into the user's cache if it is not there (`./atoll test` did that before)."""
    done = subprocess.run(
        [str(LAUNCHER), "jaeger"],
        cwd=REPOSITORY, text=True, capture_output=True, stdin=subprocess.DEVNULL, check=False,
        timeout=JAEGER_SECONDS_MAX,
    )  # fmt: skip
    if done.returncode != 0:
        leave_out(f"no Jaeger: {done.stderr.strip().splitlines()[-1]}")
    return Path(done.stdout.strip())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured, whether or not the tests passed."""
    for line in measured.lines():
        terminalreporter.write_line(line)
