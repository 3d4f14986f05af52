"""The settings, from the environment that every part gets; checked at once, and named when wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atoll_journal.errors import ConfigurationError

_SLOT = re.compile(r"[a-z][a-z0-9-]{0,31}/[0-9]{1,4}", re.ASCII)
_BUS = re.compile(r"tcp://[^\s:/]+:[0-9]{1,5}", re.ASCII)
_KEYS = ("curve.secret", "curve.public", "broker.public")
LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    slot: str
    host: str
    port: int
    data: Path
    bus: str
    secret: bytes
    """Z85 text, as are the two below: our pair, and the broker's public key."""
    public: bytes
    broker: bytes
    topics: tuple[str, ...]
    """What to listen to: the names of the files in contract/consumes."""
    migrations: Path
    log_level: str = "info"

    @property
    def name(self) -> str:
        """The identity on the bus, and the group."""
        return self.slot.partition("/")[0]

    def __repr__(self) -> str:
        return f"Settings({self.slot!r}, {self.bus!r}, …)"


def from_environment(environ: Mapping[str, str] = os.environ, project: Path = Path()) -> Settings:
    """Reads `ATOLL_…` and the project folder; makes the data directory. Raises ConfigurationError."""
    keys = Path(_text(environ, "ATOLL_KEYS", "a directory with this part's keys"))
    secret, public, broker = (_key(keys / name) for name in _KEYS)
    level = environ.get("ATOLL_LOG_LEVEL", "") or "info"
    if level not in LEVELS:
        raise ConfigurationError(f"ATOLL_LOG_LEVEL is {level!r}: expected one of {', '.join(LEVELS)}")
    return Settings(
        slot=_matching(environ, "ATOLL_SLOT", _SLOT, "name/instance, such as journal/1"),
        host=_text(environ, "ATOLL_HOST", "the address to listen on, such as 127.0.0.1"),
        port=_port(environ),
        bus=_matching(environ, "ATOLL_BUS", _BUS, "the broker's address, such as tcp://127.0.0.1:8086"),
        data=data_directory(environ),
        secret=secret,
        public=public,
        broker=broker,
        topics=_topics(project / "contract" / "consumes"),
        migrations=project / "migrations",
        log_level=level,
    )


def data_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """ATOLL_DATA, made if it is missing."""
    path = Path(_text(environ, "ATOLL_DATA", "this part's private directory"))
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"ATOLL_DATA is {str(path)!r}: expected a directory: {error.strerror}") from None
    return path


def _topics(folder: Path) -> tuple[str, ...]:
    suffix = ".schema.json"
    topics = tuple(sorted(path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}")))
    if not topics:
        raise ConfigurationError(f"{folder}: expected a file TOPIC{suffix} for each topic to listen to")
    return topics


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


def _port(environ: Mapping[str, str]) -> int:
    value = _text(environ, "ATOLL_PORT", "a port, 0 to 65535")
    if not (value.isascii() and value.isdigit() and int(value) <= 65535):
        raise ConfigurationError(f"ATOLL_PORT is {value!r}: expected a port, 0 to 65535")
    return int(value)


def _key(path: Path) -> bytes:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"ATOLL_KEYS: expected a readable file {path.name} with a CURVE key") from None
    if len(text) != 40:
        raise ConfigurationError(f"ATOLL_KEYS: {path.name}: expected 40 characters of Z85, found {len(text)}")
    return text.encode()
