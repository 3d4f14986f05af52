"""What the tests of the server share: one process for those that need none of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from serving import Dashboard, running
from standin import State

# A busy machine is no defect of what is tested; the rest stays as it is by default, or on CI.
settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


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
