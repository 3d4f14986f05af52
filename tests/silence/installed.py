"""The parts' environments as the source stands: a private network could not fetch them, a lone process makes none."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from fleet import fleet


@cache
def install() -> None:
    """By an `up` and a `down`, once a run: that is what installs, and looks whether anything has changed."""
    with (
        tempfile.TemporaryDirectory(prefix="atoll-", ignore_cleanup_errors=True) as folder,
        fleet(Path(folder, "state")),
    ):
        pass
