"""What the tests of the server share: one process for those that need none of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import Dashboard, running
from standin import State


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard for everybody."""
    with running(tmp_path_factory.mktemp("shared")) as dashboard:
        yield dashboard


@pytest.fixture
def dashboard(shared: Dashboard) -> Iterator[Dashboard]:
    """The same, behind a gateway that is well; whatever a test did to it is undone."""
    yield shared
    fresh, state = State(), shared.gateway.state
    state.auth, state.ops, state.snapshot, state.users = fresh.auth, fresh.ops, None, fresh.users
    state.lines, state.settings = [], []
    state.access_seconds = fresh.access_seconds
    state.released.set()
    state.released.clear()
