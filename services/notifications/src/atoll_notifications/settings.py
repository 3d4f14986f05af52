"""The settings of notifications itself; those that every part has are `atoll.Options`."""

import os
import re
import ssl
from collections.abc import Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Literal

import msgspec

import atoll

Security = Literal["none", "starttls", "tls"]
_SECURITIES: tuple[Security, ...] = ("none", "starttls", "tls")
_SERVER = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253})):(?P<port>[0-9]{1,5})", re.ASCII
)
_SECONDS = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,3})?", re.ASCII)
_SENDER = "Atoll shop <orders@shop.invalid>"


class Login(msgspec.Struct, frozen=True):
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.user!r}, …)"


class Smtp(msgspec.Struct, frozen=True, kw_only=True):
    """The server that mails are handed to, and how long it may take."""

    host: str
    port: int
    security: Security = "none"
    """`starttls` and `tls` check the server's certificate and name; there is no way around that."""
    ca_file: Path | None = None
    """PEM certificates to trust instead of the system's."""
    login: Login | None = None
    timeout_seconds: float = 30
    """For connecting, greeting and login together, and for each mail. Range 0.1…300."""
    give_up_seconds: float = 432_000
    """A mail that no try could hand over for so long is given up; RFC 5321 asks for 4 to 5 days. Range 1…9,999,999."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    maildir: Path
    sender: str = _SENDER
    smtp: Smtp | None = None
    """None: no SMTP; mails that are made meanwhile are not sent later either."""

    @classmethod
    def from_environment(cls, data: Path, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Reads `NOTIFICATIONS_…`. Raises ConfigurationError naming the variable and what was expected."""
        values = {name: value.strip() for name, value in environ.items() if name.startswith("NOTIFICATIONS_")}
        for name in values:
            if name not in _KNOWN:
                raise atoll.ConfigurationError(f"{name} is not a setting of notifications: expected one of {_LISTED}")
        return cls(
            maildir=Path(values.get("NOTIFICATIONS_MAILDIR") or data / "maildir"),
            sender=_sender(values.get("NOTIFICATIONS_FROM") or _SENDER),
            smtp=_smtp(values),
        )


_KNOWN = (
    "NOTIFICATIONS_MAILDIR",
    "NOTIFICATIONS_FROM",
    "NOTIFICATIONS_SMTP",
    "NOTIFICATIONS_SMTP_SECURITY",
    "NOTIFICATIONS_SMTP_CA_FILE",
    "NOTIFICATIONS_SMTP_USER",
    "NOTIFICATIONS_SMTP_PASSWORD_FILE",
    "NOTIFICATIONS_SMTP_TIMEOUT_SECONDS",
    "NOTIFICATIONS_SMTP_GIVE_UP_SECONDS",
)
_LISTED = ", ".join(_KNOWN)


def _smtp(values: Mapping[str, str]) -> Smtp | None:
    server = values.get("NOTIFICATIONS_SMTP", "")
    if not server:
        for name in _KNOWN[3:]:
            if values.get(name):
                raise atoll.ConfigurationError(
                    f"{name} is set, but NOTIFICATIONS_SMTP is not: expected host:port there"
                )
        return None
    if "@" in server:  # not repeated: the error goes to the log, which more people read than know the password
        raise atoll.ConfigurationError(
            "NOTIFICATIONS_SMTP has an @: expected host:port, who signs in being for NOTIFICATIONS_SMTP_USER and"
            " NOTIFICATIONS_SMTP_PASSWORD_FILE"
        )
    match = _SERVER.fullmatch(server)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise atoll.ConfigurationError(f"NOTIFICATIONS_SMTP is {server!r}: expected host:port, such as 127.0.0.1:25")
    security = _security(values)
    return Smtp(
        host=match["v6"] or match["name"],
        port=int(match["port"]),
        security=security,
        ca_file=_ca_file(values, security),
        login=_login(values, security),
        timeout_seconds=_seconds(values, "NOTIFICATIONS_SMTP_TIMEOUT_SECONDS", 30, 0.1, 300),
        give_up_seconds=_seconds(values, "NOTIFICATIONS_SMTP_GIVE_UP_SECONDS", 432_000, 1, 9_999_999),
    )


def _security(values: Mapping[str, str]) -> Security:
    text = values.get("NOTIFICATIONS_SMTP_SECURITY") or "none"
    for security in _SECURITIES:
        if text == security:
            return security
    raise atoll.ConfigurationError(f"NOTIFICATIONS_SMTP_SECURITY is {text!r}: expected one of {', '.join(_SECURITIES)}")


def _ca_file(values: Mapping[str, str], security: Security) -> Path | None:
    name = "NOTIFICATIONS_SMTP_CA_FILE"
    text = values.get(name, "")
    if not text:
        return None
    if security == "none":
        raise atoll.ConfigurationError(
            f"{name} is set: expected NOTIFICATIONS_SMTP_SECURITY to be starttls or tls then"
        )
    try:
        ssl.create_default_context(cafile=text)
    except (OSError, ssl.SSLError) as error:
        raise atoll.ConfigurationError(f"{name} is {text!r}: expected a file of PEM certificates: {error}") from None
    return Path(text)


def _login(values: Mapping[str, str], security: Security) -> Login | None:
    user, file = values.get("NOTIFICATIONS_SMTP_USER", ""), values.get("NOTIFICATIONS_SMTP_PASSWORD_FILE", "")
    if not user and not file:
        return None
    if not user or not file:
        raise atoll.ConfigurationError("NOTIFICATIONS_SMTP_USER and NOTIFICATIONS_SMTP_PASSWORD_FILE: expected both")
    if security == "none":
        raise atoll.ConfigurationError(
            "NOTIFICATIONS_SMTP_USER is set: expected NOTIFICATIONS_SMTP_SECURITY to be starttls or tls then;"
            " a password does not go over the wire in the clear"
        )
    try:
        password = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise atoll.ConfigurationError(
            f"NOTIFICATIONS_SMTP_PASSWORD_FILE is {file!r}: expected a readable file with the password: {error}"
        ) from None
    if not password:
        raise atoll.ConfigurationError("NOTIFICATIONS_SMTP_PASSWORD_FILE: expected a password, the file is empty")
    return Login(user, password)


def _seconds(values: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    seconds = values.get(name, "")
    if not seconds:
        return default
    if not _SECONDS.fullmatch(seconds) or not least <= float(seconds) <= most:
        raise atoll.ConfigurationError(f"{name} is {seconds!r}: expected seconds, {least:g} to {most:g}")
    return float(seconds)


def _sender(text: str) -> str:
    message = EmailMessage(policy=SMTP)
    try:
        message["From"] = text
        addresses: tuple[Address, ...] = message["From"].addresses
        if len(addresses) == 1 and addresses[0].username and addresses[0].domain and not message["From"].defects:
            return text
    except (ValueError, IndexError):  # a line break; the parser's own bugs
        pass
    raise atoll.ConfigurationError(f"NOTIFICATIONS_FROM is {text!r}: expected one address, such as {_SENDER}")
