"""Planted: a handler that cannot handle the events of one topic, for as long as a file says so.

The file (PLANTED_POISON) holds the topic. Loaded by a part whose PYTHONPATH names this folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from atoll import _events

POISONED = Path(os.environ["PLANTED_POISON"])
right = _events.SubscriptionTable.get


def get(self: _events.SubscriptionTable, topic: str) -> _events.Subscription | None:
    """The subscription; of the poisoned topic with a handler that has a bug."""
    found = right(self, topic)
    if found is None or not POISONED.exists() or POISONED.read_text() != topic:
        return found

    def handler(event: Any, tx: Any) -> None:
        raise KeyError("poison")

    return msgspec.structs.replace(found, handler=handler)


_events.SubscriptionTable.get = get  # type: ignore[method-assign]
