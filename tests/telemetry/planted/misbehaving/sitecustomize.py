"""Planted: a handler that misbehaves once, when a file says so. Loaded by a part whose PYTHONPATH names this folder.

The file (PLANTED_MISBEHAVIOUR names the folder, the slot's name the file) holds `VERDICT TOPIC`; it is removed just
before, so the next attempt is as good as any.

    fail     the handler raises after its work, as a bug would
    reject   it says at once that this event can never be handled: a dead letter
    die      its process is killed with everything that was done for the event, and not committed
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import msgspec

from atoll import Reject, _events

ARMED = Path(os.environ["PLANTED_MISBEHAVIOUR"]) / os.environ["ATOLL_SLOT"].partition("/")[0]
right = _events.SubscriptionTable.get


def get(self: _events.SubscriptionTable, topic: str) -> _events.Subscription | None:
    """The subscription with a handler that looks at the file before and after its work."""
    found = right(self, topic)
    if found is None:
        return None
    handler = found.handler

    def misbehaving(event: Any, tx: Any) -> None:
        misbehave(topic, {"reject": Reject("planted")})
        handler(event, tx)
        misbehave(topic, {"fail": ZeroDivisionError("planted"), "die": None})

    return msgspec.structs.replace(found, handler=misbehaving)


def misbehave(topic: str, ways: dict[str, Exception | None]) -> None:
    """Do what the file asks for, if it asks for it here: raise, or die where there is nothing to raise."""
    try:
        verdict, wanted = ARMED.read_text().split()
    except (FileNotFoundError, ValueError):
        return
    if wanted != topic or verdict not in ways:
        return
    ARMED.unlink()
    if (error := ways[verdict]) is not None:
        raise error
    os.kill(os.getpid(), signal.SIGKILL)


_events.SubscriptionTable.get = get  # type: ignore[method-assign]
