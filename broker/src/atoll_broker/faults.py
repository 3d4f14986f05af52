"""Faults for messages, on purpose and for a time: a delivery is delayed, lost, doubled or failed.

    delay      the event waits `delay_ms` more before it goes out; once an attempt
    drop       the delivery is as if lost on its way: the lease runs out, the attempt has failed
    duplicate  the same delivery goes out twice
    error      the attempt fails before any consumer sees it

Every fault ends by itself, and none of them can lose an event: what is dropped or failed comes again, or becomes a
dead letter that says so. Prior art: Envoy's fault filter, which sees requests; this one sees messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Final, Literal

from msgspec import Meta

from .commands import Header, Name, Topic
from .errors import WireError

FAULTS_MAX: Final = 64
SECONDS_MAX: Final = 900


class FaultSpec(Header):
    """What an operator asks for. `share` is the part of the deliveries that it hits."""

    group: Name
    kind: Literal["delay", "drop", "duplicate", "error"]
    seconds: Annotated[float, Meta(gt=0, le=SECONDS_MAX)]
    topic: Topic | None = None
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    delay_ms: Annotated[int, Meta(ge=1, le=600_000)] = 1000


class Fault:
    __slots__ = ("by", "hits", "id", "spec", "until")

    def __init__(self, fault_id: str, spec: FaultSpec, by: str, until: float) -> None:
        self.id = fault_id
        self.spec = spec
        self.by = by
        self.until = until  # on the served clock
        self.hits = 0


class Faults:
    def __init__(self, boot: int, chance: Callable[[], float]) -> None:
        self._boot = boot
        self._chance = chance  # 0.0 … 1.0
        self._made = 0
        self._active: dict[str, Fault] = {}

    def __iter__(self) -> Iterator[Fault]:
        return iter(list(self._active.values()))

    def __len__(self) -> int:
        return len(self._active)

    def put(self, spec: FaultSpec, by: str, now: float) -> str:
        """Starts it; its id. Raises WireError VERB when there are too many."""
        if len(self._active) >= FAULTS_MAX:
            raise WireError("VERB", f"{FAULTS_MAX} faults are active, the bound: stop one first", "fault")
        self._made += 1
        fault = Fault(f"{self._boot}-{self._made}", spec, by, now + spec.seconds)
        self._active[fault.id] = fault
        return fault.id

    def stop(self, fault_id: str | None) -> int:
        """One, or all. How many were stopped."""
        if fault_id is not None:
            return 1 if self._active.pop(fault_id, None) is not None else 0
        stopped = len(self._active)
        self._active.clear()
        return stopped

    def tick(self, now: float) -> None:
        for fault in self:
            if fault.until <= now:
                del self._active[fault.id]

    def strike(self, group: str, topic: str, delayed_once: bool) -> FaultSpec | None:
        """The fault that hits this delivery, if one does. What was delayed in this attempt is delayed no more."""
        for fault in self._active.values():
            spec = fault.spec
            if spec.kind == "delay" and delayed_once:
                continue
            if spec.group == group and spec.topic in (None, topic) and self._chance() < spec.share:
                fault.hits += 1
                return spec
        return None
