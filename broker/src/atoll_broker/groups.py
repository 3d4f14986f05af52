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

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from .commands import Msg
from .entries import Entry, Member, Phase
from .faults import FaultSpec
from .history import History
from .journal import Journal
from .letters import Choice, Letters, Named, replay_of
from .mesh import Bus
from .mesh import Group as GroupConfig
from .queues import KeyQueues
from .rates import Bucket
from .replays import Replay
from .storage import Gap, GroupRecord, Lease, LetterDrop, Place, StoredEvent

LEASES_MAX: Final = 10  # how often WIP may start a lease anew, in lease lengths
# Most leases are over within milliseconds. Writing each would cost as much as writing its event, and what such a lease
# protects against (two slots with one key in hand after a broker's crash) needs a handler that takes long.
LEASE_KEPT_SECONDS: Final = 0.25
GAPS_KEPT: Final = 100


Delivered = tuple[int, int]
"""The (seq, fence) of one delivery, as a verdict names it."""


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
        boot: int,
        history: History,
        strike: Callable[[str, str, bool], FaultSpec | None],
    ) -> None:
        self.bus = bus
        self.journal = journal
        self.boot = boot
        self.history = history
        self.strike = strike  # (group, topic, delayed once): the fault that hits this delivery
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
        self.letters = Letters(name, context.journal)
        self.gaps = list(record.gaps)[-GAPS_KEPT:]
        self.detached = record.detached
        self.detached_by = ""  # known until the broker restarts
        self.detachments = 0
        self.deliveries = 0
        self.redeliveries = 0
        self.progress_at = 0.0
        self._context = context
        self._bucket = Bucket(config.events_per_second_max)
        self._attempts = record.attempts
        self._done_before = set(record.acked)
        self._held_before = dict(record.leases)
        self._just_acked: list[int] = []
        self._order: deque[Entry] = deque()
        self._window_bytes = 0
        self._keys = KeyQueues(config.topics)
        self._delayed: list[tuple[float, int, Entry]] = []
        self._leases: OrderedDict[int, Entry] = OrderedDict()
        self._young: deque[tuple[float, int, Entry]] = deque()  # leased at, fence, entry: not on disk yet
        self._recover(record)

    def reconfigure(self, config: GroupConfig, now: float) -> None:
        """Policy that may change while it runs. Its topics, its part and its lease are those of the boot."""
        self.config = config
        self._bucket.set_rate(config.events_per_second_max, now)
        for member in self.members.values():
            member.max_in_flight = min(member.asked_in_flight, config.in_flight_max)

    # ---- the log comes in --------------------------------------------------------------------------------------------

    @property
    def room(self) -> bool:
        """May it read on? Not past its window, nor when what it reads could only be buried and there is no room."""
        bus = self._context.bus
        within = len(self._order) < bus.window_events_max and self._window_bytes < bus.window_bytes_max
        return within and self.dead < bus.dead_letters_max and not self.detached

    def feed(self, events: Sequence[StoredEvent], now: float) -> None:
        """The next events of the log, of whatever topic."""
        assert events[0].seq == self.scanned + 1, "a group reads the log without a gap"
        for event in events:
            if event.topic in self.topics and event.seq not in self._done_before:
                if self._is_parked(event.subject):
                    self._bury_behind(Entry(event.seq, event.topic, event.subject, event, 1))
                else:
                    self._enqueue(event, now)
        self.scanned = events[-1].seq
        self._advance()

    def _is_parked(self, subject: str) -> bool:
        return self.config.on_dead == "park" and subject in self.letters

    def _enqueue(self, event: StoredEvent, now: float) -> None:
        entry = Entry(event.seq, event.topic, event.subject, event, self._attempts.pop(event.seq, 1))
        self._order.append(entry)
        self._window_bytes += entry.size
        self._append(entry, now)

    def _append(self, entry: Entry, now: float) -> None:
        """To its key; if it was in hand at the crash, held for who had it. Unless an ack before it was lost with the
        crash: then the key begins there."""
        lease = self._held_before.get(entry.seq)
        if lease is not None and entry.subject not in self._keys:
            del self._held_before[entry.seq]
            self._keys.begin(entry)
            self._hold_for(entry, lease, now)
            return
        if lease is not None:
            self._forget_lease(entry.seq)
        self._keys.append(entry)

    def _forget_lease(self, seq: int) -> None:
        del self._held_before[seq]
        self._context.journal.lease(self.name, seq, None)

    def _hold_for(self, entry: Entry, lease: Lease, now: float) -> None:
        """The slot that had it before the boot may be at work on it still: nobody else gets it for a lease's length,
        nor does that slot before it says HELLO."""
        entry.phase = Phase.LEASED
        entry.slot, entry.fence = lease.slot, lease.fence
        entry.deadline = now + self.config.lease_seconds
        entry.delivered = entry.lease_kept = True
        self._leases[entry.seq] = entry

    # ---- out to the members ------------------------------------------------------------------------------------------

    def dispatch(self, now: float) -> list[tuple[str, Msg, list[bytes]]]:
        """Leases what can go out: (session, MSG header, bodies), each within the bounds of a batch."""
        out: list[tuple[str, Msg, list[bytes]]] = []
        if self.detached:  # until a SUB on its way has attached it; a trim on its way may yet take what waits
            return out
        while self._keys.ready and self._bucket.room(now):
            able = sorted((m for m in self.members.values() if m.room > 0), key=lambda member: member.in_flight)
            share = max(1, -(-self._keys.ready // len(able))) if able else 0
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
        limit = min(share, bus.batch_events_max, self._bucket.room(now))
        size_max = bus.batch_bytes_max - bus.event_bytes_max - 2  # so that any event still fits, and the brackets
        while len(bodies) < limit and member.room > 0 and size <= size_max:
            entry = self._keys.pop_ready(member.topics)
            if entry is None:
                break
            for body in self._deliver(entry, member, now, bus.batch_events_max - len(bodies)):
                deliveries.append((entry.seq, entry.attempt, lease_ms, entry.fence))
                bodies.append(body)
                size += len(body) + 1
        self._bucket.take(len(bodies))
        return (member.session, Msg(self.name, deliveries), bodies) if bodies else None

    def _deliver(self, entry: Entry, member: Member, now: float, space: int) -> tuple[bytes, ...]:
        """Leases it, and what goes out: once, unless a fault says otherwise. `space`: how many events still fit."""
        fault = self._context.strike(self.name, entry.topic, entry.delayed_once)
        if fault is None:
            return (self._lease(entry, member, now),)
        self._note_failure(entry, "fault", f"injected: {fault.kind}", member.slot)
        if fault.kind == "duplicate":
            return self._lease_twice(entry, member, now, space)
        if fault.kind == "delay":
            entry.delayed_once = True
            self._delay(entry, now + fault.delay_ms / 1000)
        elif fault.kind == "error":
            self._fail(entry, "FAILED", "injected: error", now)
        else:  # drop: a lease that nobody can answer. It takes no credit, for nobody could give it back.
            self._begin_lease(entry, member.slot, now)
        return ()

    def _lease_twice(self, entry: Entry, member: Member, now: float, space: int) -> tuple[bytes, ...]:
        """The same delivery two times, where the member's window and the batch have room for that."""
        two = member.room > 1 and space > 1 and entry.size * 2 <= self._context.bus.event_bytes_max
        body = self._lease(entry, member, now)
        if not two:
            return (body,)
        member.events -= 1
        member.bytes -= len(body)
        return body, body

    def _lease(self, entry: Entry, member: Member, now: float) -> bytes:
        body = entry.event.body if entry.event is not None else self._context.load(entry.seq).body
        self._begin_lease(entry, member.slot, now)
        entry.member = member
        member.in_flight += 1
        member.events -= 1
        member.bytes -= len(body)
        return body

    def _begin_lease(self, entry: Entry, slot: str, now: float) -> None:
        self.deliveries += 1
        self.redeliveries += entry.delivered or entry.attempt > 1
        entry.delivered = True
        entry.phase = Phase.LEASED
        entry.slot = slot
        entry.fence = self._context.next_fence()
        entry.deadline = now + self.config.lease_seconds
        entry.lease_limit = now + self.config.lease_seconds * LEASES_MAX
        self._leases[entry.seq] = entry
        self._young.append((now, entry.fence, entry))
        self._context.history.routine(entry.seq, self.name, "leased", entry.attempt, slot, entry.fence)

    # ---- verdicts come back ------------------------------------------------------------------------------------------

    def ack(
        self, session: str, done: Iterable[Delivered], duplicate: Iterable[Delivered], now: float
    ) -> list[Delivered]:
        """Finishes what is leased under that fence; returns the rest, which is stale. `duplicate`: the consumer's inbox
        knew it."""
        stale = self._judge(session, done, lambda entry: self._finish(entry, "done"), progress_at=now)
        return stale + self._judge(session, duplicate, lambda entry: self._finish(entry, "duplicate"), progress_at=now)

    def nack(
        self, session: str, deliveries: Iterable[Delivered], delay_ms: int | None, error: str, now: float
    ) -> list[Delivered]:
        """Puts back what is leased under that fence, for another attempt; returns the rest."""
        return self._judge(session, deliveries, lambda entry: self._fail(entry, "FAILED", error, now, delay_ms))

    def term(self, session: str, deliveries: Iterable[Delivered], error: str, now: float) -> list[Delivered]:
        """Buries what is leased under that fence; returns the rest."""

        def bury(entry: Entry) -> None:
            self._note_failure(entry, "term", error)
            self._bury(entry, "REJECTED", error)

        return self._judge(session, deliveries, bury, progress_at=now)

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
        if entry.lease_kept:
            self._context.journal.lease(self.name, entry.seq, None)
            entry.lease_kept = False
        if entry.member is not None:
            entry.member.in_flight -= 1
            entry.version = entry.member.version
            entry.member = None

    # ---- time and members go -----------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Ends leases and delays that are over, and has leases written that last."""
        while self._leases:
            entry = next(iter(self._leases.values()))
            if entry.deadline > now:
                break
            self._expire(entry, now)
        while self._delayed and self._delayed[0][0] <= now:
            entry = heapq.heappop(self._delayed)[2]
            if entry.phase is Phase.DELAYED:
                self._keys.make_ready(entry)
        while self._young and now - self._young[0][0] >= LEASE_KEPT_SECONDS:
            _, fence, entry = self._young.popleft()
            if entry.phase is Phase.LEASED and entry.fence == fence:
                entry.lease_kept = True
                self._context.journal.lease(self.name, entry.seq, Lease(entry.slot, fence))
        self._advance()

    def _expire(self, entry: Entry, now: float) -> None:
        """A lease of an earlier boot is nobody's failed attempt: the broker, not the consumer, was away."""
        of_this_boot = entry.fence >> 32 == self._context.boot
        self._end_lease(entry)
        if of_this_boot:
            self._fail(entry, "LEASE_EXPIRED", f"no answer within {self.config.lease_seconds:g} s", now)
        else:
            self._note_failure(entry, "expired", "its holder has not come back since the broker's start")
            self._keys.make_ready(entry)

    def slot_is_back(self, slot: str) -> None:
        """The process that has the slot now is no longer at work on what an earlier session of it was given."""
        for seq in [seq for seq, lease in self._held_before.items() if lease.slot == slot]:
            self._forget_lease(seq)
        held = [entry for entry in self._leases.values() if entry.member is None and entry.slot == slot]
        for entry in held:
            self._end_lease(entry)
            self._keys.make_ready(entry)

    def leave(self, session: str, now: float, *, died: bool) -> None:
        """Frees the member's leases. Only a death counts as an attempt: a drain, a resume is nobody's failure."""
        self.members.pop(session, None)
        held = [entry for entry in self._leases.values() if entry.member and entry.member.session == session]
        for entry in held:
            self._end_lease(entry)
            if died:
                self._fail(entry, "SESSION_DIED", "the session ended with the event in hand", now)
            else:
                self._keys.make_ready(entry)
        self._advance()

    # ---- failures ----------------------------------------------------------------------------------------------------

    def _fail(self, entry: Entry, cause: str, error: str, now: float, delay_ms: int | None = None) -> None:
        self._note_failure(entry, _STEPS[cause], error)
        full = self.dead >= self._context.bus.dead_letters_max
        if entry.attempt >= self.config.attempts_max and not full:
            self._bury(entry, cause, error)
            self.progress_at = now
            return
        entry.attempt += 1
        entry.delayed_once = False
        self._context.journal.attempt(self.name, entry.seq, entry.attempt)
        self._delay(entry, now + (self._backoff(entry.attempt - 1) if delay_ms is None else delay_ms / 1000))

    def _delay(self, entry: Entry, until: float) -> None:
        entry.phase = Phase.DELAYED
        heapq.heappush(self._delayed, (until, entry.seq, entry))

    def _note_failure(self, entry: Entry, what: str, text: str, slot: str | None = None) -> None:
        history = self._context.history
        history.failure(entry.seq, self.name, what, entry.attempt, slot or entry.slot, entry.fence, text)

    def _backoff(self, failures: int) -> float:
        first, greatest = self.config.backoff_seconds
        return float(min(greatest, first * 2 ** min(failures - 1, 32)) * self._context.jitter())

    def _bury(self, entry: Entry, cause: str, error: str) -> None:
        """To the dead letters; with `park` the key goes too, for its later events rest on this one."""
        self._write_letter(entry, cause, error, None)
        if self.config.on_dead != "park":
            self._finish_entry(entry)
            return
        queue = self._keys.pop_key(entry.subject)
        self._retire(queue.popleft())
        for follower in queue:
            self._bury_behind(follower)

    def _bury_behind(self, entry: Entry) -> None:
        first = self.letters.first_of(entry.subject)
        self._write_letter(entry, "BEHIND", f"event {first} of this key is a dead letter", first)
        self._retire(entry)

    def _write_letter(self, entry: Entry, cause: str, error: str, behind: int | None) -> None:
        event = entry.event if entry.event is not None else self._context.load(entry.seq)
        self.letters.write(entry, event, cause, error, behind, self._context.wall_ms())
        self._note_failure(entry, "dead" if behind is None else "behind", f"{cause}: {error}")
        if entry.replay_of is not None:
            entry.replay_of.failed += 1
            entry.replay_of = None

    # ---- finishing ---------------------------------------------------------------------------------------------------

    def _finish(self, entry: Entry, what: str) -> None:
        self._context.history.routine(entry.seq, self.name, what, entry.attempt, entry.slot, entry.fence)
        if entry.replay_of is not None:
            entry.replay_of.done += what == "done"
            entry.replay_of.duplicate += what == "duplicate"
        if entry.replay:
            # Its row was what said that it needs no reading again; above the floor the ack must say so from now on.
            self._context.journal.letter(LetterDrop(self.name, entry.seq))
            if entry.seq > self.floor:  # it may never have been in the window: buried as it was read
                self._done_before.add(entry.seq)
        self._just_acked.append(entry.seq)
        self._finish_entry(entry)

    def _finish_entry(self, entry: Entry) -> None:
        """Takes the head of its key's queue away, and lets the next one go."""
        self._keys.pop_head(entry)
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
            if self._done_before:  # kept until the floor has passed them: a detached group is read again from there
                self._done_before = {seq for seq in self._done_before if seq > floor}
        for seq in self._just_acked:
            if seq > self.floor:
                self._context.journal.acked(self.name, seq)
        self._just_acked.clear()

    # ---- again, and no more ------------------------------------------------------------------------------------------

    @property
    def dead(self) -> int:
        return self.letters.count

    def choose(self, choice: Choice) -> tuple[list[Named], int]:
        """The dead letters that a replay would release, and how many it would hold back."""
        return self.letters.choose(choice, park=self.config.on_dead == "park")

    def release(self, letters: list[Named], finished: Sequence[Place], replay: Replay) -> None:
        """Dead letters and finished events come again, to this group alone, in log order, attempt 1 again.

        A row on disk says so until they are finished again.
        """
        self.letters.take(letters)
        for place in finished:
            self._context.journal.letter(replay_of(self.name, place, replay.by, self._context.wall_ms()))
        self._replay(letters + [(place.seq, place.topic, place.subject) for place in finished], replay)

    def finished(self, places: Sequence[Place]) -> list[Place]:
        """Those of the group's events that it has finished, dead letters not among them."""
        waiting = {entry.seq for entry in self._order if entry.phase is not Phase.DONE}
        waiting |= {entry.seq for entry in self._keys}
        waiting |= {seq for seq, _, _ in self.letters}
        return [place for place in places if place.seq <= self.scanned and place.seq not in waiting]

    def _replay(self, named: list[Named], replay: Replay) -> None:
        self.lag += len(named)
        for seq, topic, subject in sorted(named):
            entry = self._replayed(seq, topic, subject)
            entry.replay_of = replay
            self._note_failure(entry, "replayed", f"by {replay.by}")

    def _replayed(self, seq: int, topic: str, subject: str) -> Entry:
        entry = Entry(seq, topic, subject, None, self._attempts.pop(seq, 1))
        self._keys.append(entry)
        return entry

    def attach(self) -> None:
        """It goes on from where it stood, or from where the log begins by now."""
        self.detached = False

    def detach(self, by: str) -> int:
        """Lets the floor go: retention may pass it, until a member joins again. How many events wait.

        Only for a group without members: nothing is leased but to slots that are gone.
        """
        assert not self.members, "a group with members is at work"
        self._context.journal.detached(self.name, True)
        self.detachments += 1  # a SUB that waits for the disk to attach it comes too late now
        self.detached_by = by
        if not self.detached:
            self.detached = True
            for entry in list(self._leases.values()):
                self._end_lease(entry)
            self._forget_window()
        return self.lag

    def _forget_window(self) -> None:
        """Back to the floor: what was read is read again, if the log still has it then. Replays keep waiting."""
        replays = sorted((entry for entry in self._keys if entry.replay), key=lambda entry: entry.seq)
        done = {entry.seq for entry in self._order if entry.phase is Phase.DONE}
        done |= {seq for seq, _, _ in self.letters} | {entry.seq for entry in replays}
        self._done_before |= {seq for seq in done if seq > self.floor}
        self._attempts |= {e.seq: e.attempt for e in self._order if e.phase is not Phase.DONE and e.attempt > 1}
        self.scanned = self.floor
        self._order.clear()
        self._window_bytes = 0
        self._keys.clear()
        self._delayed.clear()
        self._young.clear()
        for entry in replays:
            self._keys.append(entry)

    def trimmed(self, oldest: int, topics: Mapping[str, int]) -> None:
        """Retention has passed a detached group's floor: what was there it will never get, and that is on record.

        `topics`: how many events of each the log has left.
        """
        if self.detached:
            self._forget_what_rests_below(oldest)
        if self.floor >= oldest - 1:
            return
        assert self.detached, "retention never passes the floor of a group that holds it"
        why = "retention passed it while it was detached" + (f" by {self.detached_by}" if self.detached_by else "")
        self._let_go(Gap(self.floor + 1, oldest - 1, why, self._context.wall_ms()))
        self.floor = self.scanned = oldest - 1
        self._context.journal.floor(self.name, self.floor)
        self._done_before = {seq for seq in self._done_before if seq > self.floor}
        self.lag = sum(topics.get(topic, 0) for topic in self.topics) - len(self._done_before) + len(self._keys)

    def _forget_what_rests_below(self, oldest: int) -> None:
        """Letters and replays whose events are gone with the log, and their rows with them; its floor may lie above."""
        self.letters.forget_below(oldest)
        for entry in [entry for entry in self._keys if entry.seq < oldest]:
            self._drop_replay(entry)

    def _let_go(self, gap: Gap) -> None:
        """Gaps that follow one another are one."""
        last = self.gaps[-1] if self.gaps else None
        if last is not None and last.last + 1 == gap.first and last.why == gap.why:
            gap = Gap(last.first, gap.last, gap.why, gap.at_ms)
            self.gaps.pop()
        self.gaps.append(gap)
        del self.gaps[:-GAPS_KEPT]
        self._context.journal.gap(self.name, gap)

    def _drop_replay(self, entry: Entry) -> None:
        self._keys.remove(entry)
        self.lag -= 1
        if entry.replay_of is not None:
            entry.replay_of.failed += 1

    def _recover(self, record: GroupRecord) -> None:
        for mark in record.dead:
            if mark.seq > self.floor:
                self._done_before.add(mark.seq)
            if mark.replaying:
                self._append(Entry(mark.seq, mark.topic, mark.subject, None, self._attempts.pop(mark.seq, 1)), 0.0)
            else:
                self.letters.remember(mark.seq, mark.topic, mark.subject)
        for seq in [seq for seq in self._held_before if seq <= self.floor]:
            self._forget_lease(seq)

    # ---- what operators see ------------------------------------------------------------------------------------------

    @property
    def parked_keys(self) -> int:
        return self.letters.keys if self.config.on_dead == "park" else 0

    @property
    def in_flight(self) -> int:
        return len(self._leases)

    @property
    def delayed(self) -> int:
        return sum(entry.phase is Phase.DELAYED for _, _, entry in self._delayed)

    @property
    def oldest_dead(self) -> int | None:
        """The oldest event that a replay would need: retention stops before it."""
        parked = self.letters.oldest
        # Not the heads alone: with `skip` a replayed letter may wait behind a later event of its key.
        replayed = min((entry.seq for entry in self._keys if entry.replay), default=None)
        return min((seq for seq in (parked, replayed) if seq is not None), default=None)

    @property
    def needs_from(self) -> int:
        """The first event that retention must leave to it, as long as it is attached."""
        unhandled, dead = self.floor + 1, self.oldest_dead
        return unhandled if dead is None else min(unhandled, dead)

    def oldest_age_ms(self) -> int | None:
        """How long ago the oldest unfinished event was stored; of those that were read."""
        if not self._order:
            return None
        event = self._order[0].event
        return None if event is None else max(0, self._context.wall_ms() - event.stored_ms)

    def untaken_topics(self) -> list[str]:
        """Topics with events waiting that no member takes."""
        taken: set[str] = set().union(*(member.topics for member in self.members.values()))
        return self._keys.untaken(taken)


def _holds(entry: Entry, session: str, fence: int) -> bool:
    return entry.fence == fence and entry.member is not None and entry.member.session == session


_STEPS: Final = {"FAILED": "nack", "LEASE_EXPIRED": "expired", "SESSION_DIED": "died"}
