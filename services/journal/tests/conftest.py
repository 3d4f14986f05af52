from collections.abc import Iterator
from pathlib import Path

import pytest
from support import PROJECT, Broker

from atoll_journal.ledger import Ledger


@pytest.fixture
def broker() -> Iterator[Broker]:
    made = Broker()
    yield made
    made.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An open, empty one, in tmp_path."""
    made = Ledger(tmp_path, PROJECT / "migrations")
    made.open()
    yield made
    made.close()
