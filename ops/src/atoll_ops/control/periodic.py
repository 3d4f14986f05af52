"""Work that is done again and again, and goes on after it has failed once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

_log = structlog.get_logger("atoll.control")


async def every(seconds: float, step: Callable[[], Awaitable[None]]) -> NoReturn:
    """Call `step` each so many seconds, measured from start to start; one that takes longer is not overtaken.

    A step that raises is a bug: it is logged, and the next one comes all the same, for what operators look at when
    something is wrong must not be what gives up.
    """
    while True:
        began = time.monotonic()
        try:
            await step()
        except Exception:
            _log.exception("an observation failed")
        await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
