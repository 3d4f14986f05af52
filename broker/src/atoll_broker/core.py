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

from . import admin, codec, commands, grants
from .clock import Clock, ServedClock
from .commands import Bye, Err, Fenced, Header, Hello, Limits, Pong, SubOk, Welcome
from .errors import WireError
from .events import Schemas
from .groups import Context, Group, Member
from .journal import Commit, Journal
from .log import Log
from .mesh import Mesh
from .publishing import Publishing
from .sessions import DEAD_HEARTBEATS, SUSPECT_HEARTBEATS, Session, Sessions
from .storage import Storage, Trimmed
from .watches import Watches

FENCE_BITS: Final = 32
READS_PER_TURN_MAX: Final = 8
TRIM_EVENTS_MAX: Final = 4096
RETENTION_SECONDS: Final = 1.0

Note = Callable[..., None]
Outgoing = tuple[bytes, list[bytes]]


def _silent(event: str, **_: object) -> None:
    """The default for `note`: say nothing."""


class Core:
    """Raises StorageFailedError from any method when the log can not be read: the broker must stop then.

    `note(event, **fields)` is told what belongs in the log of the process.
    """

    def __init__(self, mesh: Mesh, storage: Storage, clock: Clock, random: Random, note: Note = _silent) -> None:
        starts: dict[str, tuple[list[str], Literal["earliest", "latest"]]]
        starts = {name: (group.topics, group.first) for name, group in mesh.groups.items()}
        recovered = storage.open(starts)
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
        self._retain_from = self.log.oldest
        self._retention_at = 0.0
        self.publishing = Publishing(mesh.bus, self.log, self._journal, recovered.producers, clock.wall_ms)
        self._watches = Watches(self.boot, recovered.kept.get("keys"), DEAD_HEARTBEATS * mesh.bus.heartbeat_seconds)
        context = Context(mesh.bus, self._journal, self._next_fence, self._jitter, self.log.event, clock.wall_ms)
        self.groups = {
            name: Group(name, config, recovered.groups[name], context) for name, config in mesh.groups.items()
        }
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
        try:
            command, payload = codec.decode(frames)
            if isinstance(command, Hello):
                self._hello(route, identity, session, command)
            elif session is None:
                raise WireError("NO_SESSION", "say HELLO first; after an end, on a new socket")
            else:
                self._seen(session)
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
        self._watches.tick(now)
        if now - self._retention_at >= RETENTION_SECONDS:
            self._retention_at = now
            self._retain_from = self._oldest_needed()

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
        self._push_states()
        return more

    def take_out(self) -> list[Outgoing]:
        """(route, frames) to send, in order."""
        out, self._out = self._out, []
        return out

    # ---- the disk ----------------------------------------------------------------------------------------------------

    def take_commit(self, *, force: bool = False) -> Commit | None:
        """The next group commit, if one is due and none is on its way."""
        if self._committing:
            return None
        # Asked before whether a commit is due: in an idle broker with a full log nothing else would make it so, and
        # publishers would get BUSY for ever.
        if self.log.bytes > self.mesh.bus.log_bytes_trimmed and self._retain_from > self.log.oldest:
            self._journal.trim(min(self._retain_from, self.log.oldest + TRIM_EVENTS_MAX))
        if not (self._journal.is_due(self.now) or (force and not self._journal.is_empty)):
            return None
        self._committing = True
        return self._journal.take()

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
        if trimmed is not None:
            self.log.trimmed(trimmed)
        self.publishing.committed(commit.batch)
        for action in commit.then:
            action()

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
                self._answer_stale(session, group, group.ack(session.id, command.done + command.duplicate, self.now))
            case commands.Credit():
                self._membership(session, command.group)[1].add_credit(command.events, command.bytes)
            case commands.Ping():
                self._ping(session, command)
            case commands.Sub():
                self._sub(session, command)
            case commands.Watch():
                self._watch(session, command)
            case commands.Put():
                self._put(session, command)
            case commands.Admin():
                self._admin(session, command)
            case commands.Bye():
                self._end(session, command.reason or "BYE", died=False, tell=Bye("as you asked"))
            case _:
                self._obey_consumer(session, command)

    def _obey_consumer(self, session: Session, command: commands.ClientCommand) -> None:
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
        answer = self.publishing.take(session, command, payload)
        if answer is not None:
            self._send(session, answer)

    def _sub(self, session: Session, command: commands.Sub) -> None:
        """Also again, with other topics or another bound: credit and leases stay."""
        config = grants.check_group(self.mesh, session.identity, command.group, command.topics)
        member = session.members.get(command.group)
        if member is None:
            member = Member(session.id, session.hello.version)
            session.members[command.group] = self.groups[command.group].members[session.id] = member
        member.topics = frozenset(command.topics)
        member.max_in_flight = min(command.max_in_flight, config.in_flight_max)
        self._send(session, SubOk(command.group, int(config.lease_seconds * 1000)))

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

        def answer() -> None:
            try:
                self._result(session, {"request": command.request, **admin.run(self, command)})
            except WireError as error:
                self._reject(session.route, session, error, command.request)

        if command.verb in admin.AFTER_COMMIT and (self._committing or not self._journal.is_empty):
            self._journal.after_commit(answer)
        else:
            answer()

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
                group.feed(self.log.read(group.scanned))
            more = more or (group.scanned < self.log.last and group.room)
        return more

    def _oldest_needed(self) -> int:
        """Retention never passes a group's floor, nor a dead letter that may be replayed."""
        needed = [self.log.last + 1]
        for group in self.groups.values():
            needed.append(group.floor + 1)
            if (dead := group.oldest_dead) is not None:
                needed.append(dead)
        return min(needed)

    def _next_fence(self) -> int:
        self._fences += 1
        assert self._fences < 1 << FENCE_BITS, "a boot hands out at most 2**32 leases"
        return (self.boot << FENCE_BITS) + self._fences

    def _jitter(self) -> float:
        return self._random.uniform(0.5, 1.0)
