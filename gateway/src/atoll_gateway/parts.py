"""What the gateway consists of, and when it may be called ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from aiohttp import web

from .metrics import Metrics
from .registry import Registry
from .storage import Shelf
from .streams import Streams
from .trust import KeyRing, Revoked


class Feed(Protocol):
    """The session with the broker, as far as the gateway needs it: `atoll.Session`, or a fake in tests."""

    @property
    def state(self) -> str:
        """`connecting`, `up` or `down: why`."""

    def watch(self, kind: str, callback: Callable[[Any, bool], None]) -> None:
        """Calls `callback(value, settled)` on the loop, now and at each change."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *error: object) -> None: ...


@dataclass(slots=True)
class Parts:
    """One gateway."""

    feed: Feed
    shelf: Shelf
    registry: Registry
    keys: KeyRing
    revoked: Revoked
    metrics: Metrics
    streams: Streams
    draining: bool = field(default=False)

    def restore(self) -> None:
        """Takes up what the last process left on disk. Raises OSError if the directory cannot be made."""
        self.shelf.prepare()
        self.keys.restore()
        self.revoked.restore()
        self.registry.restore()

    def watch(self) -> None:
        """Follows the broker."""
        self.feed.watch("registry", self.registry.update)
        self.feed.watch("keys", self.keys.update)
        self.feed.watch("revocations", self.revoked.update)

    def bus_state(self) -> str:
        """The session's state, in the SDK's words."""
        return self.feed.state

    def why_not_ready(self) -> str:
        """Empty when requests can be served."""
        missing = [name for name, known in (("keys", self.keys.known), ("registry", self.registry.known)) if not known]
        if self.draining:
            return "draining"
        return f"waiting for: {', '.join(missing)}" if missing else ""

    def degraded(self) -> list[str]:
        """What is missing without the front door closing: `bus`, `revocations` (`ops:*` is refused), `disk`."""
        states = {"bus": self.bus_state() != "up", "revocations": self.revoked.silent, "disk": bool(self.shelf.failure)}
        return [name for name, missing in states.items() if missing]


PARTS: web.AppKey[Parts] = web.AppKey("parts", Parts)
