"""The broker dies at each of its syscalls, in the middle of a scripted run, and keeps its word all the same.

A kill takes nothing that write() has got, so what is proven here is the order of things: nothing is promised before it
is written, and whatever is half written is seen for what it is. That it is on the disk is for a power cut to show.
"""

from __future__ import annotations

import random
import signal
from contextlib import suppress
from pathlib import Path

from measured import say
from syscalls.clients import Cast, DiedError
from syscalls.ground import MESH, MESH_THAT_TRIMS, Ground
from syscalls.lives import Counts, Nurseries, Trial
from syscalls.processes import Part, Point, armed, counting
from syscalls.verdict import assert_word_kept

#: Sizes of the PUBs of a round: one event, a batch, one after the other and two on their way.
SIZES = (1, 3, 1, 4, 2, 1)
KEYS = 4
PLANTED = Path(__file__).parent / "planted"
WRITES = ("write", "pwrite64", "fdatasync")
#: What a publisher says whose broker has forgotten what it acknowledged (clients.Publisher).
LOST = "; the broker has "


class Brokers:
    """A Life: brokers over one data directory."""

    def __init__(
        self, nurseries: Nurseries, folder: Path, *, mesh: str = MESH, lenient: bool = False, plant: Path | None = None
    ) -> None:
        self._nursery = nurseries.of("broker", "atoll_broker.__main__")
        self._plant = plant
        self.ground = Ground(folder, mesh)
        self.cast = Cast(self.ground, lenient)
        self.shots = folder / "strace"
        self.broker = self.start()

    def start(self, *, held: bool = False) -> Part:
        """Another broker over the same data."""
        return self._nursery.start(self.ground.environment, self.ground.folder, plant=self._plant, held=held)

    @property
    def acked(self) -> int:
        """See Life."""
        return self.cast.publisher.acked

    def round(self) -> None:
        """One undisturbed round."""
        self.cast.plan(SIZES, KEYS)
        self.cast.play(self.broker)
        assert_word_kept(self.cast)

    def count(self) -> Counts:
        """See Life."""
        self._prepare("writer")
        with counting(self.broker, self.shots) as counts:
            self.cast.play(self.broker)
        assert_word_kept(self.cast)
        return counts

    def crash(self, point: Point) -> bool:
        """See Life."""
        died = self.die(point)
        if died:
            self.recover()
        else:
            assert_word_kept(self.cast)
        return died

    def die(self, point: Point) -> bool:
        """One round with a kill at that point. Whether it hit; then `recover` comes next."""
        self._prepare(point.role)
        with armed(self.broker, point, self.shots) as shot, suppress(DiedError):
            self.cast.play(self.broker)
        return shot.killed()

    def recover(self) -> None:
        """The next broker, untraced, goes through what is left of the round."""
        self.replace()
        self.cast.play(self.broker)
        assert_word_kept(self.cast)

    def _prepare(self, role: str) -> None:
        """Plan a round that begins with connections and HELLOs, over a broker that has such a thread."""
        if role not in self.broker.threads():
            self.round()  # the writer thread comes with the first commit
        self.cast.hang_up()
        self.cast.plan(SIZES, KEYS)

    def replace(self, *, held: bool = False) -> None:
        """The next broker, in the place of one that is dead or dies now."""
        self.cast.hang_up()
        self.broker.end()
        self.broker = self.start(held=held)

    def end(self) -> None:
        """See Life."""
        self.cast.close()
        self.broker.end()


