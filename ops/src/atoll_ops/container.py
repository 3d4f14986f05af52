"""The agent as PID 1 of a container: one part, and nothing else, under the same supervision as on a host.

    /agent                 this program's environment        /atoll/run          locks and sockets; control has it too
    /env                   the part's own environment        /atoll/keys/PART    what this part may know of the keys
    /service               its contract and migrations       /atoll/data         its databases
    /etc/atoll/mesh.toml   the system page                   /atoll/agents/PART  in control alone: the others' run

What a host's `up` makes beforehand is here already, or made by others: environments by the image, keys by `setup`,
addresses by the network, where each container has its part's name. So this checks, and changes nothing but run/.
Output goes where the agent's own goes, for the engine to keep. On a host it goes to files, since a pipe would break
with an agent that dies; where the agent is PID 1, nothing outlives it.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from atoll_ops import mesh, prepare
from atoll_ops.agent import Agent
from atoll_ops.errors import MeshError, OperationError
from atoll_ops.keys import BROKER, DASHBOARD, GATEWAY, JAEGER
from atoll_ops.launch import Plan
from atoll_ops.mesh import Mesh, Part
from atoll_ops.ports import HOST, Ports
from atoll_ops.site import told_collector
from atoll_ops.slots import Slot
from atoll_ops.state import State
from atoll_ops.up import supervise

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - of a container, whose networks decide who can reach it
PYTHON = Path("/env/bin/python")
SERVICE = Path("/service")
HTTP_PORT = 8000
#: What a browser outside speaks to listens on the port that it is published at, so that both see one address.
_PUBLISHED = {GATEWAY: 8080, DASHBOARD: 8501}
_BUS_PORT, _OTLP_PORT, _QUERY_PORT = 8086, 4318, 16686


@dataclass(frozen=True)
class Container:
    """The site of one part: every other is behind its name."""

    @property
    def listen(self) -> str:
        return ANY_ADDRESS

    @property
    def gateway(self) -> str:
        return f"http://{GATEWAY}:{_PUBLISHED[GATEWAY]}"

    @property
    def jaeger(self) -> str:
        return f"http://{JAEGER}:{_QUERY_PORT}"

    @property
    def jaeger_pages(self) -> str:
        return f"http://{HOST}:{_QUERY_PORT}"

    @property
    def collector(self) -> str:
        return told_collector(f"http://{JAEGER}:{_OTLP_PORT}")

    def host(self, part: str) -> str:
        return part

    def bus(self, part: str) -> str:
        return f"tcp://{ANY_ADDRESS if part == BROKER else BROKER}:{_BUS_PORT}"

    def folder(self, part: Part) -> Path:  # noqa: ARG002 - there is one
        return SERVICE

    def command(self, part: Part) -> list[str]:
        return list(part.command) or [str(PYTHON), "-m", *part.module_arguments]

    def log(self, slot: Slot) -> Path | None:  # noqa: ARG002 - see the module
        return None

    def agent_log(self) -> Path | None:
        return None

    def patient(self) -> bool:
        return True


def ports(page: Mesh) -> Ports:
    """Who listens where, each in a container of its own; `base`, `dashboard` and `jaeger` are published on the host."""
    parts = {name: _PUBLISHED.get(name, HTTP_PORT) for name in page.parts}
    usual = Ports.of(page, None)
    return Ports(
        _PUBLISHED[GATEWAY],
        _PUBLISHED[DASHBOARD],
        _QUERY_PORT,
        usual.otlp_grpc,
        _OTLP_PORT,
        _BUS_PORT,
        parts,
        "default",
    )


def plan(name: str, state: State, page: Path) -> Plan:
    """What the agent of a container is to run. Raises OperationError naming what is missing."""
    whole = mesh.read(page, Path("/"))
    if name not in whole.parts:
        raise MeshError(f"{page}: there is no [part.{name}] (there are: {', '.join(whole.parts)})")
    for folder, expected in ((state.run, "its run volume"), (state.data, "its data volume")):
        if not os.access(folder, os.W_OK):
            raise OperationError(f"{folder}: expected {expected}, writable by uid {os.geteuid()}")
    if not any(_listed(state.keys / name)):
        raise OperationError(f"{state.keys / name}: expected {name}'s keys; `docker compose up setup` makes them")
    one = whole.only([name])
    return Plan(Path("/"), state, one, ports(one), site=Container())


def run(name: str, state: State, page: Path) -> int:
    """Supervise the one part of this container until a signal; the exit code."""
    planned = plan(name, state, page)
    lock = prepare.hold(state)  # two containers on one data volume: the second says so and ends
    try:
        return asyncio.run(supervise(Agent(planned)))
    finally:
        os.close(lock)


def _listed(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
