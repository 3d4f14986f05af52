from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import PROJECT, Bus, settings

import atoll
from atoll_notifications.handlers import subscriptions


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    """An open, empty database of this service behind a bus of one process."""
    database = atoll.Database(tmp_path / "test.db", PROJECT / "migrations")
    await database.open()
    yield Bus(database, subscriptions(settings(tmp_path), lambda: None))
    await database.close()
