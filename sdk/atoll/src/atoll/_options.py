"""The settings that every part gets from its environment, checked at once and named when wrong.

Own code rather than pydantic-settings: that costs each process a quarter of a second to import.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ._errors import ConfigurationError

_SLOT = re.compile(r"[a-z][a-z0-9-]{0,31}/[0-9]{1,4}")
_BUS = re.compile(r"tcp://[^\s:/]+:[0-9]{1,5}")
LOG_LEVELS = ("debug", "info", "warning", "error")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Where this process listens, keeps its data and finds its keys and the bus."""

    slot: str
    """`name/instance`; the name is the identity on the bus and `service.name` in telemetry."""
    host: str
    port: int
    """HTTP listen address; port 0 takes any free one (tests)."""
    data: Path
    """Private directory of this part; its database lies there."""
    keys: Path
    """Directory with this part's keys only: `curve.secret`, `curve.public`, `broker.public`, and more by role."""
    bus: str
    """ZeroMQ endpoint of the broker, `tcp://host:port`."""
    log_level: str = "info"
    contract: Path = Path("contract")
    """Folder of `publishes/`, `consumes/` and `http.openapi.yaml`."""
    migrations: Path = Path("migrations")

    @property
    def name(self) -> str:
        """The service's name: folder, identity on the bus, `service.name`."""
        return self.slot.partition("/")[0]

    @property
    def instance(self) -> str:
        """The instance's number within the service, as text."""
        return self.slot.partition("/")[2]

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Options:
        """Reads `ATOLL_…`; makes the data directory (0700) if it is missing.

        Raises ConfigurationError naming the variable and what was expected.
        """
        options = cls(
            slot=_matching(environ, "ATOLL_SLOT", _SLOT, "name/instance, such as orders/1"),
            host=_text(environ, "ATOLL_HOST", "the address to listen on, such as 127.0.0.1"),
            port=_port(environ, "ATOLL_PORT"),
            data=Path(_text(environ, "ATOLL_DATA", "this part's private directory")),
            keys=_directory(environ, "ATOLL_KEYS", "a directory with this part's keys"),
            bus=_matching(environ, "ATOLL_BUS", _BUS, "the broker's address, such as tcp://127.0.0.1:8086"),
            log_level=_choice(environ, "ATOLL_LOG_LEVEL", LOG_LEVELS, "info"),
        )
        _make_private(options.data)
        return options


def _text(environ: Mapping[str, str], name: str, expected: str) -> str:
    value = environ.get(name, "").strip()
    if not value:
        raise ConfigurationError(f"{name} is not set: expected {expected}")
    return value


def _matching(environ: Mapping[str, str], name: str, pattern: re.Pattern[str], expected: str) -> str:
    value = _text(environ, name, expected)
    if not pattern.fullmatch(value):
        raise ConfigurationError(f"{name} is {value!r}: expected {expected}")
    return value


def _port(environ: Mapping[str, str], name: str) -> int:
    value = _text(environ, name, "a port, 0 to 65535")
    if not (value.isascii() and value.isdigit() and int(value) <= 65535):
        raise ConfigurationError(f"{name} is {value!r}: expected a port, 0 to 65535")
    return int(value)


def _choice(environ: Mapping[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    value = environ.get(name, "") or default
    if value not in choices:
        raise ConfigurationError(f"{name} is {value!r}: expected one of {', '.join(choices)}")
    return value


def _directory(environ: Mapping[str, str], name: str, expected: str) -> Path:
    path = Path(_text(environ, name, expected))
    if not path.is_dir():
        raise ConfigurationError(f"{name} is {str(path)!r}: expected {expected}; there is no such directory")
    return path


def _make_private(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"ATOLL_DATA is {str(path)!r}: expected a directory: {error.strerror}") from None
