"""Auth's own settings and key files, checked once at the start."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import msgspec

import atoll
from atoll_token import PublicKey, SigningKey

from .domain import ACCESS_SECONDS_MAX
from .lifecycle import Schedule

_YEAR = 366 * 86_400


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds. `public_url` is what clients call the gateway, without a slash at its end, or empty."""

    access_seconds: int = 600
    refresh_seconds: int = 30 * 86_400
    rotate_seconds: int = 30 * 86_400
    public_url: str = ""

    @property
    def schedule(self) -> Schedule:
        return Schedule(rotate=self.rotate_seconds, access=self.access_seconds, refresh=self.refresh_seconds)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Raises atoll.ConfigurationError naming the variable and what was expected."""
        return cls(
            access_seconds=_seconds(environ, "AUTH_ACCESS_SECONDS", 600, 10, ACCESS_SECONDS_MAX),
            refresh_seconds=_seconds(environ, "AUTH_REFRESH_SECONDS", 30 * 86_400, 60, _YEAR),
            rotate_seconds=_seconds(environ, "AUTH_ROTATE_SECONDS", 30 * 86_400, 60, _YEAR),
            public_url=_url(environ, "AUTH_PUBLIC_URL"),
        )


def root_key(keys: Path) -> SigningKey:
    """The key that signs key sets. Raises atoll.ConfigurationError."""
    try:
        return SigningKey.from_pem((keys / "root.key").read_bytes())
    except (OSError, ValueError) as error:
        raise atoll.ConfigurationError(f"ATOLL_KEYS: root.key: expected a PEM PKCS8 Ed25519 key: {error}") from None


def gateway_key(keys: Path) -> PublicKey:
    """The key by which we know that a request came through the gateway. Raises atoll.ConfigurationError."""
    try:
        return PublicKey.from_pem((keys / "gateway.pub").read_bytes())
    except (OSError, ValueError) as error:
        raise atoll.ConfigurationError(f"ATOLL_KEYS: gateway.pub: expected a PEM Ed25519 public key: {error}") from None


def _seconds(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name, "") or str(default)
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise atoll.ConfigurationError(f"{name} is {text!r}: expected whole seconds, {low} to {high}")
    return int(text)


def _url(environ: Mapping[str, str], name: str) -> str:
    text = environ.get(name, "").rstrip("/")
    parts = urlsplit(text)
    if text and (parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment):
        raise atoll.ConfigurationError(f"{name} is {text!r}: expected the gateway's http(s) URL, or nothing")
    return text
