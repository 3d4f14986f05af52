"""Unix sockets below any path, however long.

The kernel takes 107 bytes for a socket's address, and a state directory may lie deeper than that. So the address is
given relative to an open directory: `/proc/self/fd/N/agent.sock`, which is short and names the same file. Where there
is no /proc (macOS) the plain path must do.
"""

from __future__ import annotations

import http.client
import os
import socket
import struct
from pathlib import Path

_BACKLOG = 64
#: Directories stay open as long as the process: aiohttp and asyncio look at a bound address again when they close it.
_directories: dict[Path, int] = {}


def address(path: Path) -> str:
    """A short address of the socket file `path`; its directory must exist."""
    if not Path("/proc/self/fd").is_dir():
        return str(path)
    directory = _directories.get(path.parent)
    if directory is None or not _still(directory, path.parent):
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        _directories[path.parent] = directory
    return f"/proc/self/fd/{directory}/{path.name}"


def _still(descriptor: int, directory: Path) -> bool:
    """Whether an open descriptor is the directory that has this path now (`reset` may have made another)."""
    try:
        return os.path.samestat(os.fstat(descriptor), directory.stat())
    except OSError:
        return False


def listen(path: Path) -> socket.socket:
    """A listening socket, 0600. A file left from before is replaced: whoever calls holds the lock of its owner.

    It gets its name once it listens, so that whoever sees the file can connect.
    """
    unready = path.with_name(f"{path.name}.new")
    unready.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(address(unready))
    unready.chmod(0o600)
    listening.listen(_BACKLOG)
    listening.setblocking(False)
    unready.replace(path)
    return listening


def connect(path: Path, timeout_seconds: float) -> socket.socket:
    """A connection to the listener at `path`. Raises OSError if there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_seconds)
        connection.connect(address(path))
    except BaseException:
        connection.close()
        raise
    return connection


def peer_uid(connection: socket.socket) -> int | None:
    """The user id of whoever is at the other end, told by the kernel; None where it does not tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return int(uid)


def may_speak(connection: socket.socket) -> bool:
    """Whether the peer is this very user or root; the file's mode says the same, and this does not rest on it."""
    uid = peer_uid(connection)
    return uid is None or uid in (0, os.geteuid())


class UnixConnection(http.client.HTTPConnection):
    """HTTP/1.1 over a Unix socket: what the command line speaks to control with."""

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path
        self._timeout_seconds = timeout_seconds

    def connect(self) -> None:
        self.sock = connect(self._path, self._timeout_seconds)
