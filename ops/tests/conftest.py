"""Fixtures: a system of fake parts, ended and checked to be gone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test folder there; `system` is our helper

from system import System

# A busy machine is no defect of what is tested; the rest stays as it is by default, or on CI.
settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """Two fake parts, not yet up."""
    made = System(tmp_path, tmp_path / "state")
    yield made
    made.run("down", check=False)
    left = made.processes()
    for process in left:
        process.kill()
    assert not left, f"`down` left {left}"
