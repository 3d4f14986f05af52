"""Where the parts of one agent live, and how they find each other there.

Everything that differs between one host and a container stands here, so that supervision does not know the difference:
addresses, commands, folders and where output goes. `Host` is a repository on somebody's machine, with all parts on the
loopback address; `atoll_ops.container.Container` is an image with one part in it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from atoll_ops.environments import Environment, Workshop
from atoll_ops.jaeger import existing
from atoll_ops.keys import JAEGER
from atoll_ops.mesh import Part
from atoll_ops.ports import HOST, Ports
from atoll_ops.slots import Slot
from atoll_ops.state import State

_COLLECTOR = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Site(Protocol):
    """What the agent must know of a place to run parts there."""

    @property
    def listen(self) -> str:
        """The address that a part listens on (`ATOLL_HOST`)."""

    @property
    def gateway(self) -> str:
        """Base URL of the gateway, as a part reaches it."""

    @property
    def jaeger(self) -> str:
        """Base URL of Jaeger's query API, as a part reaches it."""

    @property
    def jaeger_pages(self) -> str:
        """Where a browser finds Jaeger's pages."""

    @property
    def collector(self) -> str:
        """Where spans go, OTLP over HTTP."""

    def host(self, part: str) -> str:
        """The name or address under which other parts, and control, reach this one."""

    def bus(self, part: str) -> str:
        """The ZeroMQ endpoint that a part is told: the broker's to listen on, everybody else's to connect to."""

    def folder(self, part: Part) -> Path:
        """The working directory of a part: where `contract/` and `migrations/` are."""

    def command(self, part: Part) -> list[str]:
        """What is run for a part, in its folder."""

    def log(self, slot: Slot) -> Path | None:
        """The file that takes a part's output; None leaves it to whoever reads the agent's own."""

    def agent_log(self) -> Path | None:
        """The same for the agent's."""

    def patient(self) -> bool:
        """Whether a part that does not come up is waited for for ever: nobody stands before a container to be told."""


@dataclass(frozen=True)
class Host:
    """One machine with the repository on it: every part on the loopback address, with an environment of its own."""

    root: Path
    state: State
    ports: Ports
    others_jaeger: str = ""  # query URL of somebody's Jaeger that is used instead of a part of ours

    @property
    def listen(self) -> str:
        return HOST

    @property
    def gateway(self) -> str:
        return f"http://{HOST}:{self.ports.base}"

    @property
    def jaeger(self) -> str:
        return self.others_jaeger or f"http://{HOST}:{self.ports.jaeger}"

    @property
    def jaeger_pages(self) -> str:
        return self.jaeger

    @property
    def collector(self) -> str:
        ours = f"http://{HOST}:{self.ports.otlp_http}"
        return told_collector(existing.otlp_url(self.others_jaeger) if self.others_jaeger else ours)

    def host(self, part: str) -> str:  # noqa: ARG002 - they are all here
        return HOST

    def bus(self, part: str) -> str:  # noqa: ARG002 - the broker listens where the others connect
        return f"tcp://{HOST}:{self.ports.bus}"

    def folder(self, part: Part) -> Path:
        return part.folder

    def command(self, part: Part) -> list[str]:
        if part.command:
            return list(part.command)
        if part.name == JAEGER:
            return [sys.executable, "-m", "atoll_ops.jaeger.runner"]  # a program of ours brings it, and becomes it
        python = Workshop(self.root).python(Environment.of(part.folder).name)
        return [str(python), "-m", *part.module_arguments]

    def log(self, slot: Slot) -> Path | None:
        return self.state.log(slot.name, slot.instance)

    def agent_log(self) -> Path | None:
        return self.state.logs / "agent.log"

    def patient(self) -> bool:
        return False


def told_collector(default: str) -> str:
    """Where spans go: what the user says, else the collector that belongs to the system."""
    return os.environ.get(_COLLECTOR) or default
