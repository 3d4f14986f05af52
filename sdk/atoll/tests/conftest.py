"""Shared fixtures: options in a temporary place, a database with one table, a scripted broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from scripted import ScriptedBroker

import atoll


@pytest.fixture
def options(tmp_path: Path) -> atoll.Options:
    for name in ("data", "keys", "contract/publishes", "contract/consumes", "migrations"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "migrations" / "0001-notes.sql").write_text("CREATE TABLE note (text TEXT PRIMARY KEY) STRICT;\n")
    return atoll.Options(
        slot="orders/1",
        host="127.0.0.1",
        port=0,
        data=tmp_path / "data",
        keys=tmp_path / "keys",
        bus="tcp://127.0.0.1:1",
        contract=tmp_path / "contract",
        migrations=tmp_path / "migrations",
    )


@pytest.fixture
async def database(options: atoll.Options) -> AsyncIterator[atoll.Database]:
    database = atoll.Database(options.data / "orders.db", options.migrations)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()
