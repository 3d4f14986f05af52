"""Faults, dealt from shuffled decks by a seed: the same seed deals the same faults in the same order.

Three lanes work at the same time: the broker's, the clients' processes', the network's. Each fault says what shows that
it hit (a wait status, a state in /proc, packets dropped, connections torn); one that hit nothing does not count.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from histories.clock import WallClock
from histories.network import Region
from histories.records import Recorder
from histories.world import Actor, WorldError

HOUR = 3600.0
STOP_SEEN_SECONDS = 2.0
WORK_SECONDS_MAX = 60.0


class Nemesis:
    """What all lanes share: the history of faults, the end, and the first thing that went wrong."""

    def __init__(self, recorder: Recorder, seed: str) -> None:
        self._recorder = recorder
        self._seed = seed
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self.over = threading.Event()
        self.hits: Counter[str] = Counter()
        self.failure: Exception | None = None

    def random(self, lane: str) -> random.Random:
        """A lane's own, so that what one lane waits for changes nothing in another."""
        return random.Random(f"{self._seed}/{lane}")

    @property
    def seconds(self) -> float:
        """Since the start; for people."""
        return time.monotonic() - self._began

    def strike(self, kind: str, target: str, fault: Callable[[], str]) -> None:
        """Do it; `fault` says what shows that it hit, or "" if nothing does."""
        began = self.seconds
        evidence = fault()
        with self._lock:
            self.hits[kind] += bool(evidence)
            self._recorder.say(
                "fault", kind=kind, target=target, began=round(began, 3), ended=round(self.seconds, 3),
                evidence=evidence,
            )  # fmt: skip

    def run(self, lane: Lane) -> threading.Thread:
        """Start a lane. What it raises ends everything."""

        def work() -> None:
            try:
                while not self.over.wait(lane.pause()):
                    lane.strike()
            except Exception as error:
                self.failure = self.failure or error
                self.over.set()

        thread = threading.Thread(target=work, name=type(lane).__name__)
        thread.start()
        return thread


@dataclass(frozen=True)
class Card:
    """One kind of fault and how many of it are in a deck."""

    kind: str
    count: int


class Lane(ABC):
    """Deals its deck, and shuffles it again when it is empty: no kind stays away for long."""

    deck: Sequence[Card] = ()
    pause_seconds = (0.5, 2.0)

    def __init__(self, nemesis: Nemesis) -> None:
        self.nemesis = nemesis
        self.random = nemesis.random(type(self).__name__)
        self._left: list[str] = []

    def pause(self) -> float:
        """Seconds until the next one."""
        return self.random.uniform(*self.pause_seconds)

    def draw(self) -> str:
        """The next kind."""
        if not self._left:
            self._left = [card.kind for card in self.deck for _ in range(card.count)]
            self.random.shuffle(self._left)
        return self._left.pop()

    @abstractmethod
    def strike(self) -> None:
        """Draw one and do it."""


class BrokerLane(Lane):
    """Upon the broker: kill, stop, clean restart, a storm of kills, clock jumps."""

    deck = (
        Card("kill broker", 6), Card("stop broker", 3), Card("restart storm", 2), Card("restart broker", 1),
        Card("clock +1 h", 2), Card("clock -1 h", 2),
    )  # fmt: skip
    pause_seconds = (1.0, 4.0)

    def __init__(self, nemesis: Nemesis, broker: Actor, clock: WallClock, progress: Callable[[], object]) -> None:
        super().__init__(nemesis)
        self._broker = broker
        self._clock = clock
        self._progress = progress
        self._before: object = None

    def strike(self) -> None:
        kind, chance = self.draw(), self.random.random()
        self._wait_for_work()
        with self._broker.lock:
            if kind == "kill broker":
                self.nemesis.strike(kind, "broker", lambda: self._kill(1, chance))
            elif kind == "restart storm":
                self.nemesis.strike(kind, "broker", lambda: self._kill(3 + int(chance * 4), chance))
            elif kind == "restart broker":
                self.nemesis.strike(kind, "broker", self._restart)
            elif kind == "stop broker":
                self.nemesis.strike(kind, "broker", lambda: stop(self._broker, 0.5 + 5 * chance))
            else:
                hours = 1 if "+" in kind else -1
                self.nemesis.strike(kind, "broker", lambda: self._jump(hours * HOUR, 0.5 + 3 * chance))

    def _wait_for_work(self) -> None:
        """A broker that has acknowledged nothing since the last fault has nothing to lose: it gets time to."""
        deadline = time.monotonic() + WORK_SECONDS_MAX
        while self._progress() == self._before:
            if time.monotonic() > deadline:
                raise WorldError(f"nothing was acknowledged within {WORK_SECONDS_MAX:g} s of the last fault")
            if self.nemesis.over.wait(0.05):
                return
        self._before = self._progress()

    def _kill(self, times: int, chance: float) -> str:
        """So many times; each life but the last is cut short somewhere between its first instruction and its work."""
        codes = []
        for left in reversed(range(times)):
            codes.append(self._broker.kill())
            time.sleep(chance * 0.4 if times == 1 else 0)
            self._broker.start()
            if left:
                time.sleep(self.random.uniform(0.05, 1.5))
        self._broker.wait_ready()
        return f"wait status {codes}" if set(codes) == {-signal.SIGKILL} else ""

    def _restart(self) -> str:
        code = self._broker.end()
        if code != 0:
            raise WorldError(f"the broker was told to end and exited {code}: {self._broker.last_words()}")
        self._broker.start()
        self._broker.wait_ready()
        return "exit code 0"

    def _jump(self, seconds: float, lasting: float) -> str:
        before = self._clock.answered
        self._clock.shift(seconds)
        time.sleep(lasting)
        asked = self._clock.answered - before
        self._clock.shift(0)
        return f"the clock was asked {asked} times" if asked else ""


