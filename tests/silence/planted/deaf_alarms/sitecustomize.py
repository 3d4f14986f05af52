"""Planted fault: while SILENCE_FLAGS has a file `deaf`, the broker has no alarms, whatever stands still."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from atoll_broker import admin

assert callable(admin.alarms), "what this fault replaces is gone: plant it anew"

FLAGS = Path(os.environ["SILENCE_FLAGS"])
_alarms = admin.alarms


def alarms(core: Any) -> list[dict[str, object]]:
    """None while it is deaf."""
    return [] if (FLAGS / "deaf").exists() else _alarms(core)


admin.alarms = alarms
