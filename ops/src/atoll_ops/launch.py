"""Starting the process of a slot: its command, its environment, its log, its lock.

The process contract in one place: what a part is told, and nothing else of the user's environment, so that a part runs
the same whoever started it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from atoll_ops import keys
from atoll_ops.environments import Environment, Workshop
from atoll_ops.mesh import Mesh, Part
from atoll_ops.ports import HOST, Ports
from atoll_ops.slots import Slot
from atoll_ops.state import State

#: A log above this size is put aside, one generation, whether or not its process goes on.
LOG_BYTES_MAX = 8 * 1024 * 1024
#: Of the user's environment a part sees these, where they are set, and variables that begin with a prefix below.
_PASSED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "OTEL_SDK_DISABLED", "ATOLL_LOG_LEVEL")
_PASSED_PREFIXES = ("SSL_", "LC_")
_MESH_READERS = (keys.BROKER, keys.GATEWAY, keys.CONTROL)


@dataclass(frozen=True)
class Plan:
    """What is to run, and where: fixed for the life of an agent."""

    root: Path
    state: State
    mesh: Mesh
    ports: Ports
    jaeger: str = ""  # query URL of somebody's Jaeger, given by --jaeger; empty: our own part, if the page has it

    @property
    def jaeger_url(self) -> str:
        """Where traces can be looked up, whether or not anybody answers there."""
        return self.jaeger or f"http://{HOST}:{self.ports.jaeger}"

    def workshop(self) -> Workshop:
        """Where the environments are."""
        return Workshop(self.root)

    def environments(self) -> list[Environment]:
        """The environments that the parts need, each once; a part with its own command brings its own."""
        folders = {part.folder: part for part in self.mesh.parts.values() if not part.command}
        return [Environment.of(folder) for folder in folders]


def command(plan: Plan, part: Part) -> list[str]:
    """What is run for a part, in its folder."""
    if part.command:
        return list(part.command)
    python = plan.workshop().python(Environment.of(part.folder).name)
    return [str(python), "-m", *part.module_arguments]


def variables(plan: Plan, part: Part, slot: Slot) -> dict[str, str]:
    """The whole environment of a part's process."""
    passed = {
        name: value for name, value in os.environ.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)
    }
    contract = {
        "ATOLL_SLOT": str(slot),
        "ATOLL_HOST": HOST,
        "ATOLL_PORT": str(plan.ports.parts[part.name]),
        "ATOLL_DATA": str(plan.state.private(slot.name, slot.instance)),
        "ATOLL_KEYS": str(plan.state.keys / part.name),
        "OTEL_EXPORTER_OTLP_ENDPOINT": os.environ.get(
            "OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{HOST}:{plan.ports.otlp_http}"
        ),
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # the project folder is a place to read contracts from, not to import from
    }
    if part.name not in keys.NOT_ON_THE_BUS:
        contract["ATOLL_BUS"] = f"tcp://{HOST}:{plan.ports.bus}"
    if part.name in _MESH_READERS:
        contract["ATOLL_MESH"] = str(plan.mesh.path)
    if part.name == keys.CONTROL:
        contract["ATOLL_RUN"] = str(plan.state.run)  # where the agent's socket is, and its own goes
    if part.name == keys.DASHBOARD:
        contract["ATOLL_GATEWAY"] = f"http://{HOST}:{plan.ports.base}"
        contract["ATOLL_JAEGER"] = plan.jaeger_url
    return {"ATOLL_LOG_LEVEL": "info"} | passed | contract | part.settings


def spawn(plan: Plan, part: Part, slot: Slot, lock: int) -> subprocess.Popen[bytes]:
    """Start the process of a slot as leader of a session and group of its own; it inherits the lock's descriptor.

    Its output goes to a file and never through a pipe: a pipe would break with the agent, and the part with the pipe.
    Raises OSError where the command cannot be run.
    """
    log_path = plan.state.log(slot.name, slot.instance)
    bound_log(log_path)
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        return subprocess.Popen(
            command(plan, part), cwd=part.folder, env=variables(plan, part, slot), stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True, pass_fds=(lock,),
        )  # fmt: skip
    finally:
        os.close(log)


def bound_log(log: Path) -> None:
    """Put a log aside that has grown too large. Its process has it open for appending, so it is copied and emptied, and
    the process goes on at its new end; a line written in between is lost, which a full disk would cost as well.
    """
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_BYTES_MAX:
            aside = log.with_suffix(".log.1")
            aside.unlink(missing_ok=True)
            shutil.copy(log, aside)  # with its mode: nobody else's to read
            os.truncate(log, 0)
