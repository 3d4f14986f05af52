"""One group, as spec/wire-1.md §7 has it.

    unread ──▶ waiting ──▶ leased ──▶ finished
                 ▲           │ │
                 └─ delayed ◀┘ └────▶ dead ──dlq.replay──▶ waiting (replay)

Of each key there is a queue, and only its head may be out. What is on disk of an event is its `Kept`; a crash takes the
group back to what the last flushed commit held, and everything else back to waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from .outboxes import Stored
from .sessions import Member
from .taps import Allowance, Fault
from .violations import must
from .words import (
    ATTEMPTS_MAX,
    BACKOFF,
    DEAD_LETTERS_MAX,
    GROUP_RATES,
    GROUPS,
    LEASE,
    LEASE_KEPT_SECONDS,
    LEASES_MAX,
    WINDOW_EVENTS_MAX,
)

UNREAD: Final = "unread"
WAITING: Final = "waiting"
LEASED: Final = "leased"
DELAYED: Final = "delayed"
FINISHED: Final = "finished"
DEAD: Final = "dead"

Pair = tuple[int, int]


@dataclass(slots=True, frozen=True)
class Letter:
    """Why an event is dead."""

    cause: str
    behind: int | None
    error: str | None  # None: any text will do
    attempts: int


#: Of an event that was finished and comes again: its row on disk says so, as a letter does.
AGAIN: Final = Letter("REPLAY", None, None, 0)


@dataclass(slots=True, frozen=True)
class Kept:
    """What the disk knows of an event: its attempt, that it is finished, dead or replaying, and who has it in hand."""

    attempt: int = 1
    finished: bool = False
    letter: Letter | None = None
    replaying: bool = False
    holder: str | None = None  # the slot whose lease has lasted


@dataclass(slots=True, frozen=True)
class Saved:
    """A group on disk."""

    floor: int
    kept: dict[int, Kept]
    detached: bool = False
    gaps: frozenset[int] = frozenset()

    def cut(self, oldest: int) -> Saved:
        """Without what is of events that the log no longer has."""
        kept = {seq: kept for seq, kept in self.kept.items() if seq >= oldest}
        return Saved(self.floor, kept, self.detached, self.gaps)


@dataclass(slots=True)
class Replay:
    """What became of the events of one replay."""

    group: str
    total: int
    done: int = 0
    duplicate: int = 0
    failed: int = 0


@dataclass(slots=True, eq=False)
class Item:
    """One event in one group. `due`: from when a delayed one may come, and from when it must."""

    stored: Stored
    state: str = UNREAD
    attempt: int = 1
    replay: bool = False
    letter: Letter | None = None
    member: Member | None = None  # a lease without one is held for a slot that is not here
    slot: str = ""
    holder: str | None = None  # the slot on disk
    leased_at: float = 0.0
    fence: int = 0
    deadline: float = 0.0
    limit: float = 0.0
    due: tuple[float, float] = (0.0, 0.0)
    replay_of: Replay | None = None
    delayed_once: bool = False  # by a fault, in this attempt
    doubled: bool = False  # by a fault: its delivery may come twice

    @property
    def seq(self) -> int:
        return self.stored.seq

    @property
    def subject(self) -> str:
        return self.stored.event.subject

    @property
    def topic(self) -> str:
        return self.stored.event.topic


class Group:
    def __init__(self, name: str) -> None:
        self.name = name
        self.part, self.topics, self.parks = GROUPS[name]
        self.items: dict[int, Item] = {}
        self.queues: dict[str, list[Item]] = {}
        self.window: dict[int, Item] = {}  # read, not finished; replays are not in it
        self.leases: dict[int, Item] = {}  # in the order in which they end
        self.letters: dict[int, Letter] = {}
        self.members: dict[bytes, Member] = {}
        self.kept: dict[int, Kept] = {}
        self.floor = 0
        self.scanned = 0
        self.lag = 0
        self.allowance = Allowance(GROUP_RATES[name]) if name in GROUP_RATES else None
        self.faults: list[Fault] = []
        self.detached = False
        self.gaps: frozenset[int] = frozenset()  # what it will never get

    # ---- events come in ----------------------------------------------------------------------------------------------

    def stored(self, new: Iterable[Stored]) -> None:
        """Events are on disk: they wait to be read."""
        for one in new:
            if one.event.topic in self.topics:
                self.items[one.seq] = Item(one)
                self.lag += 1

    def read_to(self, seq: int, now: float) -> None:
        """The group has read on. What is of a parked key follows its dead letter."""
        for number in range(self.scanned + 1, seq + 1):
            item = self.items.get(number)
            if item is not None and item.state == UNREAD:
                self._read(item, now)
        self.scanned = seq
        self._raise_floor()

    def _read(self, item: Item, now: float) -> None:
        if self.parks and (dead := self.dead_of(item.subject)):
            self._die(item, Letter("BEHIND", min(dead), None, 0))
            return
        self.window[item.seq] = item
        self._enqueue(item, now)

    def _enqueue(self, item: Item, now: float) -> None:
        """To its key. What a slot had in hand at the crash is held for it, for a lease's length."""
        if item.holder is not None and item.subject not in self.queues:
            item.state, item.slot, item.deadline = LEASED, item.holder, now + LEASE
            self.leases[item.seq] = item
        else:
            item.state, item.holder = WAITING, None
        self.queues.setdefault(item.subject, []).append(item)
        self._keep(item)

    def _keep(self, item: Item) -> None:
        """What the next commit writes of it."""
        letter = item.letter if item.replay or item.state == DEAD else None
        kept = Kept(item.attempt, item.state == FINISHED, letter, item.replay, item.holder)
        if kept == Kept():
            self.kept.pop(item.seq, None)
        else:
            self.kept[item.seq] = kept

    def dead_of(self, subject: str) -> list[int]:
        return [seq for seq in self.letters if self.items[seq].subject == subject]

    def must_have_read(self, last: int) -> int:
        """At least so far: to the end, or until the window is full, or there is no room for what might have to die."""
        if self.detached or len(self.letters) >= DEAD_LETTERS_MAX:
            return self.scanned
        open_ = 0
        for seq in range(self.floor + 1, last + 1):
            if seq in self.items:
                open_ += 1
                if open_ == WINDOW_EVENTS_MAX:
                    return seq
        return last

    # ---- out ---------------------------------------------------------------------------------------------------------

    def heads(self) -> Iterator[Item]:
        """The first of each key: no other may be out."""
        for queue in self.queues.values():
            yield queue[0]

    def lease(self, member: Member, seq: int, attempt: int, fence: int, body: bytes, now: float) -> None:
        """The broker delivers: it must be that key's turn, and the member must be able to take it."""
        item = self._turn_of(seq, now)
        fault = self.fault_on(item)
        must(not self.detached, "a detached group is sent nothing before it is attached again", self.name)
        must(fault is None or item.doubled, "a fault hits each delivery", seq, fault)
        must(self.allowance is None or self.allowance.room(now), "a group gets no more a second than it may", seq)
        must(member.room > 0, "a member gets no more than it may", member.state, seq)
        must(item.topic in member.topics, "a member gets the topics that it took", item.topic)
        must(attempt == item.attempt, "the attempt is told", attempt, item.attempt)
        must(body == item.stored.event.body, "the event comes as it was sent", seq)
        self._begin_lease(item, member.session.slot, fence, now)
        item.member = member
        member.in_flight += 1
        self._charge(member, len(body))

    def _turn_of(self, seq: int, now: float) -> Item:
        """That event, if it may go out now."""
        item = self.items.get(seq)
        must(item is not None, "only a stored event of the group's topics is delivered", self.name, seq)
        assert item is not None
        must(item.state in (WAITING, DELAYED), "only what waits is delivered", seq, item.state)
        must(self.queues[item.subject][0] is item, "only the first of a key is delivered", seq)
        must(item.state == WAITING or now >= item.due[0], "what was delayed comes no sooner", now, item.due)
        return item

    def _begin_lease(self, item: Item, slot: str, fence: int, now: float) -> None:
        item.state, item.fence, item.slot, item.leased_at = LEASED, fence, slot, now
        item.deadline, item.limit = now + LEASE, now + LEASE * LEASES_MAX
        self.leases[item.seq] = item

    def _charge(self, member: Member, size: int) -> None:
        member.events -= 1
        member.bytes -= size
        if self.allowance is not None:
            self.allowance.take(1)

    # ---- faults ------------------------------------------------------------------------------------------------------

    def fault_on(self, item: Item) -> Fault | None:
        """The fault that hits the next delivery of that event: of several the oldest; a delay once an attempt."""
        hitting = (fault for fault in self.faults if fault.topic in (None, item.topic))
        return next((fault for fault in hitting if fault.kind != "delay" or not item.delayed_once), None)

    def strike(self, seq: int, kind: str, slot: str, now: float) -> None:
        """A fault hits a delivery to that slot."""
        item = self._turn_of(seq, now)
        fault = self.fault_on(item)
        must(fault is not None and fault.kind == kind, "the fault that is there strikes", kind, fault)
        assert fault is not None
        if kind == "delay":
            must(not item.delayed_once, "a fault delays once an attempt", seq)
            item.state, item.due, item.delayed_once = DELAYED, (now + fault.delay, now + fault.delay), True
        elif kind == "error":
            self.fail(item, "FAILED", "injected: error", now)
        elif kind == "drop":
            self._begin_lease(item, slot, -1, now)  # under a fence that nobody was told
        else:
            item.doubled = True

    def doubled(self, member: Member, seq: int, fence: int, body: bytes) -> None:
        """The same delivery again, by a fault."""
        item = self.leases.get(seq)
        must(item is not None and item.doubled and item.fence == fence, "a delivery comes twice by a fault alone", seq)
        assert item is not None
        must(item.member is member and member.events > 0, "and within the window", seq)
        item.doubled = False
        self._charge(member, len(body))

    def kept_back(self, now: float) -> tuple[Item, Member] | None:
        """Something that should have been delivered by now, and to whom."""
        able = [member for member in self.members.values() if member.room > 0]
        if self.allowance is not None and not self.allowance.room(now):
            return None
        for item in self.heads() if able and not self.detached else ():
            if item.state == WAITING or (item.state == DELAYED and now >= item.due[1]):
                for member in able:
                    if item.topic in member.topics:
                        return item, member
        return None

    # ---- verdicts ----------------------------------------------------------------------------------------------------

    def holds(self, route: bytes, pair: Pair) -> bool:
        """Does this session hold that event, under that fence?"""
        item = self.leases.get(pair[0])
        return item is not None and item.fence == pair[1] and item.member is self.members.get(route)

    def judge(self, route: bytes, pair: Pair) -> Item | None:
        """Ends the lease that is named; None if it is stale."""
        if not self.holds(route, pair):
            return None
        return self._let_go(self.leases[pair[0]])

    def _let_go(self, item: Item) -> Item:
        del self.leases[item.seq]
        item.doubled = False
        if item.member is not None:
            item.member.in_flight -= 1
        item.member = item.holder = None
        self._keep(item)
        return item

    def finish(self, item: Item, *, duplicate: bool) -> None:
        if item.replay_of is not None:
            item.replay_of.done += not duplicate
            item.replay_of.duplicate += duplicate
            item.replay_of = None
        item.state, item.replay, item.attempt = FINISHED, False, 1
        self._keep(item)
        self._leave_queue(item)
        self.lag -= 1
        self._raise_floor()

    def fail(self, item: Item, cause: str, error: str | None, now: float, delay: float | None = None) -> None:
        """Another attempt later, or, after the last one, none."""
        if item.attempt >= ATTEMPTS_MAX and len(self.letters) < DEAD_LETTERS_MAX:
            self.bury(item, cause, error)
            return
        backoff = min(BACKOFF[1], BACKOFF[0] * 2 ** (item.attempt - 1))
        item.attempt += 1
        item.delayed_once = False
        item.state = DELAYED
        item.due = (now + backoff / 2, now + backoff) if delay is None else (now + delay, now + delay)
        self._keep(item)

    def bury(self, item: Item, cause: str, error: str | None) -> None:
        """To the dead letters; where dead letters park, what waits behind it goes with it."""
        followers = self.queues[item.subject][1:]
        self._leave_queue(item)
        self._die(item, Letter(cause, None, error, item.attempt))
        if self.parks:
            for follower in followers:
                self._leave_queue(follower)
                self._die(follower, Letter("BEHIND", min(self.dead_of(item.subject)), None, 0))
        self._raise_floor()

    def _die(self, item: Item, letter: Letter) -> None:
        if item.replay_of is not None:
            item.replay_of.failed += 1
            item.replay_of = None
        item.state, item.letter, item.replay, item.attempt = DEAD, letter, False, 1
        self.window.pop(item.seq, None)
        self.letters[item.seq] = letter
        item.holder = None
        self._keep(item)
        self.lag -= 1

    def _leave_queue(self, item: Item) -> None:
        queue = self.queues[item.subject]
        queue.remove(item)
        if not queue:
            del self.queues[item.subject]
        self.window.pop(item.seq, None)

    def _raise_floor(self) -> None:
        floor = min(self.window) - 1 if self.window else self.scanned
        self.floor = max(self.floor, floor)

    def extend(self, route: bytes, pair: Pair, now: float) -> bool:
        """WIP: a whole lease from now, unless that goes past ten of them. False: stale."""
        if not self.holds(route, pair):
            return False
        item = self.leases[pair[0]]
        if now + LEASE <= item.limit:
            item.deadline = now + LEASE
            self.leases[item.seq] = self.leases.pop(item.seq)
        return True

    # ---- time, ends, operators ---------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Leases end; those that last are written. One of an earlier boot was nobody's failure."""
        for item in [item for item in self.leases.values() if item.deadline <= now]:
            if self._let_go(item).fence:
                self.fail(item, "LEASE_EXPIRED", None, now)
            else:
                item.state = WAITING
        for item in self.leases.values():
            if item.fence and now - item.leased_at >= LEASE_KEPT_SECONDS and item.holder is None:
                item.holder = item.slot
                self._keep(item)

    def slot_is_back(self, slot: str) -> None:
        """Its new session has nothing in hand: what is held for it is free."""
        for item in list(self.items.values()):
            if item.state == UNREAD and item.holder == slot:
                item.holder = None
                self._keep(item)
            elif item.state == LEASED and item.member is None and item.slot == slot:
                self._let_go(item).state = WAITING

    def leave(self, route: bytes, now: float, *, died: bool) -> None:
        """A session ends. Only a death counts as an attempt."""
        member = self.members.pop(route)
        for item in [item for item in self.leases.values() if item.member is member]:
            self._let_go(item)
            if died:
                self.fail(item, "SESSION_DIED", None, now)
            else:
                item.state = WAITING

    def choose(self, subject: str | None, first: int, last: int) -> tuple[list[Item], int]:
        """The dead letters that a replay releases, and how many it holds back: those behind one that is not chosen."""
        chosen, held_back = [], 0
        for key in {self.items[seq].subject for seq in self.letters}:
            free = True
            for seq in sorted(self.dead_of(key)):
                if not (first <= seq <= last and subject in (None, key)):
                    free = not self.parks
                elif free:
                    chosen.append(self.items[seq])
                else:
                    held_back += 1
        return sorted(chosen, key=lambda item: item.seq), held_back

    def release(self, letters: list[Item], finished: list[Item], replay: Replay, now: float) -> None:
        """Dead letters wait again, and what was finished comes again, in log order."""
        for item in letters:
            del self.letters[item.seq]
        for item in finished:
            item.letter = AGAIN
        for item in sorted([*letters, *finished], key=lambda item: item.seq):
            self._again(item, replay, now)

    def _again(self, item: Item, replay: Replay, now: float) -> None:
        item.replay, item.replay_of, item.attempt, item.delayed_once = True, replay, 1, False
        self.lag += 1
        self._enqueue(item, now)

    # ---- detached ----------------------------------------------------------------------------------------------------

    def detach(self) -> None:
        """Nobody holds its floor any more. What it had read it will read again; replays wait on."""
        replays = sorted((item for queue in self.queues.values() for item in queue if item.replay), key=lambda i: i.seq)
        for item in list(self.leases.values()):
            self._let_go(item)
        for item in self.window.values():
            item.state, item.delayed_once = UNREAD, False
        self.window.clear()
        self.queues.clear()
        self.scanned, self.detached = self.floor, True
        for item in replays:
            self._enqueue(item, 0.0)

    def pass_floor(self, oldest: int) -> None:
        """Retention went on without it: a gap, which is on record."""
        if self.floor >= oldest - 1:
            return
        must(self.detached, "retention passes the floor of a detached group alone", self.name)
        self.gaps |= frozenset(range(self.floor + 1, oldest))
        self.floor = self.scanned = oldest - 1

    # ---- the disk ----------------------------------------------------------------------------------------------------

    def save(self, *, attaching: bool = False) -> Saved:
        return Saved(self.floor, dict(self.kept), self.detached and not attaching, self.gaps)

    @staticmethod
    def restored(name: str, saved: Saved, log: Iterable[Stored], oldest: int) -> Group:
        """After a crash. Nobody is a member, nothing is leased, and attempts are as they were."""
        group = Group(name)
        group.gaps = saved.gaps | frozenset(range(saved.floor + 1, oldest))
        group.floor = group.scanned = max(saved.floor, oldest - 1)
        group.kept = dict(saved.kept)
        group.detached = saved.detached
        group.stored(log)
        for seq, item in group.items.items():
            group._recall(item, saved.kept.get(seq, Kept()))
        return group

    def _recall(self, item: Item, kept: Kept) -> None:
        item.attempt, item.letter, item.holder = kept.attempt, kept.letter, kept.holder
        if kept.replaying:
            item.replay = True
            self._enqueue(item, 0.0)
        elif kept.letter is not None:
            item.state = DEAD
            self.letters[item.seq] = kept.letter
            self.lag -= 1
        elif kept.finished:
            item.state = FINISHED
            self.lag -= 1

    # ---- retention ---------------------------------------------------------------------------------------------------

    @property
    def oldest_needed(self) -> int | None:
        """The log is never cut past this: the first unfinished event, or one that a replay may want."""
        if self.detached:
            return None
        return min([self.floor + 1, *self.letters, *(i.seq for q in self.queues.values() for i in q if i.replay)])

    def trim(self, oldest: int) -> None:
        """The log begins there now. Only a detached group loses something by it."""
        self.pass_floor(oldest)
        for seq in [seq for seq in self.items if seq < oldest]:
            self._forget(self.items.pop(seq))

    def _forget(self, item: Item) -> None:
        self.kept.pop(item.seq, None)
        if item.state not in (FINISHED, DEAD):
            self.lag -= 1
        if item.state == DEAD:
            del self.letters[item.seq]
        if item.replay_of is not None:
            item.replay_of.failed += 1
        if item.replay:
            self.leases.pop(item.seq, None)
            self._leave_queue(item)

    # ---- for the coverage table --------------------------------------------------------------------------------------

    def state_of(self, seq: int) -> str:
        """The row of an event in the coverage table."""
        item = self.items.get(seq)
        if item is None:
            return "no such event"
        if item.state == DEAD:
            return "behind" if self.letters[seq].behind is not None else DEAD
        if item.state == WAITING and self.queues[item.subject][0] is not item:
            return "queued"
        if item.state == LEASED and item.member is None:
            return "held for a slot"
        if item.state == LEASED and item.attempt >= ATTEMPTS_MAX:
            return "leased at the last attempt"
        return f"{item.state} in a replay" if item.replay else item.state
