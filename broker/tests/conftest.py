"""Every rule of the core is tried on both storages, where it touches what survives a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bus_helpers import MESH

from atoll_broker.storage import Storage
from atoll_broker.storage_memory import MemoryStorage
from atoll_broker.storage_sqlite import SqliteStorage
from atoll_broker.testing import MemoryBroker


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    made: Storage = MemoryStorage() if request.param == "memory" else SqliteStorage(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def broker(storage: Storage) -> MemoryBroker:
    return MemoryBroker(MESH, storage=storage)
