"""What the conformance cases run against: the core in memory on virtual time, and the broker's process over CURVE."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import zmq
from conformance import Case, Frames, mesh_of

from atoll_broker.__main__ import main
from atoll_broker.storage import Storage
from atoll_broker.testing import POLL_SECONDS, START_SECONDS_MAX, STOP_SECONDS_MAX, MemoryBroker, Peer, RealBroker

CONNECT_MS = 5000


class MemoryDriver:
    """Answers come before `send` returns; time moves when it is told to."""

    least_ms = 500  # of its own time; a group commit takes 50

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self._peers: dict[str, Peer] = {}

    def open(self, peer: str, identity: str) -> None:
        self._peers[peer] = self.broker.connect(identity)

    def close(self, peer: str) -> None:
        self._peers[peer].close()

    def send(self, peer: str, frames: Frames) -> None:
        if self._peers[peer].open:
            self._peers[peer].send(frames)

    def receive(self, peer: str) -> list[Frames]:
        return self._peers[peer].frames()

    def wait(self, seconds: float) -> float:
        self.broker.advance(seconds)
        return seconds

    def restart(self, *, clean: bool) -> None:
        if clean:
            self.broker.core.farewell()
            self.broker.turn()

    def start(self) -> None:
        self.broker.restart()


class ForkedBroker(RealBroker):
    """The broker's `main` in a process of its own, forked from one that has imported it: a case takes a tenth of the
    time, and nothing else differs."""

    def __init__(self, directory: Path, mesh: str) -> None:
        super().__init__(directory, mesh)
        self._forked: ForkServerProcess | None = None

    async def start(self) -> None:
        self._forked = _FORKS.Process(target=_serve, args=(self.environment, self.log_path), daemon=True)
        self._forked.start()
        deadline = time.monotonic() + START_SECONDS_MAX
        while not await asyncio.to_thread(self._is_ready):
            assert self._forked.exitcode is None, f"the broker ended with {self._forked.exitcode}: {self._last_words()}"
            assert time.monotonic() < deadline, f"the broker was not ready within {START_SECONDS_MAX:g} s"
            await asyncio.sleep(POLL_SECONDS)

    async def _end(self, number: signal.Signals) -> int:
        forked = self._forked
        if forked is None or forked.exitcode is not None:
            return 0
        assert forked.pid is not None
        os.kill(forked.pid, number)
        await asyncio.to_thread(forked.join, STOP_SECONDS_MAX)
        assert forked.exitcode is not None, f"the broker did not end within {STOP_SECONDS_MAX:g} s of {number.name}"
        return forked.exitcode


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["atoll_broker.__main__", "conformance_drivers"])


def _serve(environment: dict[str, str], log: Path) -> None:
    os.environ.update(environment)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    sys.exit(main())


class ProcessDriver:
    """One DEALER a peer, read by one thread; time is the real one."""

    least_ms = 5000

    def __init__(self, broker: RealBroker, runner: asyncio.Runner) -> None:
        self.broker = broker
        self._runner = runner
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._unread: dict[str, list[Frames]] = {}
        self._poller = zmq.Poller()

    def open(self, peer: str, identity: str) -> None:
        """Returns when its handshake is done."""
        made = self._context.socket(zmq.DEALER)
        for option, value in ((zmq.RECONNECT_IVL, -1), (zmq.IMMEDIATE, 1), (zmq.LINGER, 0)):
            made.setsockopt(option, value)
        keys = self.broker.keys(identity)
        made.curve_publickey = (keys / "curve.public").read_bytes()[:40]
        made.curve_secretkey = (keys / "curve.secret").read_bytes()[:40]
        made.curve_serverkey = (keys / "broker.public").read_bytes()[:40]
        made.connect(self.broker.endpoint)
        assert made.poll(CONNECT_MS, zmq.POLLOUT), f"{peer} is not connected within {CONNECT_MS} ms"
        self._sockets[peer], self._unread[peer] = made, []
        self._poller.register(made, zmq.POLLIN)

    def close(self, peer: str) -> None:
        gone = self._sockets.pop(peer)
        self._poller.unregister(gone)
        gone.close()

    def send(self, peer: str, frames: Frames) -> None:
        with contextlib.suppress(zmq.Again):  # a socket that has lost its connection takes nothing more
            self._sockets[peer].send_multipart(frames, zmq.NOBLOCK)

    def receive(self, peer: str) -> list[Frames]:
        self._read()
        found, self._unread[peer] = self._unread[peer], []
        return found

    def wait(self, seconds: float) -> float:
        began = time.monotonic()
        self._poller.poll(int(seconds * 1000) + 1)
        return time.monotonic() - began

    def restart(self, *, clean: bool) -> None:
        self._runner.run(self._stop() if clean else self.broker.kill())

    async def _stop(self) -> None:
        """Reads on meanwhile: libzmq drops what is unread when a connection goes."""
        stopping = asyncio.create_task(self.broker.stop())
        while not stopping.done():
            self._read()
            await asyncio.sleep(0.002)
        assert await stopping == 0

    def start(self) -> None:
        self._runner.run(self.broker.start())

    def end(self) -> None:
        self._context.destroy(linger=0)

    def _read(self) -> None:
        for peer, one in self._sockets.items():
            with contextlib.suppress(zmq.Again):
                while True:
                    self._unread[peer].append(one.recv_multipart(zmq.NOBLOCK))


@contextlib.contextmanager
def memory(case: Case, storage: Storage | None = None) -> Iterator[MemoryDriver]:
    """A broker for one case."""
    yield MemoryDriver(MemoryBroker(mesh_of(case), storage=storage))


@contextlib.contextmanager
def process(case: Case, folder: Path) -> Iterator[ProcessDriver]:
    """A broker for one case, killed at the end."""
    with asyncio.Runner() as runner:
        broker = ForkedBroker(folder, mesh_of(case))
        runner.run(broker.__aenter__())
        driver = ProcessDriver(broker, runner)
        try:
            yield driver
        finally:
            driver.end()
            runner.run(broker.kill())
