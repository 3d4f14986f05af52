"""Where the parts under test stand: keys, a mesh, ports and a data directory a broker."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import zmq

PLACED = "shop.order.placed.v1"
KEPT = "desk.note.kept.v1"
#: bank gives an event back now and then, mail makes some of them dead letters, desk is the service of the tests.
IDENTITIES = ("shop", "bank", "mail", "auth", "control", "desk")
MESH = """
[grant.shop]
publish = ["shop.*"]
[grant.auth]
put = ["keys"]
watch = ["keys"]
[grant.control]
admin = true
[group_defaults]
lease_seconds = 10
attempts_max = 20
backoff_seconds = [0.01, 0.02]
[group.bank]
part = "bank"
topics = ["shop.order.placed.v1"]
[group.mail]
part = "mail"
topics = ["shop.order.placed.v1"]
on_dead = "skip"
[bus]
heartbeat_seconds = 1.0
"""
#: Events that every group has finished are forgotten above this: trimming becomes a part of the script.
MESH_THAT_TRIMS = f"{MESH}\nlog_bytes_kept = 4096\n"
#: shop tells desk, desk tells bank.
MESH_OF_DESK = f"""
[grant.shop]
publish = ["shop.*"]
[grant.desk]
publish = ["desk.*"]
announce = ["/notes"]
public = true
[grant.control]
admin = true
[group_defaults]
lease_seconds = 10
attempts_max = 20
backoff_seconds = [0.01, 0.02]
[group.desk]
part = "desk"
topics = ["{PLACED}"]
[group.bank]
part = "bank"
topics = ["{KEPT}"]
[bus]
heartbeat_seconds = 1.0
"""


class Ground:
    """One folder with keys for everybody, one broker's address and data."""

    def __init__(self, folder: Path, mesh: str) -> None:
        self.folder = folder
        self._mesh = folder / "mesh.toml"
        folder.mkdir(parents=True)
        self._mesh.write_text(mesh)
        self._make_keys()
        self.port, self._http, self.desk_port = _ports_of_its_own(3)
        self.endpoint = f"tcp://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        """The broker's own directory."""
        return self.folder / "data"

    @property
    def database(self) -> Path:
        """The broker's database."""
        return self.data / "broker.sqlite"

    def keys(self, name: str) -> Path:
        """A part's key folder."""
        return self.folder / "keys" / name

    @property
    def server_key(self) -> bytes:
        """The broker's public key."""
        return (self.keys("broker") / "curve.public").read_bytes().strip()

    @property
    def environment(self) -> dict[str, str]:
        """What the broker is started with."""
        return {
            "ATOLL_SLOT": "broker/1",
            "ATOLL_HOST": "127.0.0.1",
            "ATOLL_PORT": str(self._http),
            "ATOLL_BUS": self.endpoint,
            "ATOLL_DATA": str(self.data),
            "ATOLL_KEYS": str(self.keys("broker")),
            "ATOLL_MESH": str(self._mesh),
        }

    def make_desk(self) -> dict[str, str]:
        """A home for the service of the tests (nursery/desk.py); what it is started with."""
        for kind, topic in (("publishes", KEPT), ("consumes", PLACED)):
            contract = self.desk / "contract" / kind
            contract.mkdir(parents=True)
            schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
            (contract / f"{topic}.schema.json").write_text(json.dumps(schema))
        (self.desk / "migrations").mkdir()
        table = "CREATE TABLE effect (position INTEGER PRIMARY KEY, id TEXT, key TEXT, n INTEGER) STRICT;"
        (self.desk / "migrations" / "0001-effects.sql").write_text(table)
        return {
            "ATOLL_SLOT": "desk/1",
            "ATOLL_HOST": "127.0.0.1",
            "ATOLL_PORT": str(self.desk_port),
            "ATOLL_BUS": self.endpoint,
            "ATOLL_DATA": str(self.desk / "data"),
            "ATOLL_KEYS": str(self.keys("desk")),
        }

    @property
    def desk(self) -> Path:
        """The home of the service of the tests."""
        return self.folder / "desk"

    def _make_keys(self) -> None:
        public = _write_pair(self.keys("broker"))
        clients = self.keys("broker") / "clients"
        clients.mkdir()
        for name in IDENTITIES:
            (clients / f"{name}.public").write_bytes(_write_pair(self.keys(name)))
            (self.keys(name) / "broker.public").write_bytes(public)


def _write_pair(folder: Path) -> bytes:
    folder.mkdir(parents=True)
    public, secret = zmq.curve_keypair()
    for name, key in (("curve.public", public), ("curve.secret", secret)):
        (folder / name).write_bytes(key + b"\n")
        (folder / name).chmod(0o600)
    return public + b"\n"


_handed_out: set[int] = set()
_handing_out = threading.Lock()


def _ports_of_its_own(count: int) -> list[int]:
    """Never handed out before: a broker that is dead for a moment holds no port, and the other worker would get it."""
    found: list[int] = []
    with _handing_out, ExitStack() as held:
        while len(found) < count:
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port not in _handed_out:
                _handed_out.add(port)
                found.append(port)
    return found
