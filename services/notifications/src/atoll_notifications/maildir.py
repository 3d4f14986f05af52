"""Delivery into a maildir, so that a mail is there whole or not at all, and there once.

    tmp/NAME  write, fsync ─▶ rename ─▶ new/NAME, fsync of new/ and tmp/           a reader moves it on to cur/NAME:2,…

NAME is the mail's own: a delivery that is repeated, because the process died before its database knew of the first,
takes the same place. What it must not do is put a mail back into `new` that a reader has moved to `cur` meanwhile.
"""

import os
from pathlib import Path

import atoll

_FOLDERS = ("tmp", "new", "cur")


class Maildir:
    """One maildir. Blocking: call `deliver` off the event loop. All errors are OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """Makes what is missing of it. Raises ConfigurationError if that can not be done."""
        try:
            for folder in _FOLDERS:
                (self.path / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            _fsync_folder(self.path)
            _fsync_folder(self.path.parent)
        except OSError as error:
            raise atoll.ConfigurationError(
                f"NOTIFICATIONS_MAILDIR is {str(self.path)!r}: expected a maildir, or a place to make one:"
                f" {error.strerror}"
            ) from None

    def deliver(self, name: str, message: bytes) -> None:
        """Puts the message into `new`, on the disk, unless it lies in the maildir already."""
        if self._has(name):
            return
        tmp, new = self.path / "tmp" / name, self.path / "new" / name
        descriptor = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(message)
            file.flush()
            os.fsync(descriptor)
        tmp.rename(new)
        self._sync()

    def _has(self, name: str) -> bool:
        """Did an earlier life deliver it? Its rename may not have reached the disk yet."""
        if (self.path / "new" / name).exists() or (self.path / "cur" / name).exists() or self._read(name):
            self._sync()
            return True
        return False

    def _read(self, name: str) -> bool:
        """Has a reader moved it to `cur`, where a name goes on with its flags?"""
        with os.scandir(self.path / "cur") as entries:
            return any(entry.name.startswith(f"{name}:") for entry in entries)

    def _sync(self) -> None:
        _fsync_folder(self.path / "new")
        _fsync_folder(self.path / "tmp")


def _fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
