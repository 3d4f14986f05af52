"""Fixtures of the power cuts."""

from __future__ import annotations

from pathlib import Path

import pytest

from brokers import environment_of_the_broker
from plug import need_fuse


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deployed broker's Python."""
    need_fuse()
    return environment_of_the_broker(tmp_path_factory.mktemp("up"))
