"""Whole states pushed to whoever watches: the registry of services, the key set, the revocations.

A state carries a version (boot, n), and whether it is settled: after a boot the registry fills up as services say
HELLO again, and a gateway that believed the first half of it would drop every route of the other half.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from .commands import WATCH_KINDS, Endpoints, State
from .sessions import Session


class Watches:
    def __init__(self, boot: int, keys: bytes | None, settle_seconds: float) -> None:
        self._boot = boot
        self._settle_seconds = settle_seconds
        self._numbers = dict.fromkeys(WATCH_KINDS, 0)
        self._values: dict[str, bytes | None] = {"keys": keys, "revocations": None}
        self._settled = False
        self._changed: set[str] = set()

    def changed(self, kind: str) -> None:
        """Two values never have one version, whoever saw the first of them."""
        self._changed.add(kind)
        self._numbers[kind] += 1

    def put(self, kind: str, value: bytes) -> tuple[int, int]:
        self._values[kind] = value
        self.changed(kind)
        return self.version(kind)

    def version(self, kind: str) -> tuple[int, int]:
        return self._boot, self._numbers[kind]

    def tick(self, now: float) -> None:
        if not self._settled and now >= self._settle_seconds:
            self._settled = True
            self.changed("registry")

    def take_changed(self) -> set[str]:
        """The kinds to push; changes of one turn go out as one."""
        changed, self._changed = self._changed, set()
        return changed

    def state(self, kind: str, sessions: Iterable[Session]) -> State:
        if kind == "registry":
            return State(kind, self.version(kind), self._settled, Raw(registry(sessions)))
        value = self._values[kind]
        return State(kind, self.version(kind), value is not None, Raw(b"null" if value is None else value))


def registry(sessions: Iterable[Session]) -> bytes:
    """`{services: {name: {slot: entry}}}` of the sessions that announced endpoints."""
    services: dict[str, dict[str, dict[str, object]]] = {}
    for session in sessions:
        if session.hello.endpoints is not None:
            services.setdefault(session.identity, {})[session.slot] = _entry(session, session.hello.endpoints)
    return msgspec.json.encode({"services": services})


def _entry(session: Session, endpoints: Endpoints) -> dict[str, object]:
    return {
        "url": endpoints.url,
        "ready": session.ready,
        "why": session.why,
        "version": session.hello.version,
        "prefixes": endpoints.prefixes,
        "routes": endpoints.routes,
        "openapi": endpoints.openapi,
    }
