"""How many denied attempts of one person are worth a record: the audit is on disk, and a script can try for ever."""

from __future__ import annotations

from collections import OrderedDict

BURST = 10
SECONDS_EACH = 6.0
_PEOPLE_MAX = 1000


class Denials:
    """Ten records for each person, and one more every six seconds. Bounded: who tried longest ago is forgotten."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float, int]] = OrderedDict()  # tokens, as of, unwritten

    def admit(self, who: str, now: float) -> int | None:
        """Whether to write this one down: how many before it were not, or None to leave it too."""
        tokens, seen_at, unwritten = self._buckets.pop(who, (float(BURST), now, 0))
        tokens = min(float(BURST), tokens + (now - seen_at) / SECONDS_EACH)
        admitted = tokens >= 1
        self._buckets[who] = (tokens - 1, now, 0) if admitted else (tokens, now, unwritten + 1)
        if len(self._buckets) > _PEOPLE_MAX:
            self._buckets.popitem(last=False)
        return unwritten if admitted else None
