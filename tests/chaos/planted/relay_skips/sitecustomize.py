"""Planted fault: now and then the relay sends an earlier event in the place of the one whose turn it is.

The broker sees an unbroken run of numbers, so nothing at the wire is wrong; one event is simply never published.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from atoll import _codec, _relay

right = _codec.batch
assert _relay.wire.batch is right, "what this fault replaces is gone: plant it anew"
calls = itertools.count(1)
earlier: list[bytes] = []


def batch(events: Iterable[bytes]) -> bytes:
    """Every seventh batch repeats an old event instead of its last one."""
    sent = list(events)
    if next(calls) % 7 == 0 and earlier:
        sent[-1] = earlier[0]
    earlier[:] = earlier or sent[:1]
    return right(sent)


_relay.wire.batch = batch
