"""Every setting of the process, from its environment. Bounds of the bus itself are in mesh.toml (`mesh.Bus`)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from .commands import SLOT_RE
from .errors import ConfigurationError

LEVELS = ("debug", "info", "warning", "error")


class Options(msgspec.Struct, frozen=True):
    """Where this broker listens and keeps its things."""

    slot: str
    host: str
    port: int
    data: Path
    keys: Path
    bus: str
    mesh: Path
    log_level: str = "info"

    @property
    def name(self) -> str:
        return self.slot.split("/", 1)[0]

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Options:
        """Raises ConfigurationError, naming the variable and what was expected."""
        return cls(
            slot=_matching(environ, "ATOLL_SLOT", SLOT_RE, "a slot such as broker/1"),
            host=_required(environ, "ATOLL_HOST"),
            port=_port(environ),
            data=Path(_required(environ, "ATOLL_DATA")),
            keys=Path(_required(environ, "ATOLL_KEYS")),
            bus=_matching(environ, "ATOLL_BUS", r"^tcp://[^\s]+:[0-9*]+\Z", "an endpoint such as tcp://127.0.0.1:8086"),
            mesh=Path(_required(environ, "ATOLL_MESH")),
            log_level=_level(environ),
        )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise ConfigurationError(f"{name}: expected a value, it is not set")
    return value


def _matching(environ: Mapping[str, str], name: str, pattern: str, expected: str) -> str:
    value = _required(environ, name)
    if not re.match(pattern, value):
        raise ConfigurationError(f"{name}: expected {expected}, got {value!r}")
    return value


def _port(environ: Mapping[str, str]) -> int:
    value = _required(environ, "ATOLL_PORT")
    if not value.isascii() or not value.isdigit() or not 0 <= int(value) <= 65_535:
        raise ConfigurationError(f"ATOLL_PORT: expected a port, got {value!r}")
    return int(value)


def _level(environ: Mapping[str, str]) -> str:
    level = environ.get("ATOLL_LOG_LEVEL", "info").lower()
    if level not in LEVELS:
        raise ConfigurationError(f"ATOLL_LOG_LEVEL: expected one of {', '.join(LEVELS)}, got {level!r}")
    return level
