"""A service on the SDK dies at each of its syscalls: its relay between append and PUBACK, its consumer between effect
and ACK. Both tell of it in the end: what its database holds, and what a group downstream was told.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from contextlib import closing, suppress
from pathlib import Path

import pytest
import zmq

from fleet import REPOSITORY, http
from measured import say
from polling import poll_until
from syscalls.clients import Client, Consumer, DiedError, Operator, Publisher
from syscalls.ground import KEPT, MESH_OF_DESK, Ground
from syscalls.lives import Counts, Nurseries, Trial
from syscalls.processes import Part, Point, armed, counting

NURSERY = Path(__file__).parent / "nursery"
PLANTED = Path(__file__).parent / "planted"
CHAOS_PLANTED = REPOSITORY / "tests" / "chaos" / "planted"
SIZES = (1, 3, 1, 2)
KEYS = 3
KINDS = ("write", "pwrite64", "fdatasync", "sendto")
PLAY_SECONDS_MAX = 15.0
START_SECONDS_MAX = 10.0
#: For effects that come after their ACK, which is what a planted fault does.
LATE_SECONDS = 1.0


class Desk(ABC):
    """A Life: processes of one service over its database, beside a broker that lives on."""

    def __init__(self, nurseries: Nurseries, folder: Path, *, plant: Path | None = None) -> None:
        self.ground = Ground(folder, MESH_OF_DESK)
        self._environment = self.ground.make_desk()
        self._nursery = nurseries.of("orders", "desk", NURSERY)
        self._plant = plant
        self._shots = folder / "strace"
        self.broker = nurseries.of("broker", "atoll_broker.__main__").start(self.ground.environment, folder)
        self.bank = Consumer("bank", folder, KEPT)
        self.operator = Operator()
        self.desk = self._start()
        self.round()  # its threads, its database and its first session

    def _start(self) -> Part:
        """A new process, with all its threads and a session."""
        desk = self._nursery.start(self._environment, self.ground.desk, plant=self._plant)
        ready = f"http://127.0.0.1:{self.ground.desk_port}/ready"
        poll_until(
            "the service to be ready",
            lambda: http("GET", ready, seconds=2).body,
            lambda seen: seen["ready"] and not seen["degraded"],
            seconds=START_SECONDS_MAX,
            every=0.01,
        )
        return desk

    # ---- the script ----------------------------------------------------------------------------------------------

    @property
    def people(self) -> tuple[Client, ...]:
        """Who talks to the broker."""
        return self.bank, self.operator

    @property
    @abstractmethod
    def acked(self) -> int:
        """See Life."""

    @abstractmethod
    def plan(self) -> None:
        """One more round."""

    @abstractmethod
    def push(self) -> bool:
        """Do the next thing of the plan; whether nothing is left of it."""

    @abstractmethod
    def wanted(self) -> list[tuple[str, str, int]]:
        """(id, key, n) of every effect that there should be."""

    def play(self) -> None:
        """Go on until nothing is on its way. Raises DiedError when the service has ended."""
        deadline = time.monotonic() + PLAY_SECONDS_MAX
        poller = zmq.Poller()
        poller.register(self.desk.pidfd, zmq.POLLIN)
        for one in self.people:
            if one.line is None:
                one.connect(self.ground)
            assert one.line is not None
            poller.register(one.line.socket, zmq.POLLIN)
        while not self._turn():
            if self.desk.dead:
                raise DiedError
            assert time.monotonic() < deadline, (
                f"the script did not end: {self._on_its_way()}\n{self.desk.last_words()}"
            )
            poller.poll(10)

    def _turn(self) -> bool:
        for one in self.people:
            one.receive()
            one.advance()
        return self.push() and all(one.up for one in self.people) and not self._on_its_way()

    def _on_its_way(self) -> dict[str, int]:
        """What is left, looked at in the order in which it moves: nothing can slip by behind the look."""
        return self._lag("desk") or self._outbox() or self._lag("bank")

    def _lag(self, group: str) -> dict[str, int]:
        lag = int(self.operator.ask("groups")["groups"][group]["lag"])
        self.bank.receive()
        return {group: lag} if lag else {}

    def _outbox(self) -> dict[str, int]:
        count = self._read("SELECT count(*) FROM atoll_outbox")[0][0]
        return {"outbox": int(str(count))} if count else {}

    def _read(self, sql: str) -> list[tuple[object, ...]]:
        uri = f"file:{self.ground.desk / 'data' / 'desk.db'}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=5)) as database:
            return database.execute(sql).fetchall()

    # ---- the crash -----------------------------------------------------------------------------------------------

    def round(self) -> None:
        """One undisturbed round."""
        self.plan()
        self.play()
        self.assert_word_kept(seconds=10)  # nothing was killed: late is not lost

    def count(self) -> Counts:
        """See Life."""
        self.plan()
        with counting(self.desk, self._shots) as counts:
            self.play()
        self.assert_word_kept(seconds=10)
        return counts

    def crash(self, point: Point) -> bool:
        """See Life."""
        self.plan()
        with armed(self.desk, point, self._shots) as shot, suppress(DiedError):
            self.play()
        died = shot.killed()
        if died:
            self.desk.end()
            self.desk = self._start()
            self.play()
        self.assert_word_kept()
        return died

    def end(self) -> None:
        """See Life."""
        for one in self.people:
            one.disconnect()
        self.bank.close()
        self.desk.end()
        self.broker.end()

    # ---- the verdict ---------------------------------------------------------------------------------------------

    def assert_word_kept(self, seconds: float = LATE_SECONDS) -> None:
        """Every effect once, here and downstream, in the order of its key; the outbox empty."""
        poll_until("each effect, once", self._books_balance, seconds=seconds, every=0.02)

    def _books_balance(self) -> bool:
        for one in self.people:
            one.receive()
        wanted = self.wanted()
        rows = self._read("SELECT id, key, n FROM effect ORDER BY position")
        _assert_once_each("effects", [(str(one), str(key), int(str(n))) for one, key, n in rows], wanted)
        downstream = [(f"{key}/{n}", key, n) for _, key, n in self.bank.effects()]
        _assert_once_each("told downstream", downstream, [(f"{key}/{n}", key, n) for _, key, n in wanted])
        assert self._outbox() == {}, "the outbox is not empty"
        return True


def _assert_once_each(what: str, found: list[tuple[str, str, int]], wanted: list[tuple[str, str, int]]) -> None:
    lost = sorted(set(wanted) - set(found))
    assert not lost, f"{what}: {len(lost)} of {len(wanted)} lost: {lost[:5]}"
    twice = [one for one, times in Counter(found).items() if times > 1]
    assert not twice, f"{what}: more than once: {twice[:5]}"
    assert len(found) == len(wanted), f"{what}: {len(found)}, wanted {len(wanted)}"
    by_key: dict[str, list[int]] = defaultdict(list)
    for _, key, n in found:
        by_key[key].append(n)
    assert all(numbers == sorted(numbers) for numbers in by_key.values()), f"{what}: out of order: {by_key}"


class Consuming(Desk):
    """Events come by the bus; each is one effect and one event more."""

    def __init__(self, nurseries: Nurseries, folder: Path, *, plant: Path | None = None) -> None:
        self.shop = Publisher()
        super().__init__(nurseries, folder, plant=plant)

    @property
    def people(self) -> tuple[Client, ...]:
        """See Desk."""
        return self.shop, *super().people

    @property
    def acked(self) -> int:
        """See Life."""
        return self.shop.acked

    def plan(self) -> None:
        """See Desk."""
        self.shop.plan(SIZES, KEYS, spoiled=-1)

    def push(self) -> bool:
        """See Desk."""
        return self.shop.done

    def wanted(self) -> list[tuple[str, str, int]]:
        """See Desk."""
        return [(one.id, one.event["subject"], one.pseq) for one in self.shop.made]


class Relaying(Desk):
    """Notes come by HTTP; each is one row and one event. A request without an answer is sent again."""

    def __init__(self, nurseries: Nurseries, folder: Path, *, plant: Path | None = None) -> None:
        self._numbers = itertools.count(1)
        self._requests: list[list[tuple[str, str, int]]] = []
        self._answered = 0
        super().__init__(nurseries, folder, plant=plant)

    @property
    def acked(self) -> int:
        """See Life."""
        return sum(map(len, self._requests[: self._answered]))

    def plan(self) -> None:
        """See Desk."""
        for size in SIZES:
            numbers = itertools.islice(self._numbers, size)
            self._requests.append([(f"note-{n}", f"o-{n % KEYS}", n) for n in numbers])

    def push(self) -> bool:
        """See Desk."""
        if self._answered < len(self._requests):
            notes = [{"id": one, "key": key, "n": n} for one, key, n in self._requests[self._answered]]
            with suppress(OSError):  # it is not there yet, or died with the request
                url = f"http://127.0.0.1:{self.ground.desk_port}/notes"
                self._answered += http("POST", url, body={"notes": notes}, seconds=5).status == 202
        return self._answered == len(self._requests)

    def wanted(self) -> list[tuple[str, str, int]]:
        """See Desk."""
        return [note for request in self._requests for note in request]


def test_the_relay_loses_nothing_and_sends_nothing_twice_wherever_it_dies(tmp_path: Path) -> None:
    trial = Trial("relay", "the_relay_loses_nothing", Relaying, tmp_path, kinds=KINDS)
    trial.run()
    trial.assert_word_kept()


def test_an_event_has_one_effect_wherever_its_consumer_dies(tmp_path: Path) -> None:
    trial = Trial("consumer", "one_effect_wherever", Consuming, tmp_path, kinds=KINDS)
    trial.run()
    trial.assert_word_kept()


@pytest.mark.parametrize(
    ("life", "plant"),
    [
        (Consuming, CHAOS_PLANTED / "ack_before_commit" / "sitecustomize.py"),
        (Relaying, PLANTED / "relay_settles_first.py"),
    ],
    ids=["an ack before the commit", "a relay that settles first"],
)
def test_a_planted_fault_is_caught(tmp_path: Path, life: type[Desk], plant: Path) -> None:
    """The control: the same run must find out a service that promises what it has not done."""

    def begin(nurseries: Nurseries, folder: Path) -> Desk:
        return life(nurseries, folder, plant=plant)

    title = f"{plant.stem if plant.stem != 'sitecustomize' else plant.parent.name}, planted"
    trial = Trial(title, "a_planted_fault", begin, tmp_path, roles=("write",), points_max=10)
    trial.run()
    say(f"{title}: caught at {len(trial.tally.failures)} points")
    assert trial.tally.failures, "a service that promises first went unnoticed"
