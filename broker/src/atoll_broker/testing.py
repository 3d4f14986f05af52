"""For tests of clients: the same core in memory with virtual time, and the real broker in a process of its own.

broker = MemoryBroker(mesh_text)                        async with RealBroker(tmp_path, mesh_text) as broker:
peer = broker.connect("orders")                             broker.endpoint, broker.keys("orders")
peer.send([b"A1HELLO", b"{…}"])                             await broker.kill(); await broker.restart()
peer.frames()      # what the broker answered
broker.advance(seconds=31)                              # leases end, nobody slept
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import zmq

from . import mesh as mesh_module
from .clock import TURN_SECONDS_MAX, Clock
from .core import Core
from .errors import StorageFullError
from .mesh import Mesh
from .storage import Storage
from .storage_memory import MemoryStorage

__all__ = ["MemoryBroker", "Peer", "RealBroker", "VirtualClock", "free_port"]

Frames = list[bytes]
Receiver = Callable[[Frames], None]
START_SECONDS_MAX: Final = 15.0
STOP_SECONDS_MAX: Final = 15.0
POLL_SECONDS: Final = 0.02
_PORTS_FROM: Final = 10_000


class VirtualClock:
    """Time that moves when it is told to."""

    def __init__(self, wall_ms: int = 1_795_000_000_000) -> None:
        self.seconds = 0.0
        self._wall_ms = wall_ms

    def monotonic(self) -> float:
        return self.seconds

    def wall_ms(self) -> int:
        return self._wall_ms + int(self.seconds * 1000)

    def move(self, seconds: float) -> None:
        self.seconds += seconds


class Peer:
    """One socket of one identity. `receiver`, if set, gets each message instead of `frames()`."""

    def __init__(self, broker: MemoryBroker, route: bytes, identity: str) -> None:
        self.identity = identity
        self.route = route
        self.open = True
        self.receiver: Receiver | None = None
        self._broker = broker
        self._inbox: list[Frames] = []

    def send(self, frames: Sequence[bytes]) -> None:
        """Hands the message to the broker, which answers before this returns (but see `MemoryBroker.hold_commits`)."""
        assert self.open, "a closed socket sends nothing"
        self._broker.deliver(self, list(frames))

    def say(self, command: str, payload: object = None, **header: object) -> None:
        """`send` with the JSON made here; `payload` is the list of events of a PUB."""
        frames = [b"A1" + command.encode(), msgspec.json.encode(header)]
        self.send(frames if payload is None else [*frames, msgspec.json.encode(payload)])

    def frames(self) -> list[Frames]:
        """The messages that came since the last call."""
        inbox, self._inbox = self._inbox, []
        return inbox

    def heard(self, command: str | None = None) -> list[dict[str, object]]:
        """`frames()` as headers, of one command or of all; a MSG's batch is added under `events`."""
        found = []
        for frames in self.frames():
            name = frames[0][2:].decode()
            header = {"command": name, **json.loads(frames[1])}
            if len(frames) == 3:
                header["events"] = json.loads(frames[2])
            if command in (None, name):
                found.append(header)
        return found

    def close(self) -> None:
        """The socket dies without a word; the broker learns of it when it next sends."""
        self.open = False

    def receive(self, frames: Frames) -> None:
        if self.receiver is not None:
            self.receiver(frames)
        else:
            self._inbox.append(frames)


class MemoryBroker:
    """The real core on memory and virtual time. `mesh`: the text of a mesh.toml, its path, or a Mesh.

    With `hold_commits = True` nothing reaches the "disk" until `commit()`, so that a test sees what is not acked yet.
    """

    def __init__(
        self, mesh: str | Path | Mesh, clock: VirtualClock | None = None, storage: Storage | None = None, seed: int = 0
    ) -> None:
        self.mesh = _mesh(mesh)
        self.clock = clock or VirtualClock()
        self.storage = storage or MemoryStorage()
        self.hold_commits = False
        self._random = random.Random(seed)  # noqa: S311 reproducible on purpose
        self._peers: dict[bytes, Peer] = {}
        self._routes = 0
        self._busy = False
        self.core = self._new_core()

    def _new_core(self) -> Core:
        clock: Clock = self.clock
        return Core(self.mesh, self.storage, clock, self._random)

    def connect(self, identity: str) -> Peer:
        self._routes += 1
        peer = Peer(self, b"route-%d" % self._routes, identity)
        self._peers[peer.route] = peer
        return peer

    def deliver(self, peer: Peer, frames: Frames) -> None:
        self.core.receive(peer.route, peer.identity, frames)
        self.turn()

    def advance(self, seconds: float) -> None:
        """Lets time pass in steps that the broker counts as served."""
        while seconds > 1e-9:
            step = min(seconds, TURN_SECONDS_MAX)
            self.clock.move(step)
            self.turn()
            seconds -= step

    def freeze(self, seconds: float) -> None:
        """The broker is stopped (SIGSTOP) for so long, and then goes on."""
        self.clock.move(seconds)
        self.turn()

    def turn(self) -> None:
        """One turn of the loop. A receiver that sends from within is served in the same turn."""
        if self._busy:
            return
        self._busy = True
        try:
            self._turn()
        finally:
            self._busy = False

    def _turn(self) -> None:
        self.core.tick()
        more = True
        while more:
            more = self.core.poll()
            more = self._flush() or more
            if not self.hold_commits:
                more = self.commit() or more
            more = self._search() or more

    def _flush(self) -> bool:
        out = self.core.take_out()
        for route, frames in out:
            peer = self._peers.get(route)
            if peer is None or not peer.open:
                self.core.unreachable(route, "its socket is gone")
            else:
                peer.receive(frames)
        return bool(out)

    def commit(self) -> bool:
        """Writes what waits, if anything is due. True if it did."""
        commit = self.core.take_commit()
        if commit is None:
            return False
        try:
            trimmed = self.storage.commit(commit.batch)
        except StorageFullError:
            self.core.disk_full(commit)
        else:
            self.core.committed(commit, trimmed)
        return True

    def _search(self) -> bool:
        lookups = self.core.take_lookups()
        for lookup in lookups:
            self.core.answered(lookup, lookup.ask())
        return bool(lookups)

    def release(self) -> None:
        """Ends `hold_commits`, and catches up."""
        self.hold_commits = False
        self.turn()

    def restart(self) -> None:
        """A new boot on the same storage; what was not committed is gone, and so is every socket."""
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        self.storage.close()
        self.core = self._new_core()


