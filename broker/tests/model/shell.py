"""The core in its memory shell, with the reference beside it at every point where either could change."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from atoll_broker import log, taps
from atoll_broker.clock import TURN_SECONDS_MAX
from atoll_broker.core import Core
from atoll_broker.journal import Commit
from atoll_broker.testing import MemoryBroker

from .reference import Header, Reference
from .violations import must
from .words import MESH, READ_EVENTS_MAX, TAP_EVENTS_MAX

# Bounds that mesh.toml does not set, low enough to be met.
log.READ_EVENTS_MAX = READ_EVENTS_MAX  # type: ignore[misc]
taps.BUFFER_EVENTS_MAX = TAP_EVENTS_MAX  # type: ignore[misc]
_header = msgspec.json.Decoder(dict[str, Any])
_batch = msgspec.json.Decoder(list[Raw])
Message = tuple[bytes, str, Header, list[bytes]]


class Shell(MemoryBroker):
    """`slow`: a commit that was begun ends at `finish_commit`, and until then the disk has not got it. `full`: it ends
    with nothing written."""

    def __init__(self, seed: int) -> None:
        super().__init__(MESH, seed=seed)
        self.reference = Reference()
        self.reference.wall_ms = self.clock.wall_ms()
        self.slow = False
        self.full = False
        self.begun: Commit | None = None
        self._served = 0.0

    def _new_core(self) -> Core:
        """`struck`: the deliveries that a fault hit, which the wire does not show."""
        core = super()._new_core()
        self.struck: list[tuple[str, int, str, str]] = []
        self.hit = False
        note = core.history.failure

        def failure(seq: int, group: str, what: str, attempt: int, slot: str, fence: int, text: str) -> None:
            if what == "fault":
                self.struck.append((group, seq, text.removeprefix("injected: "), slot))
            note(seq, group, what, attempt, slot, fence, text)

        core.history.failure = failure  # type: ignore[method-assign]
        return core

    # ---- turns -------------------------------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        """One turn after so long. What goes beyond a turn's bound was not served, and counts for nobody."""
        self._served += min(seconds, TURN_SECONDS_MAX)
        self.clock.move(seconds)
        self.reference.wall_ms = self.clock.wall_ms()
        self.turn()

    def _turn(self) -> None:
        self.core.tick()
        if self._served:
            self.reference.tick(self._served)
            self._served = 0.0
        more = True
        while more:
            more = self.core.poll()
            more = self._flush() or more
            more = self.commit() or more
            more = self._search() or more
        if self.hit:  # what a fault buried moves the floor at the next turn
            self.hit = False
            self._turn()

    def _flush(self) -> bool:
        messages = [_message(route, frames) for route, frames in self.core.take_out()]
        for _, command, header, _ in messages:
            if command == "RESULT":  # made before the groups read on, and may have changed what they read into
                self.reference.answered(header["request"], header)
        for name, group in self.reference.groups.items():
            group.read_to(self.core.groups[name].scanned, self.reference.now)
        struck, self.struck = self.struck, []
        self.hit = self.hit or bool(struck)
        for group_name, seq, kind, slot in struck:
            self.reference.strike(group_name, seq, kind, slot)
        for route, command, header, bodies in messages:
            self.reference.sent(route, command, header, bodies)
        for route in dict.fromkeys(route for route, *_ in messages):
            if not self.is_open(route):
                self.core.unreachable(route, "its socket is gone")
                self.reference.unreachable(route)
        return bool(messages)

    def _search(self) -> bool:
        lookups = self.core.take_lookups()
        for lookup in lookups:
            self.reference.asked()
            self.core.answered(lookup, lookup.ask())
        return bool(lookups)

    def is_open(self, route: bytes) -> bool:
        peer = self._peers.get(route)
        return peer is not None and peer.open

    # ---- the disk ----------------------------------------------------------------------------------------------------

    def commit(self) -> bool:
        if self.begun is not None or (commit := self.core.take_commit()) is None:
            return False
        self.begun = commit
        self.reference.take_commit()
        if self.slow:
            return False
        self._finish()
        return True

    def finish_commit(self) -> None:
        """The disk is done with what was begun."""
        self._finish()
        self.turn()

    def _finish(self) -> None:
        commit, self.begun = self.begun, None
        assert commit is not None
        if self.full:
            self.core.disk_full(commit)
            self.reference.disk_full()
            return
        trimmed = self.storage.commit(commit.batch)
        self.reference.flushed()
        self.core.committed(commit, trimmed)
        self.reference.committed(self.core.log.oldest)

    def crash(self, *, flushed: bool) -> None:
        """The broker dies; with a commit on its way, before or after the disk had it. A new one boots."""
        if self.begun is not None and flushed and not self.full:
            self.storage.commit(self.begun.batch)
            self.reference.flushed()
        self.begun = None
        self._served = 0.0
        self.restart()
        self.reference.crash(self.core.log.oldest)
        must(self.core.boot == self.reference.boot, "each boot has its number", self.core.boot)

    def stop(self) -> None:
        """The broker stops in order: it says BYE, and writes what there is."""
        self.core.farewell()
        self.reference.farewell()
        self._flush()
        if self.begun is not None:
            self._finish()
            self._flush()
        if (commit := self.core.take_commit(force=True)) is not None:
            self.begun = commit
            self.reference.take_commit()
            self._finish()
        self.crash(flushed=True)


def _message(route: bytes, frames: list[bytes]) -> Message:
    bodies = [bytes(body) for body in _batch.decode(frames[2])] if len(frames) == 3 else []
    return route, frames[0][2:].decode(), _header.decode(frames[1]), bodies
