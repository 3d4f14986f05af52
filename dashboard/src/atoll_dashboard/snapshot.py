"""The ops snapshot as the pages read it: typed, and tolerant of what an older or younger control leaves out or adds."""

from __future__ import annotations

from typing import Any

import msgspec


class SnapshotError(ValueError):
    """Control said something that this dashboard does not understand; the text names the field."""


class Rates(msgspec.Struct, frozen=True):
    """Per second, over the last `window_seconds`."""

    requests: float = 0.0
    events_in: float = 0.0
    events_out: float = 0.0
    errors: float = 0.0
    retries: float | None = None  # an older control does not say
    p95_ms: float | None = None
    window_seconds: float = 0.0


class Exit(msgspec.Struct, frozen=True):
    """How a process ended; `at` in seconds since the epoch, a negative code for a signal."""

    at: float
    code: int | None = None
    meaning: str = ""
    after_seconds: float = 0.0


class Act(msgspec.Struct, frozen=True):
    """What an operator did last to a part."""

    who: str
    act: str
    at: float
    reason: str = ""
    result: str | None = None


class Topics(msgspec.Struct, frozen=True):
    """What a part publishes and consumes."""

    publishes: list[str] = []
    consumes: list[str] = []


class Underway(msgspec.Struct, frozen=True):
    """An operation that goes on."""

    id: str
    act: str
    by: str
    state: str


class Agent(msgspec.Struct, frozen=True):
    """Who starts, watches and ends the parts; `why` is why control does not hear it."""

    state: str = "running"
    why: str = ""

    @property
    def heard(self) -> bool:
        """Whether the parts' states are known. (`gone` is one of many, in containers: the others tell theirs.)"""
        return self.state != "unknown"


class Part(msgspec.Struct, frozen=True):
    """One instance of a part. None is "not known", never zero."""

    name: str
    instance: int
    kind: str
    state: str
    why: str = ""
    last_state: str | None = None  # what it was when the agent was last heard, while it is not
    pid: int | None = None
    restarts: int = 0
    exits: list[Exit] = []
    wanted: str = "up"
    uptime_seconds: float | None = None
    memory_mb: float | None = None
    paused_until: float | None = None
    version: str | None = None
    rates: Rates | None = None
    lag: int | None = None
    dead_letters: int | None = None
    in_flight: int | None = None
    oldest_unacked_seconds: float | None = None
    topics: Topics = Topics()
    last_act: Act | None = None
    operation: Underway | None = None
    alone: bool = True

    @property
    def slot(self) -> str:
        """`payments/1`."""
        return f"{self.name}/{self.instance}"


class WorstLag(msgspec.Struct, frozen=True):
    """The group that is furthest behind."""

    group: str
    lag: int


class Figures(msgspec.Struct, frozen=True):
    """The four figures of the overview."""

    up: int | None = 0  # None while the agent is not heard
    of: int = 0
    events_per_second: float | None = None
    worst_lag: WorstLag | None = None
    dead_letters: int | None = None


class Topic(msgspec.Struct, frozen=True):
    """A topic of the bus; `rate` in events a second."""

    events: int = 0
    groups: list[str] = []
    rate: float | None = None


class Bus(msgspec.Struct, frozen=True):
    """What the broker last said."""

    available: bool = False
    why: str = ""
    as_of: float | None = None
    topics: dict[str, Topic] | None = None


class Fault(msgspec.Struct, frozen=True):
    """A fault that somebody injected, until it reverts by itself."""

    kind: str
    target: str
    until: float | None = None
    by: str = ""
    reason: str = ""


class Alarm(msgspec.Struct, frozen=True):
    """What needs somebody's attention."""

    kind: str
    target: str
    text: str
    since: float


class Snapshot(msgspec.Struct, frozen=True):
    """The fleet at one moment; `as_of` by control's clock."""

    system: str
    as_of: float
    parts: list[Part]
    agent: Agent = Agent()
    figures: Figures = Figures()
    bus: Bus = Bus()
    faults: list[Fault] = []
    alarms: list[Alarm] = []

    def part(self, name: str) -> Part | None:
        """The (first) instance of a part, or None."""
        return next((part for part in self.parts if part.name == name), None)


def read(answer: dict[str, Any]) -> Snapshot:
    """The answer of `GET /ops/snapshot`. Raises SnapshotError naming the field that is not as expected."""
    try:
        return msgspec.convert(answer, Snapshot)
    except msgspec.ValidationError as error:
        raise SnapshotError(str(error)) from error
