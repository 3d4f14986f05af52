"""Sessions and members, as spec/wire-1.md §5 and §7 have them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .taps import Tap
from .words import HEARTBEAT


@dataclass(slots=True)
class Member:
    """A session's place in a group: its topics, its bounds, its credit."""

    session: Session
    topics: tuple[str, ...] = ()
    max_in_flight: int = 0
    events: int = 0
    bytes: int = 0
    in_flight: int = 0
    draining: bool = False

    @property
    def room(self) -> int:
        """How many more events it may be given. One may overdraw its bytes."""
        if self.draining or self.session.suspect or self.bytes <= 0:
            return 0
        return max(0, min(self.events, self.max_in_flight - self.in_flight))

    @property
    def state(self) -> str:
        """Its row in the coverage table; the first that holds."""
        if self.session.suspect:
            return "suspect"
        if self.draining:
            return "draining"
        if self.events <= 0:
            return "no credit"
        if self.bytes <= 0:
            return "no bytes"
        return "full" if self.in_flight >= self.max_in_flight else "able"


@dataclass(slots=True, eq=False)
class Session:
    """One socket that said HELLO and was welcomed."""

    id: str
    route: bytes
    identity: str
    slot: str
    process: str
    producer: str | None
    endpoints: dict[str, Any] | None
    announced: tuple[str, ...]
    last_seen: float
    suspect: bool = False
    last_probe: float = 0.0
    ready: bool = True
    why: str = ""
    members: dict[str, Member] = field(default_factory=dict)
    #: kind: the last STATE that it was sent, or None
    watches: dict[str, Any] = field(default_factory=dict)
    taps: dict[str, Tap] = field(default_factory=dict)

    def silence(self, now: float) -> str:
        """alive, suspect or dead, by how long it has said nothing."""
        silent = now - self.last_seen
        if silent >= 5 * HEARTBEAT:
            return "dead"
        return "suspect" if silent >= 2 * HEARTBEAT else "alive"

    @property
    def entry(self) -> dict[str, Any]:
        """Its place in the registry."""
        assert self.endpoints is not None
        return {
            "url": self.endpoints["url"],
            "ready": self.ready and not self.suspect,
            "why": "suspect: silent" if self.suspect else self.why,
            "version": "",
            "openapi": {},
            "prefixes": self.endpoints["prefixes"],
            "routes": self.endpoints["routes"],
        }
