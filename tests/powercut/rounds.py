"""One round: boot, check what was promised, publish and consume, lose power."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import zmq

from brokers import Broker, nursery
from parties import BrokenPromiseError, Consumer, Publisher, check_group
from plug import Plug, forgetful_disk
from rawbus import Peer

SEED = int(os.environ.get("ATOLL_SEED", "5"))
PLANTED = Path(__file__).parent / "planted"
_ROUND_SECONDS_MAX = 30.0
_DRAIN_SECONDS_MAX = 60.0


class EndedError(Exception):
    """The broker ended by itself."""


@dataclass(frozen=True)
class Moment:
    """When the power goes. `point`: write, before-sync, after-sync, or idle (`count` events acked, then quiet)."""

    point: str
    suffix: str
    count: int

    def __str__(self) -> str:
        return f"{self.count}. {self.point} of *{self.suffix}" if self.point != "idle" else f"idle, {self.count} acked"


#: What hits a commit, and how far on: a commit of some batches is ~40 writes and one fsync.
ANY = ("write", "write", "write", "before-sync", "after-sync", "idle", "checkpoint")


def choose(dice: Random, points: tuple[str, ...] = ANY) -> Moment:
    """A moment of the next round."""
    point = dice.choice(points)
    if point == "idle":
        return Moment(point, "", dice.randint(30, 90))
    if point == "checkpoint":
        return Moment(dice.choice(("write", "before-sync", "after-sync")), ".sqlite", dice.randint(1, 3))
    if point == "write":
        return Moment(point, "-wal", dice.randint(60, 400))
    return Moment(point, "-wal", dice.randint(2, 8))


@dataclass
class Machine:
    """One broker on one disk, with the peers that watch it."""

    broker: Broker
    plug: Plug
    publisher: Publisher
    consumer: Consumer

    def round(self, moment: Moment) -> None:
        """Boot, check, work until the power goes, and plug in again. Raises BrokenPromiseError."""
        self.boot()
        with Peers(self.broker, "shop", "bank", "control") as peers:
            self.meet(peers)
            self.plug.victims([self.broker.pid])
            if moment.point != "idle":
                self.plug.arm(moment.point, moment.suffix, moment.count)
            self._work(peers, moment)
        ended = self.broker.wait()
        assert ended == -signal.SIGKILL, f"the broker ended with {ended} by itself: {self.broker.words()}"
        self.plug.on()

    def boot(self) -> None:
        """Start. A refusal to start is a broken promise here: the disk did nothing that a disk may not do."""
        code = self.broker.start()
        if code is not None:
            raise BrokenPromiseError(f"the broker refused to start, exit {code}: {self.broker.last_word()}")

    def meet(self, peers: Peers) -> None:
        """Everybody says HELLO, and looks whether all that was promised is there."""
        self.publisher.meet(peers["shop"])
        command, _ = peers["control"].hello("control", producer=None)
        assert command == "WELCOME"
        check_group(peers["control"], self.consumer, self.publisher.acked)
        self.consumer.meet(peers["bank"])

    def peers(self, *identities: str) -> Peers:
        """Sockets of these."""
        return Peers(self.broker, *identities)

    def _work(self, peers: Peers, moment: Moment) -> None:
        upto = self.publisher.acked + moment.count if moment.point == "idle" else None
        poller = peers.poller(self.broker.end)
        deadline = time.monotonic() + _ROUND_SECONDS_MAX
        while True:
            self.publisher.publish(upto)
            ready = dict(poller.poll(200))
            if self.broker.end.fileno() in ready:
                return
            self.consumer.hear()
            others = self.publisher.hear()
            assert all(other["command"] == "PUBNACK" for other in others), others
            if self.publisher.acked == upto:
                self.plug.cut()
                upto = -1
            assert time.monotonic() < deadline, f"waited {_ROUND_SECONDS_MAX} s for {moment}; {self.plug.status()}"

    def drain(self, consumer: Consumer, identity: str) -> None:
        """Take all that the log holds for a group, which must be every event up to the mark."""
        with Peers(self.broker, identity) as peers:
            consumer.meet(peers[identity])
            poller = peers.poller()
            wanted = set(range(1, self.publisher.acked + 1))
            deadline = time.monotonic() + _DRAIN_SECONDS_MAX
            while wanted - consumer.acked:
                poller.poll(200)
                consumer.hear()
                if self.broker.has_ended():
                    raise EndedError
                left = sorted(wanted - consumer.acked)
                if time.monotonic() > deadline:
                    raise BrokenPromiseError(f"{identity} was never given {left[:20]} ({len(left)} in all)")


class Peers:
    """Sockets that are closed at the end."""

    def __init__(self, broker: Broker, *identities: str) -> None:
        self._connect: Callable[[str], Peer] = broker.connect
        self._identities = identities
        self._peers: dict[str, Peer] = {}

    def __enter__(self) -> Peers:
        self._peers = {identity: self._connect(identity) for identity in self._identities}
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self._peers.values():
            peer.close()

    def __getitem__(self, identity: str) -> Peer:
        return self._peers[identity]

    def poller(self, *more: object) -> zmq.Poller:
        """Of all of them and of more."""
        poller = zmq.Poller()
        for peer in self._peers.values():
            poller.register(peer.socket, zmq.POLLIN)
        for other in more:
            poller.register(other, zmq.POLLIN)
        return poller


@contextmanager
def machine(folder: Path, python: Path, planted: str = "") -> Iterator[Machine]:
    """A broker on a disk that forgets."""
    loaded = PLANTED / planted if planted else None
    with forgetful_disk(folder, SEED) as (disk, plug), nursery(python, loaded) as births:
        broker = Broker(folder, disk / "data", births)
        yield Machine(broker, plug, Publisher(), Consumer("bank", Random(SEED), keeps_back=0.02))
