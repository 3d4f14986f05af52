"""Planted fault: the log is not flushed. Acks come as ever, and a kill alone would never show it."""

from __future__ import annotations

import functools
import sqlite3
from typing import Any


class Careless(sqlite3.Connection):
    """Hears FULL and does nothing."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        careless = sql.replace("synchronous=FULL", "synchronous=OFF").replace("synchronous = FULL", "synchronous = OFF")
        return super().execute(careless, *parameters)


sqlite3.connect = functools.partial(sqlite3.connect, factory=Careless)