def _mesh(source: str | Path | Mesh) -> Mesh:
    if isinstance(source, Mesh):
        return source
    return mesh_module.load(source) if isinstance(source, Path) else mesh_module.parse(source)


class RealBroker:
    """`python -m atoll_broker` on loopback, with keys made for every identity of the mesh.

    `keys(identity)` is a directory as ATOLL_KEYS expects it: curve.secret, curve.public, broker.public.
    """

    def __init__(self, directory: Path, mesh: str | Path) -> None:
        self._directory = directory
        self._mesh_path = mesh if isinstance(mesh, Path) else directory / "mesh.toml"
        self._mesh_text = mesh if isinstance(mesh, str) else None
        self._process: asyncio.subprocess.Process | None = None
        self.endpoint = ""
        self.http = ""
        self.log_path = directory / "broker.log"

    async def __aenter__(self) -> RealBroker:
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._mesh_text is not None:
            self._mesh_path.write_text(self._mesh_text, encoding="utf-8")
        self._make_keys()
        self._choose_ports()
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    def keys(self, identity: str) -> Path:
        return self._directory / "keys" / identity

    @property
    def data(self) -> Path:
        return self._directory / "data"

    @property
    def environment(self) -> dict[str, str]:
        """What the broker's process runs with, besides the environment of this one."""
        return {
            "ATOLL_SLOT": "broker/1",
            "ATOLL_HOST": "127.0.0.1",
            "ATOLL_PORT": self.http.rsplit(":", 1)[1],
            "ATOLL_DATA": str(self.data),
            "ATOLL_KEYS": str(self.keys("broker")),
            "ATOLL_BUS": self.endpoint,
            "ATOLL_MESH": str(self._mesh_path),
        }

    async def start(self) -> None:
        """Returns when /ready says so. Raises RuntimeError with the broker's own words if it does not."""
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "atoll_broker", env={**os.environ, **self.environment}, stderr=log
            )
        async with asyncio.timeout(START_SECONDS_MAX):
            while not await asyncio.to_thread(self._is_ready):
                if self._process.returncode is not None:
                    raise RuntimeError(f"the broker ended with {self._process.returncode}: {self._last_words()}")
                await asyncio.sleep(POLL_SECONDS)

    async def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        return await self._end(signal.SIGTERM)

    async def restart(self) -> None:
        """On the same data, keys and ports."""
        await self.kill()
        await self.start()

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def wait(self) -> int:
        """The exit code, once it ends by itself."""
        assert self._process is not None
        async with asyncio.timeout(STOP_SECONDS_MAX):
            return await self._process.wait()

    async def _end(self, number: signal.Signals) -> int:
        process = self._process
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(number)
        return await self.wait()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.http}/ready", timeout=1) as answer:  # noqa: S310 our own http URL
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def _last_words(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace").strip().rsplit("\n", 1)[-1]

    def _make_keys(self) -> None:
        broker = self.keys("broker")
        (broker / "clients").mkdir(parents=True, exist_ok=True)
        public = _write_pair(broker)
        for identity in sorted(_mesh(self._mesh_path).identities):
            directory = self.keys(identity)
            directory.mkdir(exist_ok=True)
            _write_key(broker / "clients" / f"{identity}.public", _write_pair(directory))
            _write_key(directory / "broker.public", public)

    def _choose_ports(self) -> None:
        bus = http = free_port()
        while http == bus:
            http = free_port()
        self.endpoint = f"tcp://127.0.0.1:{bus}"
        self.http = f"http://127.0.0.1:{http}"


def free_port() -> int:
    """A TCP port of loopback for a process that is started next.

    It lies below what the kernel hands out itself, to who binds port 0 and to outgoing connections, so nobody gets it
    by chance before that process has bound it.
    """
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        lowest = 32_768
    lowest = max(lowest, _PORTS_FROM + 1024)
    while True:
        port = _PORTS_FROM + secrets.randbelow(lowest - _PORTS_FROM)  # not by `random`: hypothesis seeds that
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _write_pair(directory: Path) -> bytes:
    public, secret = zmq.curve_keypair()
    _write_key(directory / "curve.public", public)
    _write_key(directory / "curve.secret", secret)
    return public


def _write_key(path: Path, key: bytes) -> None:
    path.write_bytes(key + b"\n")
    path.chmod(0o600)
