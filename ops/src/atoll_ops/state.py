"""The state directory of one running system (`--state DIR`): everything it keeps, and nothing outside it.

system.json        ports and parts of the last start
credentials.json   URLs, the demo client, the operator (0600)
keys/PART/         what each part may know of the keys (0700)
data/PART-N/       databases
logs/PART-N.log    what a process said
run/               locks, records, sockets of what runs now
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from atoll_ops.errors import OperationError
from atoll_ops.ports import HOST, Ports

#: What `reset` removes. Environments and tools share the default `.atoll`, and stay.
OWNED = ("keys", "data", "logs", "run", "credentials.json", "system.json")


class SystemFile(msgspec.Struct, frozen=True):
    """`system.json`: what a later command must know of the last start."""

    name: str
    mesh: str
    ports: Ports
    kinds: dict[str, str]  # of each part that was started, in the page's order
    jaeger: str = ""  # query URL of somebody's Jaeger, where `up --jaeger` named one
    version: int = 1


class State:
    """Paths and files of a state directory. Creating the object touches nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.run = self.root / "run"
        self.keys = self.root / "keys"
        self.logs = self.root / "logs"
        self.data = self.root / "data"
        self.agents = self.root / "agents"  # in control's container: the run directories of the others, by part
        self.agent_lock = self.run / "agent.lock"
        self.agent_socket = self.run / "agent.sock"
        self.control_socket = self.run / "control.sock"
        self.credentials = self.root / "credentials.json"
        self.system = self.root / "system.json"

    def prepare(self) -> None:
        """Make the folders, readable by nobody else. Raises OperationError where that is not possible."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for folder in (self.run, self.keys, self.logs, self.data):
                folder.mkdir(mode=0o700, exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise OperationError(f"--state {self.root}: {error.strerror}") from error

    def log(self, name: str, instance: int) -> Path:
        """Where an instance's output goes."""
        return self.logs / f"{name}-{instance}.log"

    def private(self, name: str, instance: int) -> Path:
        """An instance's own directory, where its database lies."""
        return self.data / f"{name}-{instance}"

    def read_system(self) -> SystemFile | None:
        """What the last start noted, or None before the first. Raises OperationError for a damaged file."""
        try:
            return msgspec.json.decode(self.system.read_bytes(), type=SystemFile)
        except FileNotFoundError:
            return None
        except (msgspec.MsgspecError, OSError) as error:
            raise OperationError(f"{self.system}: {error}; `./atoll reset` starts afresh") from error

    def write_system(self, system: SystemFile) -> None:
        """Note what this start uses."""
        write_private(self.system, msgspec.json.format(msgspec.json.encode(system), indent=2) + b"\n")

    def read_credentials(self) -> dict[str, str]:
        """`credentials.json`. Raises OperationError if there is none yet."""
        try:
            found: dict[str, str] = json.loads(self.credentials.read_text())
        except FileNotFoundError as error:
            raise OperationError(f"{self.credentials} does not exist; `./atoll up` makes it") from error
        except (OSError, ValueError) as error:
            raise OperationError(f"{self.credentials}: {error}") from error
        return found

    def write_credentials(self, ports: Ports, secrets: dict[str, str], jaeger: str = "") -> None:
        """The addresses of this start beside the secrets that were made once. `jaeger`: somebody's, if one is used."""
        addresses = {"gateway": ports.base, "dashboard": ports.dashboard, "jaeger": ports.jaeger}
        document: dict[str, Any] = {name: f"http://{HOST}:{port}" for name, port in addresses.items()}
        document |= {"jaeger": jaeger} if jaeger else {}
        write_private(self.credentials, json.dumps(document | secrets, indent=2).encode() + b"\n")

    def remove(self) -> None:
        """Forget everything that this system kept; the directory itself only if nothing else is in it."""
        for name in OWNED:
            path = self.root / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if self.root.exists() and not any(self.root.iterdir()):
            self.root.rmdir()


def write_private(path: Path, content: bytes) -> None:
    """Replace a file by one that only its owner may read; whole or not at all, also across a power cut."""
    passing = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        passing.replace(path)
    except BaseException:
        passing.unlink(missing_ok=True)  # it may hold a secret, and no `reset` would know its name
        raise
