"""CURVE keys from files: the broker's own pair, and the allow-list of `clients/<identity>.public`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container
from pathlib import Path

import msgspec
from zmq.utils import z85

from .commands import IDENTITY_RE
from .errors import ConfigurationError

KEY_CHARACTERS = 40


class AllowList(msgspec.Struct, frozen=True):
    """Who may connect. A user id names the identity *and* its key, so that a socket which came in with a key that was
    replaced since is told from one with the present key."""

    user_ids: dict[bytes, str]  # raw public key: user id
    identities: dict[str, str]  # user id: identity


def read_key(path: Path) -> bytes:
    """A key as Z85 text. Raises ConfigurationError, naming the file and never its content."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"ATOLL_KEYS: can not read {path.name}: {type(error).__name__}") from None
    if len(text) != KEY_CHARACTERS or not _is_z85(text):
        raise ConfigurationError(f"ATOLL_KEYS: {path.name}: expected {KEY_CHARACTERS} characters of Z85")
    return text.encode()


def read_allow_list(directory: Path) -> AllowList:
    """Raises ConfigurationError for a file that is not a key, or a key that two identities share."""
    allowed, unreadable = reread_allow_list(directory)
    if unreadable:
        raise ConfigurationError(unreadable[0])
    return allowed


def reread_allow_list(directory: Path) -> tuple[AllowList, list[str]]:
    """What can be read, and why the rest can not. For a broker that runs: a file that is half written, or gone with
    its directory, must neither keep a key in force nor keep the removal of another one from counting."""
    user_ids: dict[bytes, str] = {}
    identities: dict[str, str] = {}
    if not directory.is_dir():
        return AllowList({}, {}), ["ATOLL_KEYS: expected a directory clients/ with <identity>.public in it"]
    unreadable: list[str] = []
    for path in sorted(directory.glob("*.public")):
        try:
            key = _read_client(path, user_ids)
        except ConfigurationError as error:
            unreadable.append(str(error))
            continue
        user_ids[key] = user_id = f"{path.stem}#{hashlib.sha256(key).hexdigest()[:16]}"
        identities[user_id] = path.stem
    return AllowList(user_ids, identities), unreadable


def _read_client(path: Path, taken: Container[bytes]) -> bytes:
    if not re.match(IDENTITY_RE, path.stem):
        raise ConfigurationError(f"ATOLL_KEYS: clients/{path.name}: expected <identity>.public")
    key = z85.decode(read_key(path))
    if key in taken:
        raise ConfigurationError(f"ATOLL_KEYS: clients/{path.name}: another identity has the same key")
    return key


def stamp(directory: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes whenever a key file comes, goes or is written."""
    found = []
    for path in sorted(directory.glob("*.public")):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found.append((path.name, status.st_mtime_ns, status.st_ino))
    return tuple(found)


def _is_z85(text: str) -> bool:
    return all(byte in z85.Z85CHARS for byte in text.encode())
