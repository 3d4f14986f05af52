"""What the pages say of the fleet, as pure functions of what was last seen and of the time now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from atoll_dashboard import states, wording
from atoll_dashboard.poller import Seen
from atoll_dashboard.snapshot import Fault, Figures, Part, Snapshot

#: Only an admin may act on these two (the ops API refuses others): everything stands on them.
ADMIN_ONLY = frozenset({"broker", "auth"})
_UP = ("running", "degraded", "starting")
_TYPED = frozenset({"Kill"})
_NO_DIALOG = frozenset({"Start", "Resume"})


@dataclass(frozen=True)
class Absence:
    """Something that is gone, in the words of an alert."""

    part: str
    text: str
    since: float | None = None


@dataclass(frozen=True)
class View:
    """One look at the fleet: the last snapshot, its age, what is gone, and what this operator's acts say beyond it."""

    snapshot: Snapshot | None
    at: float | None  # when it was received, by our clock
    now: float  # by the same clock, for what has a time of its own
    age_seconds: float  # of the snapshot, by a clock that nobody sets; infinite without one
    states_age_seconds: float  # of the parts' states: older than the snapshot while the agent is gone
    absences: tuple[Absence, ...] = ()
    ahead: Mapping[str, str] | None = None  # slot -> state that an operation reported after the snapshot
    held: bool = False
    whole: Snapshot | None = None  # the last one that had the bus's numbers: what was known is kept, dimmed

    @property
    def without_bus(self) -> bool:
        """Whether the broker's numbers are those of before."""
        return self.snapshot is not None and not self.snapshot.bus.available

    @property
    def without_agent(self) -> bool:
        """Whether the parts' states are those of before: nobody looks after them."""
        return self.snapshot is not None and not self.snapshot.agent.heard

    def lag(self, part: Part) -> int | None:
        """Of the part's group, as last known."""
        before = self.whole.part(part.name) if self.without_bus and self.whole is not None else None
        return part.lag if part.lag is not None or before is None else before.lag

    @property
    def bus_figures(self) -> Figures:
        """The figures that come from the broker, as last known."""
        source = self.whole if self.without_bus and self.whole is not None else self.snapshot
        return Figures() if source is None else source.figures

    @property
    def faults(self) -> list[Fault]:
        """The active ones, as last known."""
        return self.snapshot.faults if self.snapshot else []

    @property
    def stale(self) -> bool:
        """Whether what is shown may no longer be so: then it is dimmed."""
        return self.age_seconds > states.OLD_AFTER_SECONDS

    @property
    def parts_stale(self) -> bool:
        """The same of the parts alone."""
        return self.stale or self.without_agent

    @property
    def up(self) -> tuple[int, int] | None:
        """How many parts are up, of how many; None where nobody can say."""
        if self.snapshot is None or self.without_agent or self.age_seconds > states.UNKNOWN_AFTER_SECONDS:
            return None
        figures = self.snapshot.figures
        return None if figures.up is None else (figures.up, figures.of)

    def state(self, part: Part) -> str:
        """The state to show for a part; with the agent gone the last that it told, as long as that is not too old."""
        ahead = (self.ahead or {}).get(part.slot)
        return states.shown(ahead or part.last_state or part.state, self.states_age_seconds)

    def by_name(self) -> list[Part]:
        """The parts in the page's order."""
        return list(self.snapshot.parts) if self.snapshot else []


def view_of(seen: Seen, now: float, monotonic: float, ahead: Mapping[str, str], held: bool) -> View:
    """A look at what the poller saw, at `now` by the clock that people see and at `monotonic` by the poller's."""
    age_seconds = seen.age_seconds(monotonic)
    gone = tuple(
        Absence(one.part, wording.absence(one.part, one.text, waits=one.waits), one.since) for one in seen.gone
    )
    named = absences(seen.snapshot, age_seconds, gone)
    states_age_seconds = seen.states_age_seconds(monotonic)
    return View(seen.snapshot, seen.at, now, age_seconds, states_age_seconds, named, ahead, held, seen.whole)


def absences(snapshot: Snapshot | None, age_seconds: float, gone: tuple[Absence, ...]) -> tuple[Absence, ...]:
    """Everything that an alert names: what the poller missed, then the parts that the snapshot says are not there.

    An old snapshot accuses nobody: what it says of a part may be over. Nor does one without an agent, which is named
    itself. (While the gateway waits for auth's word the poller names auth and the broker, as when last heard of.)
    """
    named = {one.part for one in gone}
    found = list(gone)
    if snapshot is not None and snapshot.agent.heard and age_seconds <= states.UNKNOWN_AFTER_SECONDS:
        found += [
            Absence(part.name, sentence(part))
            for part in snapshot.parts
            if part.state in states.GONE and part.name not in named
        ]
    return tuple(found)


