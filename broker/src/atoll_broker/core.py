"""The broker without sockets, threads or time of its own: frames in, frames and write batches out.

One turn of the shell:  receive … receive, tick, poll, take_out; take_commit goes to the writer thread, and when it is
on disk `committed` comes back. PUBACKs and deliveries of what a batch holds are made in `committed` and no earlier. A
commit that fails has no way back in: the shell seals the storage and exits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Literal

import msgspec

from . import admin, codec, commands, grants
from . import mesh as meshes
from .clock import Clock, ServedClock
from .commands import Bye, Err, Fenced, Gap, Header, Hello, Limits, Pong, SubOk, TapMsg, Welcome
from .entries import Member
from .errors import WireError
from .events import Schemas
from .faults import Faults
from .groups import Context, Group
from .history import History
from .journal import Commit, Journal
from .log import Log
from .mesh import Mesh
from .publishing import Publishing
from .replays import Replays
from .retention import Retention
from .sessions import DEAD_HEARTBEATS, SUSPECT_HEARTBEATS, Session, Sessions
from .storage import Storage, Trimmed
from .taps import TAPS_MAX, Tap
from .watches import Watches

FENCE_BITS: Final = 32
READS_PER_TURN_MAX: Final = 8
LOOKUPS_MAX: Final = 16

Note = Callable[..., None]
Outgoing = tuple[bytes, list[bytes]]


class Lookup(msgspec.Struct):
    """A question that may read the whole log: `ask` runs on a thread of its own, `then` on the loop with its answer."""

    ask: Callable[[], object]
    then: Callable[[object], None]


def _silent(event: str, **_: object) -> None:
    """The default for `note`: say nothing."""


class Core:
    """Raises StorageFailedError from any method when the log can not be read: the broker must stop then.

    `note(event, **fields)` is told what belongs in the log of the process.
    """

    def __init__(self, mesh: Mesh, storage: Storage, clock: Clock, random: Random, note: Note = _silent) -> None:
        starts: dict[str, tuple[list[str], Literal["earliest", "latest"]]]
        starts = {name: (group.topics, group.first) for name, group in mesh.groups.items()}
        recovered = storage.open(starts, clock.wall_ms())
        self.mesh = mesh
        self.storage = storage
        self.boot = recovered.boot
        self.log_id = recovered.log_id
        self.errors: Counter[str] = Counter()
        self.events_total = 0
        self.sessions = Sessions()
        self.log = Log(storage, recovered, mesh.bus.cache_bytes_max)
        self._clock = ServedClock(clock)
        self._random = random
        self._note = note
        self._journal = Journal()
        self._committing = False
        self._out: list[Outgoing] = []
        self._fences = 0
        self._sessions_opened = 0
        self._schemas = Schemas()
        self._lookups: list[Lookup] = []
        self._asking = 0
        self.wall_ms = clock.wall_ms
        self.mesh_problem: str | None = None
        self.mesh_waiting: list[str] = []
        self.history = History(self.boot, self._journal, clock.wall_ms)
        self.faults = Faults(self.boot, random.random)
        self.replays = Replays(self.boot)
        self.publishing = Publishing(mesh.bus, self.log, self._journal, recovered.producers, clock.wall_ms)
        self._watches = Watches(self.boot, recovered.kept.get("keys"), DEAD_HEARTBEATS * mesh.bus.heartbeat_seconds)
        self._context = Context(
            mesh.bus, self._journal, self._next_fence, self._jitter, self.log.event, clock.wall_ms, self.boot,
            self.history, self.faults.strike,
        )  # fmt: skip
        self.groups = {
            name: Group(name, config, recovered.groups[name], self._context) for name, config in mesh.groups.items()
        }
        self._retention = Retention(self.log, self.groups, clock.wall_ms)
        self._takers = {
            topic: [group for group in self.groups.values() if topic in group.topics]
            for topic in {topic for group in self.groups.values() for topic in group.topics}
        }

    @property
    def now(self) -> float:
        """Seconds on the served clock."""
        return self._clock.now

    @property
    def committing(self) -> bool:
        """Is a batch on its way to the disk?"""
        return self._committing

    # ---- in ----------------------------------------------------------------------------------------------------------

    def receive(self, route: bytes, identity: str, frames: Sequence[bytes]) -> None:
        """One message of a peer whose key is `identity`'s. Whatever it holds, it costs at most an ERR."""
        session = self._session_at(route, identity)
        command: commands.ClientCommand | None = None
        if session is not None:
            self._seen(session)
        try:
            command, payload = codec.decode(frames)
            if isinstance(command, Hello):
                self._hello(route, identity, session, command)
            elif session is None:
                raise WireError("NO_SESSION", "say HELLO first; after an end, on a new socket")
            else:
                self._obey(session, command, payload)
        except WireError as error:
            self._reject(route, session, error, getattr(command, "request", None))

    def unreachable(self, route: bytes, why: str) -> None:
        """The peer's socket is gone, or it does not read what it asked for."""
        session = self.sessions.at(route)
        if session is not None:
            self._end(session, why, died=True, tell=None)

    def revoke(self, identity: str) -> None:
        """The identity's key was removed or replaced: its sessions end."""
        for session in self.sessions.of_identity(identity):
            self._end(session, "the key was revoked", died=True, tell=Fenced("the key was revoked"))

    def reload(self, wanted: Mesh) -> None:
        """mesh.toml has changed: policy holds at once, for sessions that are open too; what can not, waits."""
        self.mesh, self.mesh_waiting = meshes.merge(self.mesh, wanted)
        self.mesh_problem = None
        self._context.bus = self.mesh.bus
        self.publishing.reconfigure(self.mesh.bus)
        for name, config in self.mesh.groups.items():
            self.groups[name].reconfigure(config, self.now)
        for session in self.sessions:
            try:
                grants.check_session(self.mesh, session.identity, session.hello, session.watches, session.taps)
            except WireError as error:
                reason = f"no longer granted: {error.text}"
                self._end(session, reason, died=True, tell=Fenced(reason))

    def farewell(self) -> None:
        """The broker stops; clients come back by themselves."""
        for session in self.sessions:
            self._end(session, "broker stops", died=False, tell=Bye("the broker stops"))

    # ---- turn --------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Time passes: leases, delays, silence, retention."""
        now = self._clock.turn()
        for session in self.sessions:
            self._watch_silence(session, now)
        for group in self.groups.values():
            group.tick(now)
        self.faults.tick(now)
        self._watches.tick(now)
        self._retention.tick(now, self.mesh.bus)
        if self.publishing.full_until is not None and now >= self.publishing.full_until and self._journal.is_empty:
            self._journal.keep("probe", b"null")  # or nobody would find out that there is room again

    def poll(self) -> bool:
        """Makes what is due to go out. True if there is more to do at once."""
        for ack in self.publishing.take_acks():
            session = self.sessions.of_producer(ack.producer)
            if session is not None:
                self._send(session, ack)
        more = self._feed_groups()
        for group in self.groups.values():
            for session_id, header, bodies in group.dispatch(self.now):
                receiver = self.sessions.by_id(session_id)
                assert receiver is not None, "a member goes with its session"
                self._out.append((receiver.route, codec.encode(header, codec.join_batch(bodies))))
        more = self._feed_taps() or more
        self._push_states()
        return more

    def take_out(self) -> list[Outgoing]:
        """(route, frames) to send, in order."""
        out, self._out = self._out, []
        return out

    def take_lookups(self) -> list[Lookup]:
        """Questions for the thread that may take long; each is given back to `answered` with its answer."""
        lookups, self._lookups = self._lookups, []
        return lookups

    def answered(self, lookup: Lookup, answer: object) -> None:
        """On the loop again."""
        self._asking -= 1
        lookup.then(answer)

    def look_up(self, ask: Callable[[], object], then: Callable[[object], None]) -> None:
        """Raises WireError BUSY when too many are under way."""
        if self._asking >= LOOKUPS_MAX:
            raise WireError("BUSY", f"{LOOKUPS_MAX} searches of the log are under way: try again later")
        self._asking += 1
        self._lookups.append(Lookup(ask, then))

    # ---- the disk ----------------------------------------------------------------------------------------------------

    def take_commit(self, *, force: bool = False) -> Commit | None:
        """The next group commit, if one is due and none is on its way."""
        if self._committing or self._waits_for_room():
            return None
        # Asked before whether a commit is due: in an idle broker with a full log nothing else would make it so, and
        # publishers would get BUSY for ever.
        if (below := self._retention.due(self.mesh.bus)) is not None:
            self._journal.trim(below)
        if not (self._journal.is_due(self.now) or (force and not self._journal.is_empty)):
            return None
        self._committing = True
        commit = self._journal.take()
        self.log.trimming(commit.batch.trim_below)
        return commit

    def _waits_for_room(self) -> bool:
        """Was the disk full a moment ago? A broker that stops does not wait for it: what is not acked is sent again."""
        full_until = self.publishing.full_until
        return full_until is not None and self.now < full_until

    def disk_full(self, commit: Commit) -> None:
        """The disk had no room for this batch and holds nothing of it. Publishers send theirs again; what groups had
        to write waits, and until then a crash would only make more events come again."""
        self._committing = False
        self.log.trimming(None)
        if self.publishing.full_until is None:
            self._note("the disk is full: publishers are told BUSY until there is room")
        for busy in self.publishing.disk_full(self.now):
            session = self.sessions.of_producer(busy.producer)
            if session is not None:
                self._send(session, busy)
        for waiting in self._journal.put_back(commit):
            assert waiting.refused is not None, "the others wait on"
            waiting.refused()

    def committed(self, commit: Commit, trimmed: Trimmed | None) -> None:
        """The batch is on disk: now its events exist."""
        self._committing = False
        self.log.extend(commit.batch.events)
        self.events_total += len(commit.batch.events)
        for event in commit.batch.events:
            for group in self._takers.get(event.topic, ()):
                if group.lag == 0:
                    group.progress_at = self.now  # what was idle has not been stalled
                group.lag += 1
        for session in self.sessions:
            for tap in session.taps.values():
                tap.committed(commit.batch.events)
        if trimmed is not None:
            self.log.trimmed(trimmed)
            for group in self.groups.values():
                group.trimmed(trimmed.oldest, trimmed.topics)
        self.publishing.committed(commit.batch)
        for waiting in commit.then:
            waiting.done()

    # ---- sessions ----------------------------------------------------------------------------------------------------

    def _session_at(self, route: bytes, identity: str) -> Session | None:
        session = self.sessions.at(route)
        if session is not None and session.identity != identity:
            # A routing id can come again with another key; what the old one had must not pass on.
            self._end(session, "its socket now belongs to another key", died=True, tell=None)
            return None
        return session

    def _hello(self, route: bytes, identity: str, session: Session | None, hello: Hello) -> None:
        if session is not None:
            raise WireError("SESSION", "this socket has a session; open another socket for another")
        try:
            grants.check_hello(self.mesh, identity, hello)
            contract = {topic: self._schemas.compile(topic, raw) for topic, raw in hello.contracts.publishes.items()}
        except WireError as error:
            self._note("hello refused", identity=identity, peer=hello.slot, code=error.code, text=error.text)
            raise
        self._make_way(identity, hello)
        self._check_room(identity)
        producer = self.publishing.open(hello.producer) if hello.producer is not None else None
        opened = Session(self._session_id(), route, identity, hello, contract)
        opened.last_seen = self.now
        self.sessions.add(opened)
        for group in self.groups.values():
            group.slot_is_back(hello.slot)
        self._registry_changed(opened)
        self._send(opened, self._welcome(opened, producer.opened() if producer is not None else None))
        self._note("session opened", peer=hello.slot, session=opened.id)

    def _make_way(self, identity: str, hello: Hello) -> None:
        """Ends what the same process had before, and whoever else holds the slot or the outbox: the newest wins."""
        old = self.sessions.by_id(hello.resume) if hello.resume is not None else None
        if old is not None and old.identity == identity and old.hello.process == hello.process:
            self._end(old, "resumed", died=False, tell=None)
        for rival in self.sessions.rivals(hello):
            reason = f"{hello.slot} said HELLO again"
            self._end(rival, reason, died=rival.hello.process != hello.process, tell=Fenced(reason))

    def _check_room(self, identity: str) -> None:
        bus = self.mesh.bus
        if len(self.sessions) >= bus.sessions_max:
            raise WireError("LIMIT", f"the broker has {bus.sessions_max} sessions, its bound")
        if len(self.sessions.of_identity(identity)) >= bus.sessions_per_identity_max:
            raise WireError("LIMIT", f"{identity} has {bus.sessions_per_identity_max} sessions, the bound")

    def _session_id(self) -> str:
        self._sessions_opened += 1
        return f"{self.boot}-{self._sessions_opened}-{self._random.getrandbits(32):08x}"

    def _welcome(self, session: Session, mark: commands.ProducerMark | None) -> Welcome:
        bus = self.mesh.bus
        return Welcome(
            session=session.id,
            log=self.log_id,
            boot=self.boot,
            producer=mark,
            oldest=self.log.oldest,
            heartbeat_ms=int(bus.heartbeat_seconds * 1000),
            limits=Limits(bus.event_bytes_max, bus.batch_events_max, bus.batch_bytes_max),
            credit=self.publishing.window,
        )

    def _seen(self, session: Session) -> None:
        session.last_seen = self.now
        if session.suspect:
            session.set_suspect(False)
            self._registry_changed(session)

    def _watch_silence(self, session: Session, now: float) -> None:
        heartbeat = self.mesh.bus.heartbeat_seconds
        silent = now - session.last_seen
        if silent >= DEAD_HEARTBEATS * heartbeat:
            reason = f"silent for {silent:.1f} s"
            self._end(session, reason, died=True, tell=Fenced(reason))
        elif silent >= SUSPECT_HEARTBEATS * heartbeat:
            if not session.suspect:
                session.set_suspect(True)
                self._registry_changed(session)
            if now - session.last_probe >= heartbeat:
                session.last_probe = now
                self._send(session, Pong())

    def _end(self, session: Session, reason: str, *, died: bool, tell: Header | None) -> None:
        if tell is not None:
            self._send(session, tell)
        self.sessions.remove(session)
        for name in session.members:
            self.groups[name].leave(session.id, self.now, died=died)
        if session.hello.producer is not None and self.sessions.of_producer(session.hello.producer) is None:
            self.publishing.close(session.hello.producer)
        self._registry_changed(session)
        self._note("session ended", peer=session.slot, session=session.id, reason=reason)

    def _registry_changed(self, session: Session) -> None:
        """Pushed at the end of the turn, if the session is in the registry at all."""
        if session.hello.endpoints is not None:
            self._watches.changed("registry")

    def _reject(self, route: bytes, session: Session | None, error: WireError, request: str | None) -> None:
        self.errors[error.code] += 1
        err = Err(error.code, error.text, error.field, error.closes, request)
        self._out.append((route, codec.encode(err)))
        if error.closes and session is not None:
            self._end(session, str(error), died=True, tell=None)

    def _send(self, session: Session, header: Header) -> None:
        self._out.append((session.route, codec.encode(header)))

    # ---- commands ----------------------------------------------------------------------------------------------------

    def _obey(self, session: Session, command: commands.ClientCommand, payload: bytes | None) -> None:
        match command:
            case commands.Pub():
                self._pub(session, command, payload or b"")
            case commands.Ack():
                group, _ = self._membership(session, command.group)
                stale = group.ack(session.id, command.done, command.duplicate, self.now)
                self._answer_stale(session, group, stale)
            case commands.Credit():
                self._credited(session, command.group).add_credit(command.events, command.bytes)
            case commands.Ping():
                self._ping(session, command)
            case commands.Sub():
                self._sub(session, command)
            case commands.Tap():
                self._tap(session, command)
            case commands.Watch():
                self._watch(session, command)
            case commands.Put():
                self._put(session, command)
            case commands.Admin():
                self._admin(session, command)
            case commands.Bye():
                self._end(session, command.reason or "BYE", died=False, tell=Bye("as you asked"))
            case _:
                self._obey_member(session, command)

    def _obey_member(self, session: Session, command: commands.ClientCommand) -> None:
        assert isinstance(command, commands.Nack | commands.Term | commands.Wip | commands.Drain)
        group, member = self._membership(session, command.group)
        stale: list[tuple[int, int]] = []
        match command:
            case commands.Nack():
                stale = group.nack(session.id, command.messages, command.delay_ms, command.error, self.now)
            case commands.Term():
                text = ": ".join(part for part in (command.reason, command.error) if part)
                stale = group.term(session.id, command.messages, text, self.now)
            case commands.Wip():
                stale = group.extend(session.id, command.messages, self.now)
            case commands.Drain():
                member.draining = True
        self._answer_stale(session, group, stale)

    def _pub(self, session: Session, command: commands.Pub, payload: bytes) -> None:
        if command.producer != session.hello.producer:
            raise WireError("PRODUCER", f"this session opened {session.hello.producer}", "producer")
        grant = grants.grant_of(self.mesh, session.identity)
        if not grant.publish:  # each event would be refused; but an outbox that was used is remembered for ever
            raise WireError("ACL", f"{session.identity} may not publish", "producer")
        answer = self.publishing.take(session, command, payload, grant.events_per_second_max, self.now)
        if answer is not None:
            self._send(session, answer)

    def _sub(self, session: Session, command: commands.Sub) -> None:
        """Also again, with other topics or another bound: credit and leases stay."""
        config = grants.check_group(self.mesh, session.identity, command.group, command.topics)
        member = session.members.get(command.group)
        if member is None:
            member = Member(session.id, session.slot, session.hello.version)
            session.members[command.group] = self.groups[command.group].members[session.id] = member
        member.topics = frozenset(command.topics)
        member.asked_in_flight = command.max_in_flight
        member.max_in_flight = min(command.max_in_flight, config.in_flight_max)
        self._send(session, SubOk(command.group, int(config.lease_seconds * 1000)))
        group = self.groups[command.group]
        if group.detached:  # a trim that passes its floor may be on its way to the disk: it is attached after that
            self._journal.detached(group.name, False)
            detachments = group.detachments
            self._journal.after_commit(lambda: self._attach(group, detachments))
        elif group.gaps:
            self._send(session, _gaps_of(group))

    def _attach(self, group: Group, detachments: int) -> None:
        """Unless it is attached already, or was detached anew since."""
        if not group.detached or group.detachments != detachments:
            return
        group.attach()
        group.progress_at = self.now
        self._retention.look(self.mesh.bus)
        for session in self.sessions:
            if group.name in session.members and group.gaps:
                self._send(session, _gaps_of(group))

    def _tap(self, session: Session, command: commands.Tap) -> None:
        """A new one, or one of that name anew; without topics its end."""
        grants.check_tap(self.mesh, session.identity, command.topics)
        session.taps.pop(command.tap, None)
        if len(session.taps) >= TAPS_MAX:
            raise WireError("LIMIT", f"a session has at most {TAPS_MAX} taps", "tap", closes=False)
        if command.topics:
            session.taps[command.tap] = Tap(command.tap, command.topics, command.after, self.log)
        self._send(session, SubOk(command.tap, 0))

    def _credited(self, session: Session, name: str) -> Member | Tap:
        if name.startswith("~"):
            if name not in session.taps:
                raise WireError("GROUP", f"this session has no tap {name}: TAP first", "group")
            return session.taps[name]
        return self._membership(session, name)[1]

    def _membership(self, session: Session, name: str) -> tuple[Group, Member]:
        member = session.members.get(name)
        if member is None:
            raise WireError("GROUP", f"this session is no member of {name}: SUB first", "group")
        return self.groups[name], member

    def _answer_stale(self, session: Session, group: Group, stale: list[tuple[int, int]]) -> None:
        if stale:
            self._send(session, commands.Stale(group.name, stale))

    def _ping(self, session: Session, command: commands.Ping) -> None:
        if (session.ping.ready, session.ping.why) != (command.ready, command.why):
            self._registry_changed(session)
        session.ping = command
        self._send(session, Pong())

    def _watch(self, session: Session, command: commands.Watch) -> None:
        grants.check_watch(self.mesh, session.identity, command.kind)
        session.watches.add(command.kind)
        self._send(session, self._watches.state(command.kind, self.sessions))

    def _push_states(self) -> None:
        for kind in self._watches.take_changed():
            watchers = [session for session in self.sessions if kind in session.watches]
            if watchers:
                frames = codec.encode(self._watches.state(kind, self.sessions))
                self._out.extend((session.route, frames) for session in watchers)

    def _put(self, session: Session, command: commands.Put) -> None:
        grants.check_put(self.mesh, session.identity, command.kind)
        codec.decode_raw(command.value, "HEADER", "value")
        value = bytes(command.value)

        def publish() -> None:
            version = self._watches.put(command.kind, value)
            self._result(session, {"request": command.request, "kind": command.kind, "version": version})

        if command.kind == "keys":  # kept across restarts, so nobody may see it before the disk has it
            self._journal.keep(command.kind, value)
            self._journal.after_commit(publish)
        else:
            publish()

    def _admin(self, session: Session, command: commands.Admin) -> None:
        grants.check_admin(self.mesh, session.identity)

        def tell(result: dict[str, object]) -> None:
            self._result(session, {"request": command.request, **result})

        def refuse(error: WireError) -> None:
            self._reject(session.route, session, error, command.request)

        def answer() -> None:
            try:
                admin.run(self, command, session.identity, tell, refuse)
            except WireError as error:
                refuse(error)

        if command.verb in admin.AFTER_COMMIT:
            self.after_commit(answer)
        else:
            answer()

    def after_commit(self, done: Callable[[], None], refused: Callable[[], None] | None = None) -> None:
        """Once everything said so far is on disk: now, if it is."""
        if self._committing or not self._journal.is_empty:
            self._journal.after_commit(done, refused)
        else:
            done()

    def look_again(self) -> None:
        """Something old is needed anew: retention shall know before the next commit trims."""
        self._retention.look(self.mesh.bus)

    def contract_of(self, topic: str) -> Session | None:
        """A live session that announces the topic's schema."""
        return next((session for session in self.sessions if topic in session.contract), None)

    def _result(self, session: Session, result: dict[str, object]) -> None:
        self._out.append((session.route, codec.encode_result(result)))

    # ---- groups ------------------------------------------------------------------------------------------------------

    def _feed_groups(self) -> bool:
        """Lets groups read on, a bounded number of reads a turn: one that lags must not hold up the others."""
        more = False
        for group in self.groups.values():
            for _ in range(READS_PER_TURN_MAX):
                if group.scanned >= self.log.last or not group.room:
                    break
                group.feed(self.log.read(group.scanned), self.now)
            more = more or (group.scanned < self.log.last and group.room)
        return more

    def _feed_taps(self) -> bool:
        more = False
        bus = self.mesh.bus
        for session in self.sessions:
            for tap in session.taps.values():
                taken, lost = tap.take(bus.batch_events_max, bus.batch_bytes_max - 2, self.wall_ms())
                if tap.gap is not None:
                    gap, tap.gap = tap.gap, None
                    self._send(session, Gap(tap.name, [commands.GapSaid(gap.first, gap.last, gap.why, gap.at_ms)]))
                if taken:
                    header = TapMsg(tap.name, [(event.seq, 0, 0, 0) for event in taken], lost)
                    batch = codec.join_batch([event.body for event in taken])
                    self._out.append((session.route, codec.encode(header, batch)))
                more = more or tap.more
        return more

    def _next_fence(self) -> int:
        self._fences += 1
        assert self._fences < 1 << FENCE_BITS, "a boot hands out at most 2**32 leases"
        return (self.boot << FENCE_BITS) + self._fences

    def _jitter(self) -> float:
        return self._random.uniform(0.5, 1.0)


def _gaps_of(group: Group) -> Gap:
    return Gap(group.name, [commands.GapSaid(gap.first, gap.last, gap.why, gap.at_ms) for gap in group.gaps])
