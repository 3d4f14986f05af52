"""A session with a broker that the test plays: what it is asked, what it answers, and a tap that the test fills."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any

import atoll

GROUP = {
    "part": "payments", "topics": ["orders.order.placed.v1"], "lag": 2, "in_flight": 0, "parked_keys": 1, "dead": 1,
    "members": 1, "floor": 40, "oldest_age_ms": 10, "detached": False, "gaps": [], "rate": None, "delayed": 0,
    "stalled_ms": 0,
}  # fmt: skip


class FakeTap:
    """A tap whose events are put in by the test."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[atoll.Tapped | atoll.Missed | Exception] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def __aenter__(self) -> FakeTap:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.closed.set()

    async def __anext__(self) -> atoll.Tapped | atoll.Missed:
        one = await self.queue.get()
        if isinstance(one, Exception):
            raise one
        return one

    def see(self, seq: int, subject: str) -> None:
        """An event comes."""
        event = {"type": "orders.order.placed.v1", "subject": subject, "data": {"seq": seq}}
        self.queue.put_nowait(atoll.Tapped(seq, json.dumps(event, indent=1).encode()))


class FakeSession:
    """Answers verbs from `answers`; an exception there is raised."""

    state = "up"

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.tapped: list[tuple[list[str], int | None]] = []
        self.taps: list[FakeTap] = []
        self.full = False
        self.answers: dict[str, Any] = {
            "groups": {"groups": {"payments": GROUP}},
            "topics": {"topics": {}},
            "sessions": {"sessions": []},
            "alarms": {"alarms": []},
            "fault.list": {"faults": []},
        }

    async def admin(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """As the library's."""
        self.asked.append((verb, arguments))
        answer = self.answers[verb]
        if isinstance(answer, Callable):  # type: ignore[arg-type]
            answer = answer(arguments)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    def tap(self, topics: list[str], after: int | None = None) -> FakeTap:
        """As the library's."""
        if self.full:
            raise atoll.OverloadedError("8 taps are open already")
        self.tapped.append((topics, after))
        self.taps.append(FakeTap())
        return self.taps[-1]

    def of(self, verb: str) -> list[dict[str, Any]]:
        """The arguments of each request with this verb."""
        return [arguments for name, arguments in self.asked if name == verb]
