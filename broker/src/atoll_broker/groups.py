"""A group: which of its events wait, are leased, are finished or dead, and to whom the next ones go.

Theory. A group reads the log in order, a window ahead of its oldest unfinished event. Events of one key (subject) form
a queue of which only the head may be out, so keys run in parallel and no key is ever reordered. A delivery is a lease
with a fence; who answers without the present fence is late, and changes nothing. What must survive a crash goes into
the journal, that is into the next group commit: the floor (every event up to it is finished), the finished ones above
it, attempts and dead letters. All of it may lag behind the truth; an event is then delivered again, never skipped.

                 ┌────────── order: the window, in log order ─────────┐
    floor ▶ ─────┤ done  done  leased  waiting  done  delayed  waiting ├───── scanned ▶ ── not read yet ──
                 └────────────────────────────────────────────────────┘

Prior art: leases and visibility of SQS, key order of Pulsar's Key_Shared, parking as in JMS message groups. Were
groups to hold many more unfinished events than a window, the window's metadata would have to live on disk.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Final

from .commands import Msg
from .events import traceparent_of
from .journal import Journal
from .mesh import Bus
from .mesh import Group as GroupConfig
from .storage import DeadLetter, GroupRecord, LetterDrop, LetterPut, LettersReplay, StoredEvent

LEASES_MAX: Final = 10  # how often WIP may start a lease anew, in lease lengths
CREDIT_EVENTS_MAX: Final = 65_536
CREDIT_BYTES_MAX: Final = 268_435_456
ERROR_TEXT_MAX: Final = 2000


Delivered = tuple[int, int]
"""The (seq, fence) of one delivery, as a verdict names it."""


class Phase(Enum):
    WAITING = "waiting"
    LEASED = "leased"
    DELAYED = "delayed"
    DONE = "done"


class Entry:
    """One event in one group's window. `event` is None for a replayed one: its bytes are read when it is sent."""

    __slots__ = (
        "attempt",
        "deadline",
        "delivered",
        "event",
        "fence",
        "lease_limit",
        "member",
        "phase",
        "replay",
        "seq",
        "size",
        "subject",
        "topic",
        "version",
    )

    def __init__(self, seq: int, topic: str, subject: str, event: StoredEvent | None, attempt: int) -> None:
        self.seq = seq
        self.topic = topic
        self.subject = subject
        self.event = event
        self.size = len(event.body) if event is not None else 0
        self.replay = event is None
        self.attempt = attempt
        self.delivered = False
        self.phase = Phase.WAITING
        self.fence = 0
        self.member: Member | None = None
        self.deadline = 0.0
        self.lease_limit = 0.0
        self.version = ""  # of the service that had it last


class Member:
    """One session's place in one group."""

    __slots__ = ("bytes", "draining", "events", "in_flight", "max_in_flight", "paused", "session", "topics", "version")

    def __init__(self, session: str, version: str) -> None:
        self.session = session
        self.version = version
        self.topics: frozenset[str] = frozenset()
        self.max_in_flight = 0
        self.events = 0
        self.bytes = 0
        self.in_flight = 0
        self.draining = False
        self.paused = False

    @property
    def room(self) -> int:
        if self.draining or self.paused or self.bytes <= 0:
            return 0
        return min(self.events, self.max_in_flight - self.in_flight)

    def add_credit(self, events: int, size: int) -> None:
        self.events = min(self.events + events, CREDIT_EVENTS_MAX)
        self.bytes = min(self.bytes + size, CREDIT_BYTES_MAX)


class Context:
    """What a group needs of the broker around it."""

    def __init__(
        self,
        bus: Bus,
        journal: Journal,
        next_fence: Callable[[], int],
        jitter: Callable[[], float],
        load: Callable[[int], StoredEvent],
        wall_ms: Callable[[], int],
    ) -> None:
        self.bus = bus
        self.journal = journal
        self.next_fence = next_fence
        self.jitter = jitter  # 0.5 … 1.0
        self.load = load
        self.wall_ms = wall_ms


