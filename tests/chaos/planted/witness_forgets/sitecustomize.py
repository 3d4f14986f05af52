"""Planted fault: every tenth event is acknowledged and not kept. Loaded where PYTHONPATH names this folder."""

from __future__ import annotations

import itertools
from typing import Any

from atoll_journal.ledger import Ledger

append = Ledger._append
turns = itertools.count(1)


def sometimes(self: Ledger, *args: Any) -> None:
    """Passes over every tenth."""
    if next(turns) % 10:
        append(self, *args)


Ledger._append = sometimes
