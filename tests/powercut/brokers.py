"""A real broker process on a data directory that the test chose, started hundreds of times."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from fleet import REPOSITORY, fleet
from rawbus import Peer

TOPIC = "shop.order.placed.v1"
SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
MESH = f"""
[grant.shop]
publish = ["shop.*"]
[grant.bank]
[grant.audit]
[grant.control]
admin = true
[group_defaults]
lease_seconds = 30
attempts_max = 3
backoff_seconds = [0.1, 1]
in_flight_max = 1024
[group.bank]
part = "bank"
topics = ["{TOPIC}"]
[group.audit]
part = "audit"
topics = ["{TOPIC}"]
[bus]
heartbeat_seconds = 5.0
event_bytes_max = 65536
batch_events_max = 128
batch_bytes_max = 1048576
"""
_NURSERY = Path(__file__).with_name("nursery.py")
_BOOT_SECONDS_MAX = 20
_LOOK_EVERY_SECONDS = 0.005


class Broker:
    """Keys, ports and settings of one broker, and the process that fills it now."""

    def __init__(self, folder: Path, data: Path, nursery: subprocess.Popen[bytes], mesh: str = MESH) -> None:
        self.data = data
        self.log = folder / "broker.log"
        self.pid = 0
        self._nursery = nursery
        self._keys = folder / "keys"
        self._mesh = folder / "mesh.toml"
        self._mesh.write_text(mesh)
        if not self._keys.exists():
            _make_keys(self._keys, ("shop", "bank", "audit", "control"))
        self.bus, self.http = _free_ports(2)

    def start(self, **environment: str) -> int | None:
        """Start it, and wait until it listens; its exit code if it ended instead."""
        self.spawn(**environment)
        deadline = time.monotonic() + _BOOT_SECONDS_MAX
        while not self._listens():
            if self.has_ended():
                return self.wait()
            assert time.monotonic() < deadline, f"waited {_BOOT_SECONDS_MAX} s for the broker; {self.words()}"
            time.sleep(_LOOK_EVERY_SECONDS)
        return None

    def spawn(self, **environment: str) -> None:
        """Start it, and do not wait."""
        variables = {
            "ATOLL_SLOT": "broker/1", "ATOLL_HOST": "127.0.0.1", "ATOLL_PORT": str(self.http),
            "ATOLL_DATA": str(self.data), "ATOLL_KEYS": str(self._keys / "broker"),
            "ATOLL_BUS": f"tcp://127.0.0.1:{self.bus}", "ATOLL_MESH": str(self._mesh),
        }  # fmt: skip
        self.log.write_text("")
        assert self._nursery.stdin is not None
        request = {"environment": variables | environment, "log": str(self.log)}
        self._nursery.stdin.write(json.dumps(request).encode() + b"\n")
        self.pid = self._said()["pid"]

    @property
    def end(self) -> Any:
        """What becomes readable when the process has ended."""
        return self._nursery.stdout

    def has_ended(self) -> bool:
        """Without waiting."""
        poller = zmq.Poller()
        poller.register(self.end, zmq.POLLIN)
        return bool(poller.poll(0))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code once it has ended; negative: by that signal."""
        return self._said()["exit"]

    def connect(self, identity: str) -> Peer:
        """A client with that key."""
        server_key = (self._keys / "broker" / "curve.public").read_bytes().strip()
        return Peer(f"tcp://127.0.0.1:{self.bus}", self._keys / identity, server_key)

    def words(self) -> str:
        """The last lines of this boot's log."""
        return self.log.read_text(errors="replace")[-2000:]

    def last_word(self) -> str:
        """The last line, which says why it ended."""
        return (self.words().splitlines() or ["nothing"])[-1]

    def _said(self) -> dict[str, int]:
        assert self._nursery.stdout is not None
        line = self._nursery.stdout.readline()
        assert line, f"the nursery ended with {self._nursery.poll()}"
        said: dict[str, int] = json.loads(line)
        return said

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.bus)) == 0


@contextmanager
def nursery(python: Path, planted: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A place for brokers to be born, with a folder of `planted/` loaded."""
    variables = {"PYTHONPATH": str(planted)} if planted else {}
    with subprocess.Popen(
        [str(python), str(_NURSERY), "atoll_broker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables,
        bufsize=0,  # a line that lies in a buffer makes no descriptor readable
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()  # it kills what it has
            process.wait()


def environment_of_the_broker(folder: Path) -> Path:
    """The Python that a deployed broker runs with. `./atoll up` makes its environment, so that is what is done."""
    with fleet(folder / "state", None, "--only", "broker"):
        pass
    python = REPOSITORY / ".atoll" / "env" / "broker" / "bin" / "python"
    assert python.exists(), f"`up --only broker` made no {python}"
    return python


def _make_keys(folder: Path, identities: tuple[str, ...]) -> None:
    clients = folder / "broker" / "clients"
    clients.mkdir(parents=True)
    _write_pair(folder / "broker")
    for identity in identities:
        public = _write_pair(folder / identity)
        (clients / f"{identity}.public").write_bytes(public)
        (clients / f"{identity}.public").chmod(0o600)


def _write_pair(folder: Path) -> bytes:
    folder.mkdir(exist_ok=True)
    public, secret = zmq.curve_keypair()
    for name, key in (("public", public), ("secret", secret)):
        (folder / f"curve.{name}").write_bytes(key + b"\n")
        (folder / f"curve.{name}").chmod(0o600)
    return public + b"\n"


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