class Group:
    def __init__(self, name: str, config: GroupConfig, record: GroupRecord, context: Context) -> None:
        self.name = name
        self.config = config
        self.topics = frozenset(config.topics)
        self.floor = record.floor
        self.scanned = record.floor
        self.lag = max(0, record.waiting)
        self.members: dict[str, Member] = {}
        self.dead = 0
        self.deliveries = 0
        self.redeliveries = 0
        self.progress_at = 0.0
        self._context = context
        self._attempts = record.attempts
        self._done_before = set(record.acked)
        self._just_acked: list[int] = []
        self._dead_keys: dict[str, list[tuple[int, str]]] = {}  # subject: (seq, topic) in log order
        self._order: deque[Entry] = deque()
        self._window_bytes = 0
        self._keys: dict[str, deque[Entry]] = {}
        self._ready: dict[str, deque[Entry]] = {topic: deque() for topic in config.topics}
        self._ready_count = 0
        self._delayed: list[tuple[float, int, Entry]] = []
        self._leases: OrderedDict[int, Entry] = OrderedDict()
        self._recover(record)

    # ---- the log comes in --------------------------------------------------------------------------------------------

    @property
    def room(self) -> bool:
        """May it read on? Not past its window, nor when what it reads could only be buried and there is no room."""
        bus = self._context.bus
        within = len(self._order) < bus.window_events_max and self._window_bytes < bus.window_bytes_max
        return within and self.dead < bus.dead_letters_max

    def feed(self, events: Sequence[StoredEvent]) -> None:
        """The next events of the log, of whatever topic."""
        assert events[0].seq == self.scanned + 1, "a group reads the log without a gap"
        for event in events:
            if event.topic in self.topics and not self._finished_before(event.seq):
                if self._is_parked(event.subject):
                    self._bury_behind(Entry(event.seq, event.topic, event.subject, event, 1))
                else:
                    self._enqueue(event)
        self.scanned = events[-1].seq
        self._advance()

    def _is_parked(self, subject: str) -> bool:
        return subject in self._dead_keys and self.config.on_dead == "park"

    def _finished_before(self, seq: int) -> bool:
        if seq not in self._done_before:
            return False
        self._done_before.discard(seq)
        return True

    def _enqueue(self, event: StoredEvent) -> None:
        entry = Entry(event.seq, event.topic, event.subject, event, self._attempts.pop(event.seq, 1))
        self._order.append(entry)
        self._window_bytes += entry.size
        self._append_to_key(entry)

    def _append_to_key(self, entry: Entry) -> None:
        queue = self._keys.get(entry.subject)
        if queue is None:
            self._keys[entry.subject] = deque((entry,))
            self._make_ready(entry)
        else:
            queue.append(entry)

    def _make_ready(self, entry: Entry) -> None:
        entry.phase = Phase.WAITING
        ready = self._ready.get(entry.topic)
        if ready is None:  # a replayed letter of a topic that the group no longer names
            ready = self._ready[entry.topic] = deque()
        ready.append(entry)
        self._ready_count += 1

    # ---- out to the members ------------------------------------------------------------------------------------------

    def dispatch(self, now: float) -> list[tuple[str, Msg, list[bytes]]]:
        """Leases what can go out: (session, MSG header, bodies), each within the bounds of a batch."""
        out: list[tuple[str, Msg, list[bytes]]] = []
        while self._ready_count:
            able = sorted((m for m in self.members.values() if m.room > 0), key=lambda member: member.in_flight)
            share = max(1, -(-self._ready_count // len(able))) if able else 0
            sent = [batch for member in able if (batch := self._fill(member, share, now)) is not None]
            if not sent:
                break
            out.extend(sent)
        return out

    def _fill(self, member: Member, share: int, now: float) -> tuple[str, Msg, list[bytes]] | None:
        """One MSG for one member."""
        bus, lease_ms = self._context.bus, int(self.config.lease_seconds * 1000)
        deliveries: list[tuple[int, int, int, int]] = []
        bodies: list[bytes] = []
        size = 0
        limit = min(share, bus.batch_events_max)
        size_max = bus.batch_bytes_max - bus.event_bytes_max - 2  # so that any event still fits, and the brackets
        while len(bodies) < limit and member.room > 0 and size <= size_max:
            entry = self._pop_ready(member.topics)
            if entry is None:
                break
            body = self._lease(entry, member, now)
            deliveries.append((entry.seq, entry.attempt, lease_ms, entry.fence))
            bodies.append(body)
            size += len(body) + 1
        return (member.session, Msg(self.name, deliveries), bodies) if bodies else None

    def _pop_ready(self, topics: frozenset[str]) -> Entry | None:
        """The oldest head among the topics that this member takes."""
        best: deque[Entry] | None = None
        for topic in topics:
            ready = self._ready[topic]
            if ready and (best is None or ready[0].seq < best[0].seq):
                best = ready
        if best is None:
            return None
        self._ready_count -= 1
        return best.popleft()

    def _lease(self, entry: Entry, member: Member, now: float) -> bytes:
        body = entry.event.body if entry.event is not None else self._context.load(entry.seq).body
        self.deliveries += 1
        self.redeliveries += entry.delivered or entry.attempt > 1
        entry.delivered = True
        entry.phase = Phase.LEASED
        entry.fence = self._context.next_fence()
        entry.member = member
        entry.deadline = now + self.config.lease_seconds
        entry.lease_limit = now + self.config.lease_seconds * LEASES_MAX
        self._leases[entry.seq] = entry
        member.in_flight += 1
        member.events -= 1
        member.bytes -= len(body)
        return body

    # ---- verdicts come back ------------------------------------------------------------------------------------------

    def ack(self, session: str, deliveries: Iterable[Delivered], now: float) -> list[Delivered]:
        """Finishes what is leased under that fence; returns the rest, which is stale."""
        return self._judge(session, deliveries, self._finish, progress_at=now)

    def nack(
        self, session: str, deliveries: Iterable[Delivered], delay_ms: int | None, error: str, now: float
    ) -> list[Delivered]:
        """Puts back what is leased under that fence, for another attempt; returns the rest."""
        return self._judge(session, deliveries, lambda entry: self._fail(entry, "FAILED", error, now, delay_ms))

    def term(self, session: str, deliveries: Iterable[Delivered], error: str, now: float) -> list[Delivered]:
        """Buries what is leased under that fence; returns the rest."""
        return self._judge(session, deliveries, lambda entry: self._bury(entry, "REJECTED", error), progress_at=now)

    def _judge(
        self,
        session: str,
        deliveries: Iterable[Delivered],
        verdict: Callable[[Entry], None],
        progress_at: float | None = None,
    ) -> list[Delivered]:
        """Ends the leases that still stand and does to each entry what the verdict says; the stale rest.

        Only what counts is progress: a member whose answers all come late makes none, and neither does a failure.
        """
        stale = []
        for seq, fence in deliveries:
            entry = self._unlease(session, seq, fence)
            if entry is None:
                stale.append((seq, fence))
                continue
            verdict(entry)
            if progress_at is not None:
                self.progress_at = progress_at
        self._advance()
        return stale

    def extend(self, session: str, deliveries: Iterable[Delivered], now: float) -> list[Delivered]:
        """WIP. Past the cap the lease is left as it is and ends by itself: a handler that hangs for ever must not
        hold its key for ever. Leases stay sorted by deadline, since each either gets the latest or none."""
        stale = []
        for seq, fence in deliveries:
            entry = self._leases.get(seq)
            if entry is None or not _holds(entry, session, fence):
                stale.append((seq, fence))
            elif now + self.config.lease_seconds <= entry.lease_limit:
                entry.deadline = now + self.config.lease_seconds
                self._leases.move_to_end(seq)
        return stale

    def _unlease(self, session: str, seq: int, fence: int) -> Entry | None:
        entry = self._leases.get(seq)
        if entry is None or not _holds(entry, session, fence):
            return None
        self._end_lease(entry)
        return entry

    def _end_lease(self, entry: Entry) -> None:
        del self._leases[entry.seq]
        assert entry.member is not None, "what is leased has a holder"
        entry.member.in_flight -= 1
        entry.version = entry.member.version
        entry.member = None

    # ---- time and members go -----------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Ends leases and delays that are over."""
        while self._leases:
            entry = next(iter(self._leases.values()))
            if entry.deadline > now:
                break
            self._end_lease(entry)
            self._fail(entry, "LEASE_EXPIRED", f"no answer within {self.config.lease_seconds:g} s", now)
        while self._delayed and self._delayed[0][0] <= now:
            entry = heapq.heappop(self._delayed)[2]
            if entry.phase is Phase.DELAYED:
                self._make_ready(entry)
        self._advance()

    def leave(self, session: str, now: float, *, died: bool) -> None:
        """Frees the member's leases. Only a death counts as an attempt: a drain, a resume is nobody's failure."""
        self.members.pop(session, None)
        held = [entry for entry in self._leases.values() if entry.member and entry.member.session == session]
        for entry in held:
            self._end_lease(entry)
            if died:
                self._fail(entry, "SESSION_DIED", "the session ended with the event in hand", now)
            else:
                self._make_ready(entry)
        self._advance()

    # ---- failures ----------------------------------------------------------------------------------------------------

    def _fail(self, entry: Entry, cause: str, error: str, now: float, delay_ms: int | None = None) -> None:
        full = self.dead >= self._context.bus.dead_letters_max
        if entry.attempt >= self.config.attempts_max and not full:
            self._bury(entry, cause, error)
            self.progress_at = now
            return
        entry.attempt += 1
        self._context.journal.attempt(self.name, entry.seq, entry.attempt)
        entry.phase = Phase.DELAYED
        delay = self._backoff(entry.attempt - 1) if delay_ms is None else delay_ms / 1000
        heapq.heappush(self._delayed, (now + delay, entry.seq, entry))

    def _backoff(self, failures: int) -> float:
        first, greatest = self.config.backoff_seconds
        return float(min(greatest, first * 2 ** min(failures - 1, 32)) * self._context.jitter())

    def _bury(self, entry: Entry, cause: str, error: str) -> None:
        """To the dead letters; with `park` the key goes too, for its later events rest on this one."""
        self._write_letter(entry, cause, error, None)
        if self.config.on_dead != "park":
            self._finish_entry(entry)
            return
        queue = self._keys.pop(entry.subject)
        self._retire(queue.popleft())
        for follower in queue:
            self._bury_behind(follower)

    def _bury_behind(self, entry: Entry) -> None:
        first = self._dead_keys[entry.subject][0][0]
        self._write_letter(entry, "BEHIND", f"event {first} of this key is a dead letter", first)
        self._retire(entry)

    def _write_letter(self, entry: Entry, cause: str, error: str, behind: int | None) -> None:
        event = entry.event if entry.event is not None else self._context.load(entry.seq)
        error = error[:ERROR_TEXT_MAX]
        letter = DeadLetter(
            group=self.name,
            seq=entry.seq,
            topic=entry.topic,
            subject=entry.subject,
            event_id=event.event_id,
            cause=cause,
            behind=behind,
            error=error,
            fingerprint=hashlib.sha256(f"{self.name}\0{entry.topic}\0{cause}\0{error}".encode()).hexdigest()[:16],
            attempts=0 if behind is not None else entry.attempt,
            version=entry.version,
            traceparent=traceparent_of(event.body),
            at_ms=self._context.wall_ms(),
        )
        self._context.journal.letter(LetterPut(letter))
        self.dead += 1
        self._dead_keys.setdefault(entry.subject, []).append((entry.seq, entry.topic))

    # ---- finishing ---------------------------------------------------------------------------------------------------

    def _finish(self, entry: Entry) -> None:
        if entry.replay:
            # Its row was what said that it needs no reading again; above the floor the ack must say so from now on.
            self._context.journal.letter(LetterDrop(self.name, entry.seq))
        self._just_acked.append(entry.seq)
        self._finish_entry(entry)

    def _finish_entry(self, entry: Entry) -> None:
        """Takes the head of its key's queue away, and lets the next one go."""
        queue = self._keys[entry.subject]
        assert queue[0] is entry, "only the head of a key is ever out"
        queue.popleft()
        if queue:
            self._make_ready(queue[0])
        else:
            del self._keys[entry.subject]
        self._retire(entry)

    def _retire(self, entry: Entry) -> None:
        if entry.attempt > 1:
            self._context.journal.attempt(self.name, entry.seq, 0)
        entry.phase = Phase.DONE
        self.lag -= 1

    def _advance(self) -> None:
        while self._order and self._order[0].phase is Phase.DONE:
            self._window_bytes -= self._order.popleft().size
        floor = self._order[0].seq - 1 if self._order else self.scanned
        if floor > self.floor:
            self.floor = floor
            self._context.journal.floor(self.name, floor)
        for seq in self._just_acked:
            if seq > self.floor:
                self._context.journal.acked(self.name, seq)
        self._just_acked.clear()

    # ---- dead letters ------------------------------------------------------------------------------------------------

    def replay(self, subject: str) -> int:
        """Releases the dead letters of a key, in log order, attempt 1 again. How many."""
        letters = self._dead_keys.pop(subject, [])
        if letters:
            self._context.journal.letter(LettersReplay(self.name, subject))
            self.dead -= len(letters)
            self.lag += len(letters)
            self._enqueue_replays(subject, sorted(letters))
        return len(letters)

    def _enqueue_replays(self, subject: str, letters: list[tuple[int, str]]) -> None:
        for seq, topic in letters:
            self._append_to_key(Entry(seq, topic, subject, None, self._attempts.pop(seq, 1)))

    def _recover(self, record: GroupRecord) -> None:
        for mark in record.dead:
            if mark.seq > self.floor:
                self._done_before.add(mark.seq)
            if mark.replaying:
                self._enqueue_replays(mark.subject, [(mark.seq, mark.topic)])
            else:
                self._dead_keys.setdefault(mark.subject, []).append((mark.seq, mark.topic))
                self.dead += 1

    # ---- what operators see ------------------------------------------------------------------------------------------

    @property
    def parked_keys(self) -> int:
        return len(self._dead_keys) if self.config.on_dead == "park" else 0

    @property
    def in_flight(self) -> int:
        return len(self._leases)

    @property
    def oldest_dead(self) -> int | None:
        """The oldest event that a replay would need: retention stops before it."""
        parked = min((letters[0][0] for letters in self._dead_keys.values()), default=None)
        # Not the heads alone: with `skip` a replayed letter may wait behind a later event of its key.
        replayed = min((entry.seq for queue in self._keys.values() for entry in queue if entry.replay), default=None)
        return min((seq for seq in (parked, replayed) if seq is not None), default=None)

    def oldest_age_ms(self) -> int | None:
        """How long ago the oldest unfinished event was stored; of those that were read."""
        if not self._order:
            return None
        event = self._order[0].event
        return None if event is None else max(0, self._context.wall_ms() - event.stored_ms)

    def untaken_topics(self) -> list[str]:
        """Topics with events waiting that no member takes."""
        taken: set[str] = set().union(*(member.topics for member in self.members.values()))
        return sorted(topic for topic, ready in self._ready.items() if ready and topic not in taken)


def _holds(entry: Entry, session: str, fence: int) -> bool:
    return entry.fence == fence and entry.member is not None and entry.member.session == session
