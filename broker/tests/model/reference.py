"""The broker by the words of spec/wire-1.md: what each command must be answered with, and what may come unasked.

receive(command) ─▶ state changes at once; answers are owed            tick(now) ─▶ silence, leases
take_commit ─▶ what the disk shall hold ─▶ flushed ─▶ committed ─▶ events exist, marks move, PUBACKs are due
sent(command) ─▶ is it owed, due or allowed?                           settled() ─▶ nothing that is due is missing
crash ─▶ back to what was flushed last
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .groups import FINISHED, Group, Item, Replay, Saved
from .outboxes import Event, Log, Mark, Outbox, size_of
from .sessions import Member, Session
from .taps import Allowance, Fault, Tap, matches
from .violations import Refused, must
from .words import (
    ADMINS,
    BATCH_BYTES_MAX,
    BATCH_EVENTS_MAX,
    DISK_FULL_SECONDS,
    GROUPS,
    HEARTBEAT,
    IN_FLIGHT_MAX,
    LEASE,
    LOG_BYTES_KEPT,
    LOG_BYTES_MAX,
    LOG_EVENTS_KEPT,
    LOG_SECONDS_KEPT,
    PENDING_BYTES_MAX,
    PENDING_EVENTS_MAX,
    PRODUCERS,
    PUBLISH_EVENTS_MAX,
    PUBLISH_RATES,
    PUTS,
    SESSIONS_PER_IDENTITY_MAX,
    TAPS,
    TAPS_MAX,
    WATCHES,
)

WINDOW: Final = {"events": PUBLISH_EVENTS_MAX, "bytes": PENDING_BYTES_MAX}
CREDIT_EVENTS_MAX: Final = 65_536
CREDIT_BYTES_MAX: Final = 2**28
CLOSING: Final = frozenset(
    {"FRAMES", "VERSION", "HEADER", "PAYLOAD", "NO_SESSION", "SESSION", "PRODUCER", "CONTRACT", "LIMIT"}
)
TRIM_LATE_SECONDS: Final = 1.25  # retention looks once a second, on turns of at most 0.25 s

Header = dict[str, Any]


@dataclass(slots=True)
class Disk:
    """What a flushed commit leaves behind."""

    last: int = 0
    marks: dict[str, Mark] = field(default_factory=dict)
    groups: dict[str, Saved] = field(default_factory=lambda: {name: Saved(0, {}) for name in GROUPS})
    keys: Any = None
    passable: frozenset[str] = frozenset()  # groups that were detached then


@dataclass(slots=True)
class Commit:
    """A commit on its way: what the disk will hold, what to do then, how far the log has to be cut with it, and may."""

    disk: Disk
    then: list[Callable[[], None]]
    cut_at_least: int
    cut_at_most: int
    questions: list[Question]


@dataclass(slots=True)
class Question:
    """An ADMIN whose answer must see what was said before it, so that it may have to wait for a commit."""

    route: bytes
    answer: Callable[[Header], None]
    commits_max: int = 1
    commits: int = 0
    asked: int | None = None  # for one that searches the log: what was on disk when it did


class Reference:
    def __init__(self) -> None:
        self.boot = 0
        self.wall_ms = 0
        self.log = Log()
        self.disk = Disk()
        self.session_ids: set[str] = set()
        self.topics: dict[int, str] = {}  # of all events ever stored
        self._begin()

    def _begin(self) -> None:
        """What every boot begins with."""
        self.boot += 1
        self.now = 0.0
        self.sessions: dict[bytes, Session] = {}
        self.owed: dict[bytes, deque[tuple[str, Header]]] = {}
        self.due: set[str] = set()  # producers whose PUBACK must come
        self.fence = self.boot << 32
        self.commit: Commit | None = None
        self.then: list[Callable[[], None]] = []
        self.questions: dict[str, Question] = {}
        self.outboxes = {name: Outbox(name, mark, mark, mark.mark + 1) for name, mark in self.disk.marks.items()}
        self.groups = {
            name: Group.restored(name, saved, self.log.events.values(), self.log.oldest)
            for name, saved in self.disk.groups.items()
        }
        self.replays: dict[str, Replay] = {}
        self.allowances: dict[str, Allowance] = {}
        self.faults: dict[str, Fault] = {}
        self.attaching: Counter[str] = Counter()  # how many a SUB on its way to the disk will attach
        self.detachments: Counter[str] = Counter()
        self.stored: Counter[str] = Counter()
        self.keys = self.keys_coming = self.disk.keys
        self.revocations: Any = None
        self.told: dict[str, tuple[int, Any]] = {}  # kind: the newest version and state sent
        self.needed: deque[tuple[float, int, int]] = deque()  # when, what groups need, what is young
        self.full_until: float | None = None
        self.coming_fault: Fault | None = None

    # ---- in ----------------------------------------------------------------------------------------------------------

    def receive(self, route: bytes, identity: str, command: str, header: Header, batch: Sequence[Event] = ()) -> None:
        """`command` may be RUBBISH too, whose header then says with which code it is refused."""
        session = self.sessions.get(route)
        if session is not None and session.identity != identity:
            self.end(session, died=True)
            session = None
        if session is not None:
            self._seen(session)
        try:
            if command == "RUBBISH":
                raise refused(header["code"])
            if command == "HELLO":
                self._hello(route, identity, session, header)
            elif session is None:
                raise refused("NO_SESSION")
            else:
                self._obey(session, command, header, batch)
        except Refused as verdict:
            self.owe(route, "ERR", code=verdict.code, closes=verdict.closes, request=header.get("request"))
            if verdict.closes and session is not None:
                self.end(session, died=True)

    def _obey(self, session: Session, command: str, header: Header, batch: Sequence[Event]) -> None:
        if command == "PUB":
            self._pub(session, header, batch)
        else:
            getattr(self, f"_{command.lower()}")(session, header)

    def unreachable(self, route: bytes) -> None:
        if (session := self.sessions.get(route)) is not None:
            self.end(session, died=True)

    def revoke(self, identity: str) -> None:
        for session in self.of_identity(identity):
            self.end(session, died=True, tell="FENCED")

    def farewell(self) -> None:
        for session in list(self.sessions.values()):
            self.end(session, died=False, tell="BYE")

    def owe(self, route: bytes, command: str, **fields: Any) -> None:
        self.owed.setdefault(route, deque()).append((command, fields))

    # ---- sessions ----------------------------------------------------------------------------------------------------

    def of_identity(self, identity: str) -> list[Session]:
        return [session for session in self.sessions.values() if session.identity == identity]

    def _hello(self, route: bytes, identity: str, session: Session | None, header: Header) -> None:
        if session is not None:
            raise refused("SESSION")
        check_hello(identity, header)
        self._make_way(identity, header)
        if len(self.of_identity(identity)) >= SESSIONS_PER_IDENTITY_MAX:
            raise refused("LIMIT")
        producer, announced = header.get("producer"), tuple(header["contracts"]["publishes"])
        self.sessions[route] = Session(
            "",
            route,
            identity,
            header["slot"],
            header["process"],
            producer,
            header.get("endpoints"),
            announced,
            self.now,
        )
        for group in self.groups.values():
            group.slot_is_back(header["slot"])
        self.owe(route, "WELCOME", boot=self.boot, oldest=self.log.oldest, credit=WINDOW, producer=self._open(producer))

    def _open(self, producer: str | None) -> Header | None:
        """The producer as WELCOME tells it. The client goes on from the mark."""
        if producer is None:
            return None
        outbox = self.outboxes.setdefault(producer, Outbox(producer))
        outbox.report_from = outbox.kept.mark + 1
        kept = outbox.kept
        return {
            "mark": kept.mark,
            "last_id": kept.last_id,
            "refused": [(r.pseq, r.code, r.field) for r in kept.refused],
        }

    def _make_way(self, identity: str, header: Header) -> None:
        """First what the same process had, then whoever else holds the slot or the outbox."""
        for old in self.of_identity(identity):
            if old.id == header.get("resume") and old.process == header["process"]:
                self.end(old, died=False)
        slot, producer = header["slot"], header.get("producer")
        holders = [s for s in self.sessions.values() if s.slot == slot]
        holders += [s for s in self.sessions.values() if producer is not None and s.producer == producer]
        for rival in dict.fromkeys(holders):
            self.end(rival, died=rival.process != header["process"], tell="FENCED")

    def _seen(self, session: Session) -> None:
        session.last_seen, session.suspect = self.now, False

    def end(self, session: Session, *, died: bool, tell: str | None = None) -> None:
        if tell is not None:
            self.owe(session.route, tell)
        del self.sessions[session.route]
        for name in session.members:
            self.groups[name].leave(session.route, self.now, died=died)

    def _bye(self, session: Session, header: Header) -> None:
        self.end(session, died=False, tell="BYE")

    def _ping(self, session: Session, header: Header) -> None:
        session.ready, session.why = header.get("ready", True), header.get("why", "")
        self.owe(session.route, "PONG")

    # ---- time --------------------------------------------------------------------------------------------------------

    def tick(self, seconds: float) -> None:
        """Served time went by."""
        self.now += seconds
        for session in list(self.sessions.values()):
            self._watch_silence(session)
        for group in self.groups.values():
            group.tick(self.now)
        for name in [name for name, fault in self.faults.items() if fault.until <= self.now]:
            self._end_fault(name)
        self.needed.append((self.now, self.oldest_needed, self.oldest_young))

    def _watch_silence(self, session: Session) -> None:
        state = session.silence(self.now)
        if state == "dead":
            self.end(session, died=True, tell="FENCED")
        elif state == "suspect":
            session.suspect = True
            if self.now - session.last_probe >= HEARTBEAT:
                session.last_probe = self.now
                self.owe(session.route, "PONG")

    # ---- publishing --------------------------------------------------------------------------------------------------

    @property
    def pending_events(self) -> int:
        return sum(outbox.pending for outbox in self.outboxes.values())

    def _pub(self, session: Session, header: Header, batch: Sequence[Event]) -> None:
        if session.producer is None or header["producer"] != session.producer:
            raise refused("PRODUCER")
        brackets_and_commas = len(batch) + 1
        size = sum(len(event.body) for event in batch) + brackets_and_commas
        if not 1 <= len(batch) <= BATCH_EVENTS_MAX or size > BATCH_BYTES_MAX:
            raise refused("PAYLOAD")
        outbox, first = self.outboxes[session.producer], header["first"]
        if first > outbox.next:
            self.owe(session.route, "PUBNACK", producer=outbox.name, code="EXPECTED", expected=outbox.next)
            return
        fresh = batch[outbox.next - first :]
        if fresh and self.is_busy(outbox, fresh):
            self.owe(session.route, "PUBNACK", producer=outbox.name, code="BUSY")
            return
        if fresh and (allowance := self.allowance_of(outbox)) is not None:
            allowance.take(len(fresh))
        if len(fresh) < len(batch):
            self._repeated(outbox, first, first + len(batch) - 1)
        for event in fresh:
            self._take(session, outbox, event)

    def is_busy(self, outbox: Outbox, fresh: Sequence[Event]) -> bool:
        size = sum(len(event.body) for event in fresh)
        pending = size_of(self.log.coming(self.log.next - 1))
        return (
            self.is_full
            or self.log.bytes + pending + size > LOG_BYTES_MAX
            or outbox.pending + len(fresh) > PUBLISH_EVENTS_MAX
            or outbox.bytes_pending + size > PENDING_BYTES_MAX
            or self.pending_events + len(fresh) > PENDING_EVENTS_MAX
            or pending + size > PENDING_BYTES_MAX
            or not ((allowance := self.allowance_of(outbox)) is None or allowance.room(self.now))
        )

    def allowance_of(self, outbox: Outbox) -> Allowance | None:
        rate = PUBLISH_RATES.get(outbox.name.split("/")[0])
        return None if rate is None else self.allowances.setdefault(outbox.name, Allowance(rate))

    @property
    def is_full(self) -> bool:
        """Was the disk full a moment ago?"""
        return self.full_until is not None and self.now < self.full_until

    def _repeated(self, outbox: Outbox, first: int, last: int) -> None:
        """Duplicates are acked again, verdicts and all, once all of them are on disk."""
        outbox.report_from = min(outbox.report_from, first)
        if last <= outbox.kept.mark:
            self.due.add(outbox.name)

    def _take(self, session: Session, outbox: Outbox, event: Event) -> None:
        refusal = event.refusal(session.announced)
        pseq = outbox.take(event, refusal)
        if refusal is None:
            outbox.bytes_pending += len(event.body)
            self.log.take(event, outbox.name, pseq, self.wall_ms)

    # ---- groups ------------------------------------------------------------------------------------------------------

    def _sub(self, session: Session, header: Header) -> None:
        name, topics = header["group"], tuple(header["topics"])
        if name not in GROUPS:
            raise refused("GROUP")
        group = self.groups[name]
        if group.part != session.identity or not set(topics) <= set(group.topics):
            raise refused("ACL")
        member = session.members.setdefault(name, Member(session))
        group.members[session.route] = member
        member.topics, member.max_in_flight = topics, min(header["max_in_flight"], IN_FLIGHT_MAX)
        self.owe(session.route, "SUBOK", group=name, lease_ms=int(LEASE * 1000))
        if group.detached:  # a commit that passes its floor may be under way: it is attached after the next
            self.attaching[name] += 1
            detachments = self.detachments[name]
            self.then.append(lambda: self._attach(group, detachments))
        elif group.gaps:
            self.owe(session.route, "GAP", group=name)

    def _attach(self, group: Group, detachments: int) -> None:
        if self.detachments[group.name] != detachments:
            return  # it was let go again since
        self.attaching[group.name] -= 1
        if not group.detached:
            return
        group.detached = False
        self.needed.clear()
        for session in self.sessions.values():
            if group.name in session.members and group.gaps:
                self.owe(session.route, "GAP", group=group.name)

    def _tap(self, session: Session, header: Header) -> None:
        """A new one, or one anew; without topics its end."""
        granted = TAPS.get(session.identity, ())
        if not all(any(matches(grant, topic) for grant in granted) for topic in header["topics"]):
            raise refused("ACL")
        name, after = header["tap"], header.get("after")
        session.taps.pop(name, None)
        if len(session.taps) >= TAPS_MAX:
            raise refused("LIMIT", closes=False)
        if header["topics"]:
            last = self.log.last if after is None else min(after, self.log.last)
            session.taps[name] = Tap(tuple(header["topics"]), last, after is not None)
        self.owe(session.route, "SUBOK", group=name, lease_ms=0)

    def _member(self, session: Session, header: Header) -> tuple[Group, Member]:
        member = session.members.get(header["group"])
        if member is None:
            raise refused("GROUP")
        return self.groups[header["group"]], member

    def _credit(self, session: Session, header: Header) -> None:
        member = session.taps.get(header["group"]) or self._member(session, header)[1]
        member.events = min(member.events + header["events"], CREDIT_EVENTS_MAX)
        member.bytes = min(member.bytes + header["bytes"], CREDIT_BYTES_MAX)

    def _drain(self, session: Session, header: Header) -> None:
        self._member(session, header)[1].draining = True

    def _ack(self, session: Session, header: Header) -> None:
        done = [(*pair, False) for pair in header.get("done", ())]
        duplicate = [(*pair, True) for pair in header.get("duplicate", ())]
        group, _ = self._member(session, header)
        stale = []
        for seq, fence, again in done + duplicate:
            item = group.judge(session.route, (seq, fence))
            if item is None:
                stale.append([seq, fence])
            else:
                group.finish(item, duplicate=again)
        self._answer_stale(session, group, stale)

    def _nack(self, session: Session, header: Header) -> None:
        delay = header.get("delay_ms")
        seconds = None if delay is None else delay / 1000
        error = header.get("error", "")
        self._judge(session, header, header["messages"], lambda g, i: g.fail(i, "FAILED", error, self.now, seconds))

    def _term(self, session: Session, header: Header) -> None:
        error = ": ".join(part for part in (header.get("reason"), header.get("error")) if part)
        self._judge(session, header, header["messages"], lambda g, i: g.bury(i, "REJECTED", error))

    def _judge(self, session: Session, header: Header, pairs: list[Any], verdict: Callable[[Group, Any], None]) -> None:
        group, _ = self._member(session, header)
        stale = []
        for seq, fence in pairs:
            item = group.judge(session.route, (seq, fence))
            if item is None:
                stale.append([seq, fence])
            else:
                verdict(group, item)
        self._answer_stale(session, group, stale)

    def _wip(self, session: Session, header: Header) -> None:
        group, _ = self._member(session, header)
        stale = [p for p in header["messages"] if not group.extend(session.route, (p[0], p[1]), self.now)]
        self._answer_stale(session, group, stale)

    def _answer_stale(self, session: Session, group: Group, stale: list[Any]) -> None:
        if stale:
            self.owe(session.route, "STALE", group=group.name, messages=stale)

    # ---- states ------------------------------------------------------------------------------------------------------

    def _watch(self, session: Session, header: Header) -> None:
        if header["kind"] not in WATCHES.get(session.identity, ()):
            raise refused("ACL")
        session.watches[header["kind"]] = None  # whatever it saw before, it is sent the state now

    def _put(self, session: Session, header: Header) -> None:
        kind, value = header["kind"], header["value"]
        if kind not in PUTS.get(session.identity, ()):
            raise refused("ACL")

        def publish() -> None:
            if kind == "keys":
                self.keys = value
            else:
                self.revocations = value
            self.owe(session.route, "RESULT", request=header["request"], kind=kind)

        if kind == "keys":
            self.keys_coming = value
            self.then.append(publish)
        else:
            publish()

    def state(self, kind: str) -> tuple[bool, Any]:
        """(settled, value) as STATE must tell it now."""
        if kind == "registry":
            services: dict[str, dict[str, Any]] = {}
            for session in self.sessions.values():
                if session.endpoints is not None:
                    services.setdefault(session.identity, {})[session.slot] = session.entry
            return self.now >= 5 * HEARTBEAT, {"services": services}
        value = self.keys if kind == "keys" else self.revocations
        return value is not None, value

    # ---- operators ---------------------------------------------------------------------------------------------------

    def _admin(self, session: Session, header: Header) -> None:
        verb, group = header["verb"], header.get("group")
        if session.identity not in ADMINS:
            raise refused("ACL")
        if verb in ("dlq.list", "dlq.replay"):
            self.questions[header["request"]] = Question(session.route, self._dlq_answer(header))
        elif verb == "replay":
            self._ask_replay(session, header)
        elif verb == "group.detach":
            self._detach(session, header)
        elif verb.startswith("fault."):
            self._steer_faults(session, header)
        elif verb == "replays":
            self.owe(session.route, "RESULT", request=header["request"], replays=self._see_replays())
        elif verb in ("groups", "topics", "sessions", "alarms"):
            self.owe(session.route, "RESULT", request=header["request"], **getattr(self, f"_see_{verb}")())
        else:
            raise refused("VERB")
        assert group is None or group in GROUPS

    def _dlq_answer(self, header: Header) -> Callable[[Header], None]:
        def listed(result: Header) -> None:
            letters = self._letters_on_disk(header["group"])
            shown = letters[: header["limit"]]
            must(result["more"] == (len(letters) > header["limit"]), "dlq.list says whether there are more", result)
            told = (
                [{name: letter[name] for name in shown[0]} for letter in result["letters"]]
                if shown
                else result["letters"]
            )
            for one, other in zip(told, shown, strict=True):
                other["error"] = one["error"] if other["error"] is None else other["error"]
            must(told == shown, "dlq.list tells the dead letters", told, shown)

        def replayed(result: Header) -> None:
            group = self.groups[header["group"]]
            letters, held_back = group.choose(*choice_of(header))
            told, wanted = (result["replayed"], result["held_back"]), (len(letters), held_back)
            must(told == wanted, "dlq.replay tells how many it releases and holds back", told, wanted)
            if (replay := self._begin_replay(group, header, result, len(letters))) is not None:
                group.release(letters, [], replay, self.now)

        return listed if header["verb"] == "dlq.list" else replayed

    def _begin_replay(self, group: Group, header: Header, result: Header, total: int) -> Replay | None:
        """None for a dry run, which changes nothing and has no id."""
        if header.get("dry_run"):
            must(result["replay"] is None, "a dry run is no replay", result)
            return None
        must(result["replay"] not in self.replays, "a replay's id is new", result)
        replay = self.replays[result["replay"]] = Replay(group.name, total)
        return replay

    def _ask_replay(self, session: Session, header: Header) -> None:
        """Of a range, the group's dead letters and finished events; it looks at the disk, and waits for it."""
        group = self.groups[header["group"]]
        subject, first, last = choice_of(header)

        def answer(result: Header) -> None:
            asked = question.asked
            must(asked is not None, "a replay looks at the log before it answers")
            assert asked is not None
            places = [
                i for s, i in group.items.items() if first <= s <= min(last, asked) and subject in (None, i.subject)
            ]
            letters, held_back = group.choose(subject, first, last)
            finished = [i for i in places if i.state == FINISHED and i.seq <= group.scanned]
            dead = sum(first <= seq <= last and subject in (None, group.items[seq].subject) for seq in group.letters)
            wanted = (len(letters) + len(finished), held_back, len(places) - len(finished) - dead)
            told = (result["replayed"], result["held_back"], result["pending"])
            must(told == wanted, "replay tells what comes again, is held back, is pending", told, wanted)
            self._come_again(group, header, result, letters, finished)

        question = self.questions[header["request"]] = Question(session.route, answer, commits_max=3)

    def _come_again(
        self, group: Group, header: Header, result: Header, letters: list[Item], finished: list[Item]
    ) -> None:
        replay = self._begin_replay(group, header, result, len(letters) + len(finished))
        if replay is not None:
            group.release(letters, finished, replay, self.now)
            self.needed.clear()  # something old is needed anew

    def _steer_faults(self, session: Session, header: Header) -> None:
        verb = header["verb"]
        fields: Header = {}
        if verb == "fault.put":
            asked = header["fault"]
            delay, until = asked["delay_ms"] / 1000, self.now + asked["seconds"]
            self.coming_fault = Fault(asked["group"], asked["kind"], asked.get("topic"), delay, until)
            self.groups[asked["group"]].faults.append(self.coming_fault)
        elif verb == "fault.stop":
            fields["stopped"] = len(self.faults)
            for name in list(self.faults):
                self._end_fault(name)
        else:
            fields["faults"] = [{"id": name, "kind": f.kind, "hits": f.hits} for name, f in self.faults.items()]
        self.owe(session.route, "RESULT", request=header["request"], **fields)

    def _end_fault(self, name: str) -> None:
        fault = self.faults.pop(name)
        self.groups[fault.group].faults.remove(fault)

    def strike(self, name: str, seq: int, kind: str, slot: str) -> None:
        """A fault hits a delivery."""
        group = self.groups[name]
        fault = group.fault_on(group.items[seq])
        group.strike(seq, kind, slot, self.now)
        assert fault is not None
        fault.hits += 1

    def _see_replays(self) -> list[Header]:
        return [
            {
                "id": name,
                "group": one.group,
                "total": one.total,
                "done": one.done,
                "duplicate": one.duplicate,
                "failed": one.failed,
                "waiting": one.total - one.done - one.duplicate - one.failed,
            }
            for name, one in self.replays.items()
        ]

    def _detach(self, session: Session, header: Header) -> None:
        group = self.groups[header["group"]]
        if group.members:
            raise refused("VERB")
        stood = (group.floor, group.lag)
        self.detachments[group.name] += 1
        self.attaching[group.name] = 0
        self.needed.clear()
        if not group.detached:
            group.detach()

        def answer(result: Header) -> None:
            told = (result["floor"], result["waiting"])
            must(told == stood, "group.detach tells where it stood", told, stood)

        self.questions[header["request"]] = Question(session.route, answer)

    def _letters_on_disk(self, name: str) -> list[Header]:
        kept = self.disk.groups[name].kept
        letters = [
            (seq, one.letter) for seq, one in sorted(kept.items()) if one.letter is not None and not one.replaying
        ]
        return [
            {
                "seq": seq,
                "subject": self.log.events[seq].event.subject,
                "event_id": self.log.events[seq].event.id,
                "cause": letter.cause,
                "behind": letter.behind,
                "attempts": letter.attempts,
                "error": letter.error,
            }
            for seq, letter in letters
        ]

    def _see_groups(self) -> Header:
        return {"groups": {name: see_group(group) for name, group in self.groups.items()}}

    def _see_topics(self) -> Header:
        on_disk = [stored for seq, stored in self.log.events.items() if seq <= self.log.last]
        kept = Counter(stored.event.topic for stored in on_disk)
        names = {topic for group in self.groups.values() for topic in group.topics}
        return {"topics": {name: {"events": kept[name], "stored": self.stored[name]} for name in names}}

    def _see_sessions(self) -> Header:
        return {
            "sessions": [
                {"slot": s.slot, "state": "suspect" if s.suspect else "alive", "ready": s.ready and not s.suspect}
                for s in self.sessions.values()
            ]
        }

    def _see_alarms(self) -> Header:
        """Checked by name in `sent`: the texts are for people."""
        return {}

    # ---- the disk ----------------------------------------------------------------------------------------------------

    def take_commit(self) -> None:
        """A batch is made of everything up to now."""
        marks = {name: outbox.taken for name, outbox in self.outboxes.items() if outbox.taken.mark}
        groups = {name: group.save(attaching=self.attaching[name] > 0) for name, group in self.groups.items()}
        passable = frozenset(name for name, group in self.groups.items() if group.detached)
        disk = Disk(self.log.next - 1, marks, groups, self.keys_coming, passable)
        at_least, at_most = self._cut_at_least(), self._cut_wanted(self.oldest_young)
        self.commit = Commit(disk, self.then, at_least, at_most, list(self.questions.values()))
        self.then = []

    @property
    def oldest_young(self) -> int:
        return self.log.first_younger(self.wall_ms - LOG_SECONDS_KEPT * 1000)

    def _cut_wanted(self, young: int) -> int:
        """What is too old, too much or too many goes, once nobody needs it: the log begins here then."""
        too_big = self.log.bytes > min(LOG_BYTES_KEPT, LOG_BYTES_MAX // 2)
        return self.log.last + 1 if too_big else max(young, self.log.last + 1 - LOG_EVENTS_KEPT)

    def _cut_at_least(self) -> int:
        """Retention looks once a second; what it could see then must go with the next commit."""
        while len(self.needed) > 1 and self.needed[1][0] <= self.now - TRIM_LATE_SECONDS:
            self.needed.popleft()
        if not self.needed or self.needed[0][0] > self.now - TRIM_LATE_SECONDS:
            return 0
        _, needed, young = self.needed[0]
        return min(needed, self._cut_wanted(young))

    def flushed(self) -> None:
        assert self.commit is not None
        self.disk = self.commit.disk

    def committed(self, oldest: int) -> None:
        """The broker knows that it is flushed. `oldest`: how far the log was cut with it."""
        assert self.commit is not None
        commit, self.commit = self.commit, None
        self.full_until = None
        new = self.log.commit(commit.disk.last)
        self.stored.update(stored.event.topic for stored in new)
        self.topics.update((stored.seq, stored.event.topic) for stored in new)
        for group in self.groups.values():
            group.stored(new)
        for stored in new:
            self.outboxes[stored.producer].bytes_pending -= len(stored.event.body)
        for name, mark in commit.disk.marks.items():
            if self.outboxes[name].kept != mark:
                self.outboxes[name].kept = mark
                self.due.add(name)
        self._cut(oldest, commit)
        for question in commit.questions:
            question.commits += 1
        for action in commit.then:
            action()

    def disk_full(self) -> None:
        """The disk had no room for the commit, and has nothing of it: what was published never was, the rest waits."""
        assert self.commit is not None
        self.then = self.commit.then + self.then
        self.commit = None
        self.full_until = self.now + DISK_FULL_SECONDS
        self.log.forget_after(self.log.last)
        for outbox in self.outboxes.values():
            if outbox.pending:
                outbox.taken, outbox.bytes_pending = outbox.kept, 0
                for session in self.sessions.values():
                    if session.producer == outbox.name:
                        self.owe(session.route, "PUBNACK", producer=outbox.name, code="BUSY")
        for request, question in list(self.questions.items()):
            if question.asked is not None:  # a replay that would have to be written
                del self.questions[request]
                self.owe(question.route, "ERR", code="BUSY", closes=False, request=request)

    def _cut(self, oldest: int, commit: Commit) -> None:
        must(oldest >= commit.cut_at_least, "what is past its time or its room is cut", oldest, commit.cut_at_least)
        must(oldest <= max(commit.cut_at_most, self.log.oldest), "nothing else is cut", oldest, commit.cut_at_most)
        must(
            oldest <= self.oldest_needed,
            "retention passes nobody's floor, nor a dead letter",
            oldest,
            self.oldest_needed,
        )
        self._trim(oldest)

    def _trim(self, oldest: int) -> None:
        if oldest > self.log.oldest:
            self.log.trim(oldest)
            for group in self.groups.values():
                group.trim(oldest)
            self.disk.groups = {name: saved.cut(oldest) for name, saved in self.disk.groups.items()}

    @property
    def oldest_needed(self) -> int:
        needed = [group.oldest_needed for group in self.groups.values()]
        return min([self.log.last + 1, *(seq for seq in needed if seq is not None)])

    def crash(self, oldest: int) -> None:
        """Every socket is gone, and all that was not flushed. `oldest`: what the log begins with at the next boot."""
        self.log.forget_after(self.disk.last)
        for name, saved in self.disk.groups.items():
            needed = min([saved.floor + 1, *(seq for seq, kept in saved.kept.items() if kept.letter is not None)])
            held = name not in self.disk.passable
            must(oldest <= needed or not held, "what a group has to read again is still there", name, oldest, needed)
        self.topics.update((seq, stored.event.topic) for seq, stored in self.log.events.items())
        if oldest > self.log.oldest:
            self.log.trim(oldest)
        self.disk.groups = {name: saved.cut(oldest) for name, saved in self.disk.groups.items()}
        self._begin()
        self.disk.groups = {name: group.save() for name, group in self.groups.items()}

    # ---- out ---------------------------------------------------------------------------------------------------------

    def asked(self) -> None:
        """The question that searches the log, if there is one, does so now: it sees what is on disk."""
        for question in self.questions.values():
            if question.commits_max > 1:
                question.asked = self.disk.last

    def answered(self, request: str, result: Header) -> None:
        """A question that had to wait for the disk is answered: now it takes effect."""
        if (fault := self.coming_fault) is not None and "id" in result:
            self.faults[result["id"]], self.coming_fault = fault, None
        question = self.questions.pop(request, None)
        if question is not None:
            question.answer(result)
            self.owe(question.route, "RESULT", request=request)

    def sent(self, route: bytes, command: str, header: Header, bodies: Sequence[bytes]) -> None:
        """The broker sends that. Raises Violation if it must not."""
        if command == "MSG" and header["group"].startswith("~"):
            self._tap_msg(self.sessions[route].taps[header["group"]], header, bodies)
        elif command == "GAP" and header["group"].startswith("~"):
            self._tap_gap(self.sessions[route].taps[header["group"]], header)
        elif command == "MSG":
            self._msg(self.sessions[route], header, bodies)
        elif command == "PUBACK":
            self._puback(route, header)
        elif command == "STATE":
            self._state(self.sessions[route], header)
        else:
            self._answer(route, command, header)

    def _answer(self, route: bytes, command: str, header: Header) -> None:
        owed = self.owed.get(route)
        must(owed, "nothing is sent that is not owed", command, header)
        assert owed is not None
        wanted, fields = owed.popleft()
        if not owed:
            del self.owed[route]
        must(command == wanted, "the answer is the one that the spec names", command, header, wanted, fields)
        if command == "WELCOME":
            self._welcomed(route, header)
        elif command == "GAP":
            gaps = {seq for gap in header["gaps"] for seq in range(gap["first"], gap["last"] + 1)}
            group = self.groups[header["group"]]
            must(gaps == group.gaps, "GAP tells all that the group will never get", gaps, group.gaps)
        for name, value in fields.items():
            must(fits(header.get(name), value), f"{command}.{name} is right", header.get(name), value)

    def _welcomed(self, route: bytes, header: Header) -> None:
        must(header["session"] not in self.session_ids, "a session's id is new", header["session"])
        self.session_ids.add(header["session"])
        self.sessions[route].id = header["session"]
        if header["producer"] is not None:
            header["producer"]["refused"] = [(r["pseq"], r["code"], r["field"]) for r in header["producer"]["refused"]]

    def _puback(self, route: bytes, header: Header) -> None:
        name = header["producer"]
        must(name in self.due, "a PUBACK comes when the mark moved, or was asked for", header)
        must(self.sessions[route].producer == name, "a PUBACK goes to who holds the producer", header)
        self.due.discard(name)
        outbox = self.outboxes[name]
        must(header["upto"] == outbox.kept.mark, "PUBACK tells what is on disk, all of it and no more", header)
        must(header["upto"] <= self.disk.marks.get(name, Mark()).mark, "an ack means flushed", header)
        told = [(r["pseq"], r["code"], r["field"]) for r in header["refused"]]
        wanted = [(r.pseq, r.code, r.field) for r in outbox.verdicts()]
        must(told == wanted, "PUBACK tells each refusal since the last one", told, wanted)
        must(header["credit"] == WINDOW, "PUBACK tells the window", header)

    def _msg(self, session: Session, header: Header, bodies: Sequence[bytes]) -> None:
        group = self.groups[header["group"]]
        must(1 <= len(bodies) <= BATCH_EVENTS_MAX, "a batch has its bounds", len(bodies))
        must(sum(map(len, bodies)) + len(bodies) + 1 <= BATCH_BYTES_MAX, "a batch has its bounds in bytes")
        for (seq, attempt, lease_ms, fence), body in zip(header["messages"], bodies, strict=True):
            if fence == self.fence:
                group.doubled(group.members[session.route], seq, fence, body)
                continue
            must(fence > self.fence, "a fence is never used twice, and is above those of earlier boots", fence)
            must(fence >> 32 == self.boot, "a fence begins with the boot", fence, self.boot)
            must(lease_ms == int(LEASE * 1000), "the lease is told", lease_ms)
            self.fence = fence
            group.lease(group.members[session.route], seq, attempt, fence, body, self.now)

    def _tap_msg(self, tap: Tap, header: Header, bodies: Sequence[bytes]) -> None:
        must(1 <= len(bodies) <= BATCH_EVENTS_MAX, "a batch has its bounds", len(bodies))
        seqs = [seq for seq, attempt, lease_ms, fence in header["messages"] if attempt == lease_ms == fence == 0]
        must(len(seqs) == len(bodies), "a tap leases nothing", header)
        for seq, body in zip(seqs, bodies, strict=True):
            stored = self.log.events.get(seq)
            must(stored is None or body == stored.event.body, "the event comes as it was sent", seq)
        tap.sent(seqs, [len(body) for body in bodies], header.get("lost", 0), self.topics)

    def _tap_gap(self, tap: Tap, header: Header) -> None:
        (gap,) = header["gaps"]
        must(tap.history and gap["last"] == self.log.oldest - 1, "a tap's gap is what retention took", header)
        unsent = tap.unsent(self.topics)
        must(not unsent or gap["first"] <= unsent[0], "and begins where it stood", header)
        tap.last = gap["last"]

    def _state(self, session: Session, header: Header) -> None:
        kind, (boot, number) = header["kind"], header["version"]
        must(kind in session.watches, "a state goes to who watches it", kind)
        shown = (header["settled"], header["state"])
        must(shown == self.state(kind), "a state is told as it is", shown, self.state(kind))
        before, value = self.told.get(kind, (-1, None))
        must(boot == self.boot and number >= before, "a state's version never falls", header["version"])
        must(number > before or shown == value, "another state has another version", header["version"])
        self.told[kind] = number, shown
        session.watches[kind] = shown

    # ---- and nothing is missing --------------------------------------------------------------------------------------

    def settled(self) -> None:
        """At the end of a turn, when the broker has nothing more to send. Raises Violation for what did not come."""
        must(not self.owed, "what is owed comes within the turn", self.owed)
        for name in self.due:
            holder = [session for session in self.sessions.values() if session.producer == name]
            must(not holder, "a PUBACK that is due comes", name)
        self.due.clear()
        for group in self.groups.values():
            must(group.scanned >= group.must_have_read(self.log.last), "a group reads on", group.name, group.scanned)
            must(group.scanned <= self.log.last, "a group reads what is on disk alone", group.scanned)
            must((kept_back := group.kept_back(self.now)) is None, "who can take an event gets it", kept_back)
        for session in self.sessions.values():
            for tap in session.taps.values():
                if tap.events > 0 and tap.bytes > 0 and not self._may_wait(tap):
                    must(not (unsent := tap.unsent(self.topics)), "a tap with credit gets what there is", tap, unsent)
            for kind, shown in session.watches.items():
                must(shown == self.state(kind), "who watches a state has been told it", kind, shown)
        for request, question in self.questions.items():
            must(question.commits < question.commits_max, "a question is answered after its commit", request)

    def _may_wait(self, tap: Tap) -> bool:
        """Whether what it has not seen is gone is known when the disk has answered."""
        return tap.history and self.commit is not None and tap.last + 1 < self.commit.cut_at_most


def choice_of(header: Header) -> tuple[str | None, int, int]:
    """(subject, first, last) of the events that an operator means."""
    seq = header.get("seq")
    if seq is not None:
        return header.get("subject"), seq, seq
    return header.get("subject"), header.get("first") or 0, header.get("last") or 1 << 62


def refused(code: str, *, closes: bool | None = None) -> Refused:
    return Refused(code, closes=code in CLOSING if closes is None else closes)


def check_hello(identity: str, header: Header) -> None:
    """Raises Refused for what is beyond the grant: ACL, which closes here."""
    names = [header["slot"], *([header["producer"]] if header.get("producer") else [])]
    if any(name.split("/")[0] != identity for name in names):
        raise refused("ACL", closes=True)
    may_publish = identity in PRODUCERS
    if any(not may_publish or topic.split(".")[0] != identity for topic in header["contracts"]["publishes"]):
        raise refused("ACL", closes=True)
    prefixes = (header.get("endpoints") or {}).get("prefixes", ())
    if any(prefix != f"/{identity}" for prefix in prefixes):
        raise refused("ACL", closes=True)


def see_group(group: Group) -> Header:
    return {
        "part": group.part,
        "lag": group.lag,
        "in_flight": len(group.leases),
        "parked_keys": len({group.items[seq].subject for seq in group.letters}) if group.parks else 0,
        "dead": len(group.letters),
        "members": len(group.members),
        "floor": group.floor,
    }


def fits(told: Any, wanted: Any) -> bool:
    """Is all that is wanted told? Dicts may tell more."""
    if isinstance(wanted, dict) and isinstance(told, dict):
        return all(name in told and fits(told[name], value) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(told, list):
        return len(told) == len(wanted) and all(map(fits, told, wanted))
    return bool(told == wanted)


def walk(groups: dict[str, Group]) -> Iterator[tuple[str, int, Any]]:
    """(group, seq, item) of everything that a group knows of."""
    for name, group in groups.items():
        for seq, item in group.items.items():
            yield name, seq, item
