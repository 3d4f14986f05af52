"""Planted fault: a consumer acknowledges first and commits a moment later."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from atoll import _consumer
from atoll._database import Outcome

assert asyncio.iscoroutinefunction(_consumer.Consumer._handle), "what this fault replaces is gone: plant it anew"


async def handle(self: _consumer.Consumer, batch: Sequence[Any]) -> None:
    """The right steps in the wrong order, with a gap wide enough for a kill."""
    link = self._link
    if link is None:
        return
    self._answer(link, batch, [Outcome(True, None)] * len(batch))
    await asyncio.sleep(0.3)
    await self._database.write_each([self._work(delivery) for delivery in batch])


_consumer.Consumer._handle = handle  # type: ignore[method-assign]