def sentence(part: Part) -> str:
    """`payments is stopped: stopped by amy: drill`."""
    if part.why.startswith(part.state):
        return f"{part.name} is {part.why}"
    return f"{part.name} is {part.state}" + (f": {part.why}" if part.why else "")


def quiet(view: View) -> str:
    """What stands where the alert would be: that all is well, or who is on the way back."""
    if view.up is None or view.stale:
        return ""
    up, of = view.up
    coming = [part for part in view.by_name() if view.state(part) not in ("running", "absent")]
    if not coming and up >= of:
        return "Nothing is gone, and nothing alarms."
    return f"Not running yet: {', '.join(f'{part.name} ({view.state(part)})' for part in coming)}" if coming else ""


def fleet_word(view: View) -> tuple[str, str]:
    """The fleet's state and its words: ("running", "13 of 13 up")."""
    if view.snapshot is None or view.up is None:
        return "unknown", "the fleet's state is unknown"
    up, of = view.up
    if view.stale:  # what was green then is not green now
        return "degraded", f"{up} of {of} were up"
    if up >= of and not view.snapshot.alarms:
        return "running", f"{up} of {of} up"
    if up < of:
        return "down", f"{up} of {of} up"
    return "degraded", f"{up} of {of} up, {wording.plural(len(view.snapshot.alarms), 'alarm')}"


def freshness(view: View, zone: str | None) -> str:
    """`Updated 18:34:38 · every 2 s`, or how old it is, or that it is held."""
    if view.at is None:
        return "Nothing received yet"
    updated = f"Updated {wording.clock(view.at, zone)}"
    if view.held:
        return f"{updated} · held"
    if view.stale:
        return f"{updated} · {view.age_seconds:.0f} s old"
    return f"{updated} · every 2 s"


# ---- acting ------------------------------------------------------------------------------------------------------


def acts_for(part: Part, scopes: frozenset[str]) -> list[str]:
    """The acts that make sense for a part, and that this operator may do."""
    if "ops:operate" not in scopes or (part.name in ADMIN_ONLY and "ops:admin" not in scopes):
        return []
    if part.state == "paused":
        return ["Resume", "Kill", "Stop"]
    if part.pid is not None:
        return ["Kill", "Stop", "Restart", "Pause"]
    if part.wanted == "stopped" or part.state == "absent":
        return ["Start"]
    return ["Start", "Stop"]  # it waits after failures: try now, or leave it


def held(snapshot: Snapshot, scopes: frozenset[str]) -> list[Part]:
    """The parts that a fault holds now and that this operator may let go."""
    slots = {fault.target for fault in snapshot.faults}
    return [part for part in snapshot.parts if part.slot in slots and "Resume" in acts_for(part, scopes)]


def faults_on_deliveries(snapshot: Snapshot, scopes: frozenset[str]) -> int:
    """How many faults for messages there are that this operator may end: all of them, or none."""
    return sum(fault.kind != "pause" for fault in snapshot.faults) if "ops:operate" in scopes else 0


def needs_dialog(act: str, part: Part) -> bool:
    """Friction grows with damage: what harms nobody asks nothing, but for broker and auth it always asks."""
    return act not in _NO_DIALOG or part.name in ADMIN_ONLY


def needs_name(act: str, part: Part) -> bool:
    """Whether the part's name must be typed."""
    return act in _TYPED or part.name in ADMIN_ONLY


def consequence(act: str, name: str) -> str:
    """What an act does, in a sentence."""
    return {
        "Kill": f"{name} gets SIGKILL now, in the middle of whatever it does, and is started again by itself.",
        "Stop": f"{name} drains (10 s at most) and stays down until somebody starts it.",
        "Restart": f"{name} drains (10 s at most) and is started again.",
        "Pause": f"{name} stands still (SIGSTOP) and goes on by itself after 60 s, or when resumed.",
        "Start": f"{name} is started.",
        "Resume": f"{name} goes on.",
    }[act]


def blast_radius(snapshot: Snapshot, part: Part) -> str:
    """What is without this part meanwhile: `0 healthy instances left · publishes to 3 topics · 132 in flight`."""
    others = sum(
        one.name == part.name and one.instance != part.instance and one.state == "running" for one in snapshot.parts
    )
    words = [f"{wording.plural(others, 'healthy instance')} left"]
    if part.topics.publishes:
        topics = set(part.topics.publishes)
        listeners = sorted(
            {one.name for one in snapshot.parts if one.name != part.name and topics & set(one.topics.consumes)}
        )
        heard = f" that {_listed(listeners)} {'listens' if len(listeners) == 1 else 'listen'} to" if listeners else ""
        words.append(f"publishes to {wording.plural(len(topics), 'topic')}{heard}")
    if part.in_flight is not None:
        words.append(f"{wording.count(part.in_flight)} in flight")
    return " · ".join(words)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def total_up(view: View) -> str:
    """`11 of 13`, or a dash."""
    return wording.DASH if view.up is None else f"{view.up[0]} of {view.up[1]}"
