"""One event in a group's window, and one session's place in a group."""

from __future__ import annotations

from enum import Enum
from typing import Final

from .replays import Replay
from .storage import StoredEvent

CREDIT_EVENTS_MAX: Final = 65_536
CREDIT_BYTES_MAX: Final = 268_435_456


class Phase(Enum):
    WAITING = "waiting"
    LEASED = "leased"
    DELAYED = "delayed"
    DONE = "done"


class Entry:
    """One event in one group's window. `event` is None for a replayed one: its bytes are read when it is sent.

    A lease without a `member` is held for a slot that is not here: one of an earlier boot, or one whose delivery was
    lost on purpose.
    """

    __slots__ = (
        "attempt",
        "deadline",
        "delayed_once",
        "delivered",
        "event",
        "fence",
        "lease_kept",
        "lease_limit",
        "member",
        "phase",
        "replay",
        "replay_of",
        "seq",
        "size",
        "slot",
        "subject",
        "topic",
        "version",
    )

    def __init__(self, seq: int, topic: str, subject: str, event: StoredEvent | None, attempt: int) -> None:
        self.seq = seq
        self.topic = topic
        self.subject = subject
        self.event = event
        self.size = len(event.body) if event is not None else 0
        self.replay = event is None
        self.replay_of: Replay | None = None
        self.attempt = attempt
        self.delivered = False
        self.delayed_once = False  # by a fault, in this attempt
        self.phase = Phase.WAITING
        self.fence = 0
        self.member: Member | None = None
        self.slot = ""  # who has it, or had it last
        self.deadline = 0.0
        self.lease_limit = 0.0
        self.lease_kept = False  # the lease is on disk, or on its way
        self.version = ""  # of the service that had it last


class Member:
    """One session's place in one group."""

    __slots__ = (
        "asked_in_flight", "bytes", "draining", "events", "in_flight", "max_in_flight", "paused", "session", "slot",
        "topics", "version",
    )  # fmt: skip

    def __init__(self, session: str, slot: str, version: str) -> None:
        self.session = session
        self.slot = slot
        self.version = version
        self.topics: frozenset[str] = frozenset()
        self.asked_in_flight = 0
        self.max_in_flight = 0
        self.events = 0
        self.bytes = 0
        self.in_flight = 0
        self.draining = False
        self.paused = False

    @property
    def room(self) -> int:
        if self.draining or self.paused or self.bytes <= 0:
            return 0
        return min(self.events, self.max_in_flight - self.in_flight)

    def add_credit(self, events: int, size: int) -> None:
        self.events = min(self.events + events, CREDIT_EVENTS_MAX)
        self.bytes = min(self.bytes + size, CREDIT_BYTES_MAX)
