"""What the suite needs: a machine that can trace, and the environments of the parts that it kills."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from fleet import fleet
from left_out import leave_out
from syscalls.processes import can_trace


@pytest.fixture(scope="session", autouse=True)
def _prepared() -> None:
    """strace works here, and `up` has made the environments of the broker and of a service."""
    if why := can_trace():
        leave_out(f"a kill at every syscall: {why}")
    with (
        tempfile.TemporaryDirectory(prefix="atoll-") as folder,
        fleet(Path(folder) / "state", None, "--only", "broker,orders"),
    ):
        pass
