"""One history: whoever does something does it to the core and to the reference, and then the two are compared."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from atoll_broker.testing import Peer

from .groups import LEASED
from .outboxes import Event
from .reference import Header, Reference
from .shell import Shell
from .violations import must

RUBBISH: Final[dict[str, list[bytes]]] = {
    "FRAMES": [b"A1PING", b"{}", b"x"],
    "VERSION": [b"A2PING", b"{}"],
    "HEADER": [b"A1ACK", b'{"group":7}'],
    "COMMAND": [b"A1DANCE", b"{}"],
}
TRACE_MAX: Final = 40
SAVED_LATE_SECONDS: Final = 0.5
Pair = tuple[str, str, str]


class World:
    """`reached` counts (table, state, command); `steps` counts what was done to the core."""

    def __init__(self, seed: int = 0) -> None:
        self.shell = Shell(seed)
        self.reached: Counter[Pair] = Counter()
        self.steps = 0
        self.trace: deque[tuple[Any, ...]] = deque(maxlen=TRACE_MAX)
        self._unsaved_since: float | None = None

    @property
    def reference(self) -> Reference:
        return self.shell.reference

    # ---- peers -------------------------------------------------------------------------------------------------------

    def connect(self, identity: str) -> Peer:
        return self.shell.connect(identity)

    def session_state(self, peer: Peer) -> str:
        """A socket's row in the coverage table."""
        session = self.reference.sessions.get(peer.route)
        if session is None:
            return "no session"
        return "suspect" if session.suspect else "alive"

    def say(self, peer: Peer, command: str, header: Header, batch: Sequence[Event] | None = None) -> None:
        """One command of one peer."""
        self.reached["session", self.session_state(peer), command] += 1
        if command in ("ADMIN", "PUT") and (state := self.session_state(peer)) != "no session":
            self.reached["steering", state, f"{command} {header.get('verb', header.get('kind'))}"] += 1
        self._note(command, peer.identity, peer.route, header, [event.id for event in batch or ()])
        self.reference.receive(peer.route, peer.identity, command, header, batch or ())
        frames = [b"A1" + command.encode(), msgspec.json.encode(header)]
        if batch is not None:
            frames.append(b"[" + b",".join(event.body for event in batch) + b"]")
        peer.send(frames)
        self._check()

    def say_rubbish(self, peer: Peer, code: str) -> None:
        """Something that is refused with that code before it is understood."""
        self.reached["session", self.session_state(peer), f"rubbish: {code}"] += 1
        self._note("RUBBISH", peer.identity, peer.route, code)
        self.reference.receive(peer.route, peer.identity, "RUBBISH", {"code": code})
        peer.send(RUBBISH[code])
        self._check()

    def another_key(self, peer: Peer, identity: str) -> None:
        """The routing id comes again, with another identity's key."""
        self.reached["session", self.session_state(peer), "a frame of another key"] += 1
        self._note("another key", identity, peer.route)
        self.reference.receive(peer.route, identity, "PING", {})
        peer.identity = identity
        peer.send([b"A1PING", b"{}"])
        self._check()

    def cut(self, peer: Peer) -> None:
        """The socket dies without a word: what was on its way to it is lost. The broker learns of it when it sends."""
        self._note("cut", peer.route)
        peer.close()

    def revoke(self, identity: str) -> None:
        """The identity's key is taken away."""
        self._note("revoke", identity)
        for session in self.reference.of_identity(identity):
            self._count_held(session.route, "key revoked")
        self.reference.revoke(identity)
        self.shell.core.revoke(identity)
        self.shell.turn()
        self._check()

    # ---- time and the disk -------------------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        """One turn after so long."""
        self._note("time", seconds)
        soon = self.reference.now + min(seconds, 0.25)
        for group in self.reference.groups.values():
            for seq, item in group.leases.items():
                if item.deadline <= soon:
                    self.reached["event", group.state_of(seq), "lease over"] += 1
        self.shell.pass_time(seconds)
        self._check()
        self._check_saved()

    def set_slow(self, slow: bool) -> None:
        self._note("disk slow" if slow else "disk fast")
        self.shell.slow = slow
        if not slow and self.shell.begun is not None:
            self.shell.finish_commit()
        self._check()

    def set_full(self, full: bool) -> None:
        self._note("disk full" if full else "disk has room")
        self.shell.full = full
        if full and self.shell.begun is not None:
            self.reached["disk", self.disk_state, "full"] += 1
        self._check()

    def finish_commit(self) -> None:
        self._note("commit ends")
        self.shell.finish_commit()
        self._check()

    def crash(self, *, flushed: bool) -> None:
        self._note("crash", flushed)
        self._count_all("crash")
        self.reached["disk", self.disk_state, "crash after the flush" if flushed else "crash before the flush"] += 1
        self.shell.crash(flushed=flushed)
        self._begin()

    def stop(self) -> None:
        self._note("stop")
        self._count_all("stop")
        self.reached["disk", self.disk_state, "stop"] += 1
        self.shell.stop()
        self._begin()

    def _begin(self) -> None:
        self._unsaved_since = None
        self.shell.turn()
        self._check()

    @property
    def disk_state(self) -> str:
        """What the disk is doing: idle, a commit under way, and whether more waits behind it."""
        reference = self.reference
        waits = reference.log.next - 1 > (reference.commit.disk.last if reference.commit else reference.log.last)
        if self.shell.begun is not None:
            return "a commit under way, more waits" if waits else "a commit under way"
        return "idle"

    # ---- coverage ----------------------------------------------------------------------------------------------------

    def _count_all(self, what: str) -> None:
        for group in self.reference.groups.values():
            for seq in group.items:
                self.reached["event", group.state_of(seq), what] += 1

    def _count_held(self, route: bytes, what: str) -> None:
        for group in self.reference.groups.values():
            for seq, item in group.leases.items():
                if item.member is not None and item.member.session.route == route:
                    self.reached["event", group.state_of(seq), what] += 1

    def count_end(self, peer: Peer, what: str) -> None:
        """For who is about to end that session."""
        self._count_held(peer.route, what)

    def count_tap(self, peer: Peer, name: str, command: str) -> None:
        """TAP or CREDIT, in whatever state that tap is."""
        tap = self.reference.sessions[peer.route].taps.get(name)
        self.reached["tap", tap.state if tap is not None else "none", command] += 1

    # ---- comparing ---------------------------------------------------------------------------------------------------

    def _note(self, *what: Any) -> None:
        self.steps += 1
        self.trace.append((self.steps, self.reference.boot, self.reference.now, *what))

    def _check(self) -> None:
        self.reference.settled()
        self._compare()
        if not self.shell.slow and self.reference.full_until is None:
            must(not self.reference.pending_events, "what is urgent is committed in its turn")
            must(not self.reference.then, "what is urgent is committed in its turn")

    def _compare(self) -> None:
        """What operators see, and retention and liveness go by, is what the reference says."""
        core, reference = self.shell.core, self.reference
        extent = (core.log.oldest, core.log.last, core.log.bytes)
        wanted = (reference.log.oldest, reference.log.last, reference.log.bytes)
        must(extent == wanted, "the log's extent", extent, wanted)
        must(len(core.sessions) == len(reference.sessions), "sessions", len(core.sessions), len(reference.sessions))
        must(core.publishing.pending_events == reference.pending_events, "what waits for the disk")
        for name, group in reference.groups.items():
            own = core.groups[name]
            seen = (own.lag, own.dead, own.floor, own.in_flight, len(own.members))
            should = (group.lag, len(group.letters), group.floor, len(group.leases), len(group.members))
            must(seen == should, "lag, dead, floor, in flight, members of a group", name, seen, should)
            for member in group.members.values():
                place = own.members[member.session.id]
                credit = (place.events, place.bytes, place.in_flight)
                must(
                    credit == (member.events, member.bytes, member.in_flight), "a member's credit", credit, member.state
                )

    def _check_saved(self) -> None:
        """What need not be on disk at once must get there soon, while the disk works."""
        reference = self.reference
        saved = all(
            reference.disk.groups[name] == group.save(attaching=reference.attaching[name] > 0)
            for name, group in reference.groups.items()
        )
        if saved or self.shell.slow or self.shell.full or reference.full_until is not None:
            self._unsaved_since = None
            return
        if self._unsaved_since is None:
            self._unsaved_since = reference.now
        late = reference.now - self._unsaved_since
        must(late <= SAVED_LATE_SECONDS, "acks and attempts reach the disk soon", late)

    # ---- what rules look at ------------------------------------------------------------------------------------------

    def held_by(self, peer: Peer) -> list[tuple[str, int, int]]:
        """(group, seq, fence) of all that this session has in hand."""
        return [
            (group.name, seq, item.fence)
            for group in self.reference.groups.values()
            for seq, item in group.leases.items()
            if item.state == LEASED and item.member is not None and item.member.session.route == peer.route
        ]