class ClientLane(Lane):
    """Upon publishers, consumers, the island: kill, and stop for longer than a lease or a session lasts."""

    deck = (Card("kill", 5), Card("stop", 4))
    pause_seconds = (0.4, 1.6)

    def __init__(self, nemesis: Nemesis, actors: Sequence[Actor]) -> None:
        super().__init__(nemesis)
        self._actors = actors
        self._next: dict[str, list[Actor]] = {}

    def draw_actor(self, kind: str) -> Actor:
        """Whom it hits, from a deck of this kind's own: nobody is spared one kind for long, the one island neither."""
        left = self._next.setdefault(kind, [])
        if not left:
            left.extend(self._actors)
            self.random.shuffle(left)
        return left.pop()

    def strike(self) -> None:
        kind = self.draw()
        actor, chance = self.draw_actor(kind), self.random.random()
        with actor.lock:
            sort = actor.name.split("-")[0]
            if kind == "kill":
                self.nemesis.strike(f"kill {sort}", actor.name, lambda: _kill_and_start(actor, chance))
            else:
                self.nemesis.strike(f"stop {sort}", actor.name, lambda: stop(actor, 0.3 + 4 * chance))


class NetworkLane(Lane):
    """Between the regions and the broker: cut one way or the other, or tear the connections."""

    deck = (Card("cut to the broker", 3), Card("cut from the broker", 3), Card("reset", 3))
    pause_seconds = (0.5, 2.5)

    def __init__(self, nemesis: Nemesis, regions: Sequence[Region]) -> None:
        super().__init__(nemesis)
        self._regions = regions

    def strike(self) -> None:
        kind, region, chance = self.draw(), self.random.choice(self._regions), self.random.random()
        if kind == "reset":
            self.nemesis.strike(kind, region.name, lambda: _torn(region))
        else:
            direction = kind.removeprefix("cut ")
            self.nemesis.strike(kind, region.name, lambda: self._cut(region, direction, 0.3 + 6 * chance))

    def _cut(self, region: Region, direction: str, lasting: float) -> str:
        heal = region.cut(direction)
        self.nemesis.over.wait(lasting)
        dropped = heal()
        return f"{dropped} packets dropped" if dropped else ""


def stop(actor: Actor, seconds: float) -> str:
    """SIGSTOP for so long, whatever happens meanwhile; then SIGCONT."""
    actor.signal(signal.SIGSTOP)
    try:
        deadline = time.monotonic() + STOP_SEEN_SECONDS
        while not (stopped := actor.is_stopped()) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(seconds)
    finally:
        actor.signal(signal.SIGCONT)
    return f"stopped for {seconds:.1f} s" if stopped else ""


def _kill_and_start(actor: Actor, chance: float) -> str:
    code = actor.kill()
    time.sleep(chance)
    actor.start()
    return f"wait status {code}" if code == -signal.SIGKILL else ""


def _torn(region: Region) -> str:
    count = region.reset()
    return f"{count} connections torn" if count else ""
