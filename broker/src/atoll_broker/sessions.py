"""A session is one socket: who it is, what it announced, how long it has been silent.

    alive ── silent 2 heartbeats ──▶ suspect ── silent 5 heartbeats ──▶ dead (the session ends)
      ▲──────────── any frame ──────────┘

A suspect is probed with a PONG each heartbeat: if its process is gone, the send says so (EHOSTUNREACH) long before the
silence does. Silence is measured on the served clock, so a broker that was stopped evicts nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .commands import Hello, Ping
from .entries import Member
from .events import Contract
from .taps import Tap

SUSPECT_HEARTBEATS: Final = 2
DEAD_HEARTBEATS: Final = 5


class Session:
    def __init__(self, session_id: str, route: bytes, identity: str, hello: Hello, contract: Contract) -> None:
        self.id = session_id
        self.route = route
        self.identity = identity
        self.hello = hello
        self.contract = contract
        self.members: dict[str, Member] = {}
        self.watches: set[str] = set()
        self.taps: dict[str, Tap] = {}
        self.ping = Ping()
        self.suspect = False
        self.last_seen = 0.0
        self.last_probe = 0.0

    @property
    def slot(self) -> str:
        return self.hello.slot

    @property
    def ready(self) -> bool:
        return self.ping.ready and not self.suspect

    @property
    def why(self) -> str:
        return "suspect: silent" if self.suspect else self.ping.why

    def set_suspect(self, suspect: bool) -> None:
        self.suspect = suspect
        for member in self.members.values():
            member.paused = suspect


class Sessions:
    """All sessions, found by route, id, slot and producer."""

    def __init__(self) -> None:
        self._by_route: dict[bytes, Session] = {}
        self._by_id: dict[str, Session] = {}
        self._by_slot: dict[str, Session] = {}
        self._by_producer: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._by_route)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_route.values()))

    def add(self, session: Session) -> None:
        self._by_route[session.route] = session
        self._by_id[session.id] = session
        self._by_slot[session.slot] = session
        if session.hello.producer is not None:
            self._by_producer[session.hello.producer] = session

    def remove(self, session: Session) -> None:
        self._by_route.pop(session.route, None)
        self._by_id.pop(session.id, None)
        if self._by_slot.get(session.slot) is session:
            del self._by_slot[session.slot]
        producer = session.hello.producer
        if producer is not None and self._by_producer.get(producer) is session:
            del self._by_producer[producer]

    def at(self, route: bytes) -> Session | None:
        return self._by_route.get(route)

    def by_id(self, session_id: str) -> Session | None:
        return self._by_id.get(session_id)

    def of_producer(self, producer: str) -> Session | None:
        return self._by_producer.get(producer)

    def rivals(self, hello: Hello) -> list[Session]:
        """Sessions that hold what this HELLO asks for: the slot, or the outbox."""
        holders = [self._by_slot.get(hello.slot), self._by_producer.get(hello.producer or "")]
        return list({session.id: session for session in holders if session is not None}.values())

    def of_identity(self, identity: str) -> list[Session]:
        return [session for session in self if session.identity == identity]
