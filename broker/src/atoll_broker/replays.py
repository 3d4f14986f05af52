"""Replays as operators follow them: how many events came again, and what became of each.

`duplicate` is the consumer's word: its inbox knew the event, so the replay had no second effect there.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

REPLAYS_KEPT: Final = 100
REPLAY_EVENTS_MAX: Final = 10_000


class Replay:
    __slots__ = ("at_ms", "by", "done", "duplicate", "failed", "group", "id", "total")

    def __init__(self, replay_id: str, group: str, by: str, at_ms: int, total: int) -> None:
        self.id = replay_id
        self.group = group
        self.by = by
        self.at_ms = at_ms
        self.total = total
        self.done = 0
        self.duplicate = 0
        self.failed = 0

    @property
    def waiting(self) -> int:
        return self.total - self.done - self.duplicate - self.failed


class Replays:
    """The last ones since the boot."""

    def __init__(self, boot: int) -> None:
        self._boot = boot
        self._begun = 0
        self._known: OrderedDict[str, Replay] = OrderedDict()

    def begin(self, group: str, by: str, at_ms: int, total: int) -> Replay:
        self._begun += 1
        replay = Replay(f"{self._boot}-{self._begun}", group, by, at_ms, total)
        self._known[replay.id] = replay
        if len(self._known) > REPLAYS_KEPT:
            self._known.popitem(last=False)
        return replay

    def known(self, replay_id: str | None) -> list[Replay]:
        """One, or all, the newest last."""
        return [replay for replay in self._known.values() if replay_id in (None, replay.id)]
