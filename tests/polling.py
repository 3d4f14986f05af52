"""Waiting for a named condition: never a bare sleep, never a time-out that does not say what it waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def poll_until(
    what: str,
    probe: Callable[[], T],
    holds: Callable[[T], object] = bool,
    *,
    seconds: float,
    every: float = 0.05,
) -> T:
    """Call `probe` until `holds(result)`; its last result.

    An exception of the probe counts as "not yet". Raises AssertionError naming what was waited for, for how long, and
    the last result or error seen.
    """
    deadline = time.monotonic() + seconds
    last: object = "never probed"
    while True:
        try:
            result = probe()
            last = result
            if holds(result):
                return result
        except Exception as error:  # the probe is often a connection to something that is just starting
            last = f"{type(error).__name__}: {error}"
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what}; last seen: {str(last)[:2000]}")
        time.sleep(every)
