"""What the process is told, from its environment. Every error names the variable and what was expected."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

_SESSION_SECONDS, _IDLE_SECONDS = 8 * 3600.0, 3600.0
_SECONDS_MAX = 30 * 86_400.0
_LEVELS = ("debug", "info", "warning", "error")


class ConfigurationError(ValueError):
    """The environment is not as expected; the text names the variable."""


@dataclass(frozen=True)
class Options:
    """The process's options. Times in seconds; addresses without a slash at their end."""

    host: str
    port: int
    data: Path
    keys: Path
    gateway: str
    jaeger: str
    jaeger_link: str  # where a browser finds Jaeger's pages
    session_seconds: float
    idle_seconds: float
    origins: tuple[str, ...]  # beside loopback: how people reach it through a proxy
    log_level: str

    @property
    def client(self) -> Path:
        """The dashboard's own client."""
        return self.keys / "client.json"

    @property
    def session_cookie(self) -> str:
        """The session's cookie. Browsers keep one jar for all ports of a host: the name tells two dashboards apart."""
        return f"atoll_dashboard_{self.port}"

    @property
    def form_cookie(self) -> str:
        """The cookie of the login's form; it names the port for the same reason."""
        return f"atoll_dashboard_form_{self.port}"

    @property
    def version(self) -> str:
        """Of this deployable."""
        from importlib.metadata import version

        return version("atoll-dashboard")


def read(environment: Mapping[str, str] = os.environ) -> Options:
    """The options. Raises ConfigurationError."""
    jaeger = _base("ATOLL_JAEGER", _required(environment, "ATOLL_JAEGER"))
    options = Options(
        host=environment.get("ATOLL_HOST", "127.0.0.1"),
        port=_port(environment),
        data=_folder(environment, "ATOLL_DATA"),
        keys=_folder(environment, "ATOLL_KEYS"),
        gateway=_origin("ATOLL_GATEWAY", _required(environment, "ATOLL_GATEWAY")),
        jaeger=jaeger,
        jaeger_link=_base("ATOLL_JAEGER_PAGES", environment.get("ATOLL_JAEGER_PAGES", "").strip() or jaeger),
        session_seconds=_seconds(environment, "DASHBOARD_SESSION_SECONDS", _SESSION_SECONDS),
        idle_seconds=_seconds(environment, "DASHBOARD_IDLE_SECONDS", _IDLE_SECONDS),
        origins=_origins(environment),
        log_level=_level(environment),
    )
    _check_client(options.client)
    return options


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise ConfigurationError(f"{name} is not set")
    return value


def _folder(environment: Mapping[str, str], name: str) -> Path:
    path = Path(_required(environment, name))
    if name == "ATOLL_DATA":
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{name}: {error}") from error
    if not path.is_dir():
        raise ConfigurationError(f"{name}: expected a folder, not {path}")
    return path


def _port(environment: Mapping[str, str]) -> int:
    text = _required(environment, "ATOLL_PORT")
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65_536):
        raise ConfigurationError(f"ATOLL_PORT: expected a number from 1 to 65535, not {text!r}")
    return int(text)


def _origin(name: str, text: str) -> str:
    parts = _address(name, text, "http(s)://HOST[:PORT]")
    if parts.path not in ("", "/"):
        raise ConfigurationError(f"{name}: expected http(s)://HOST[:PORT], not {text!r}")
    return _without_default_port(parts)


def _base(name: str, text: str) -> str:
    """Where everything else begins. A Jaeger behind a proxy has a path of its own (`--base-path`)."""
    parts = _address(name, text, "http(s)://HOST[:PORT][/PATH]")
    return _without_default_port(parts) + parts.path.rstrip("/")


def _address(name: str, text: str, expected: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or "@" in parts.netloc or any(letter <= " " for letter in text):
        raise ConfigurationError(f"{name}: expected {expected}, not {text!r}")
    return parts


def _without_default_port(parts: SplitResult) -> str:
    """Browsers leave it out, in Host and in Origin."""
    return f"{parts.scheme}://{parts.netloc.removesuffix({'http': ':80', 'https': ':443'}[parts.scheme])}"


def _level(environment: Mapping[str, str]) -> str:
    text = environment.get("ATOLL_LOG_LEVEL", "").strip().lower() or "info"
    if text not in _LEVELS:
        raise ConfigurationError(f"ATOLL_LOG_LEVEL: expected one of {', '.join(_LEVELS)}, not {text!r}")
    return text


def _origins(environment: Mapping[str, str]) -> tuple[str, ...]:
    given = [one.strip() for one in environment.get("DASHBOARD_ORIGINS", "").split(",") if one.strip()]
    return tuple(_origin("DASHBOARD_ORIGINS", one).lower() for one in given)


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= _SECONDS_MAX:
        raise ConfigurationError(f"{name}: expected seconds above 0, at most {_SECONDS_MAX:.0f}, not {text!r}")
    return value


def _check_client(path: Path) -> None:
    try:
        told = json.loads(path.read_text())
        good = isinstance(told, dict) and all(
            isinstance(told.get(name), str) for name in ("client_id", "client_secret")
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"ATOLL_KEYS: {path.name}: {error}") from error
    if not good:
        raise ConfigurationError(f"ATOLL_KEYS: {path.name}: expected client_id and client_secret")