class Starts(Brokers):
    """A Life whose brokers die while they start, and in what they do first, over what a kill in full work has left."""

    def __init__(self, nurseries: Nurseries, folder: Path) -> None:
        super().__init__(nurseries, folder)
        self._chance = random.Random(folder.name)

    def _interrupt(self) -> None:
        """Kill the broker in the middle of a round."""
        self._prepare("writer")
        somewhere = Point("writer", "pwrite64", self._chance.randint(1, 30))
        with armed(self.broker, somewhere, self.shots), suppress(DiedError):
            self.cast.play(self.broker)
        self.replace(held=True)

    def count(self) -> Counts:
        """See Life."""
        self._interrupt()
        with counting(self.broker, self.shots) as counts:
            self.broker.signal(signal.SIGCONT)
            self.cast.play(self.broker)
        assert_word_kept(self.cast)
        return counts

    def crash(self, point: Point) -> bool:
        """See Life."""
        self._interrupt()
        return self._crash_at_start(point)

    def _crash_at_start(self, point: Point) -> bool:
        with armed(self.broker, point, self.shots) as shot, suppress(DiedError):
            self.broker.signal(signal.SIGCONT)
            self.cast.play(self.broker)
        died = shot.killed()
        if died:
            self.replace()
            self.cast.play(self.broker)
        self.round()  # and it goes on
        return died


class FirstStarts(Starts):
    """The same over nothing: a directory that is not there yet."""

    def __init__(self, nurseries: Nurseries, folder: Path) -> None:
        self._first = True
        super().__init__(nurseries, folder)

    def start(self, *, held: bool = False) -> Part:
        """The first one is held."""
        first, self._first = self._first, False
        return super().start(held=held or first)

    def _interrupt(self) -> None:
        self.cast.plan(SIZES, KEYS)

    def crash(self, point: Point) -> bool:
        """See Life."""
        self._interrupt()
        return self._crash_at_start(point)


def test_no_acked_event_is_lost_wherever_the_broker_dies(tmp_path: Path) -> None:
    trial = Trial("broker", "wherever_the_broker_dies", Brokers, tmp_path, kinds=("sendto", *WRITES))
    trial.run()
    trial.assert_word_kept()


def test_no_acked_event_is_lost_where_the_log_is_trimmed_and_checkpointed(tmp_path: Path) -> None:
    def begin(nurseries: Nurseries, folder: Path) -> Brokers:
        plant = PLANTED / "checkpoints_often.py"
        return Brokers(nurseries, folder, mesh=MESH_THAT_TRIMS, lenient=True, plant=plant)

    roles, kinds = ("writer",), ("ftruncate", *WRITES)
    trial = Trial("broker that trims", "trimmed_and_checkpointed", begin, tmp_path, roles=roles, kinds=kinds)
    trial.run()
    trial.assert_word_kept()


def test_a_broker_that_dies_while_it_starts_can_start_again(tmp_path: Path) -> None:
    roles, kinds = ("main",), ("fsync", "ftruncate", "openat", "sendto", *WRITES)
    trial = Trial("broker's start after a kill", "dies_while_it_starts", Starts, tmp_path, roles=roles, kinds=kinds)
    trial.run()
    trial.assert_word_kept()


def test_a_broker_that_dies_in_its_first_start_can_start_again(tmp_path: Path) -> None:
    roles, kinds = ("main",), ("mkdir", "unlink", "chmod", "fsync", "sendto", *WRITES)
    trial = Trial("broker's first start", "first_start", FirstStarts, tmp_path, roles, crashes_a_life=1, kinds=kinds)
    trial.run()
    trial.assert_word_kept()


def test_an_ack_before_the_commit_is_caught(tmp_path: Path) -> None:
    """The control: a broker that promises first and writes then must be found out by the same run."""

    def begin(nurseries: Nurseries, folder: Path) -> Brokers:
        return Brokers(nurseries, folder, plant=PLANTED / "acks_before_commit.py")

    trial = Trial(
        "ack before commit, planted", "ack_before_the_commit", begin, tmp_path, roles=("behind",), points_max=40
    )
    trial.run()
    failures = trial.tally.failures
    losses = [failure for failure in failures if LOST in failure]
    say(f"{trial.title}: caught at {len(failures)} points, at {len(losses)} by the mark that fell back")
    assert losses, f"a broker that acknowledges first went unnoticed; other failures: {failures}"
