"""What a machine cannot have: the tests that need it are left out by name, but never where all is promised to run."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def leave_out(why: str) -> NoReturn:
    """Skip the test, saying why. On CI (`CI` is set) it fails instead: everything that it needs can be had there."""
    if os.environ.get("CI"):
        pytest.fail(f"on CI nothing is left out: {why}", pytrace=False)
    pytest.skip(why)
