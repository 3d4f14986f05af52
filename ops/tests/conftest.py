"""Fixtures: a system of fake parts, ended and checked to be gone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test folder there; `system` is our helper

from system import System


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
