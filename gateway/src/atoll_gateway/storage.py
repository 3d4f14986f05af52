"""What the gateway knows, on disk, so that it serves after its own restart with everybody else away.

A file is replaced whole: written beside its place, fsynced, renamed, directory fsynced. A crash at any point leaves
the old content or the new. A file that cannot be read is set aside, never overwritten in silence or deleted.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)


class Shelf:
    """Small documents by name in one private directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._newest: dict[str, bytes] = {}
        self._written: dict[str, bytes] = {}
        self._writing: asyncio.Task[None] | None = None
        self.failure = ""  # why the last write failed; empty after one that worked

    def prepare(self) -> None:
        """Makes the directory, for its owner alone. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self, name: str) -> bytes | None:
        """The document, or None if there is none or it cannot be read (logged)."""
        try:
            content = (self._directory / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.error("a stored document cannot be read", document=name, error=str(error))
            return None
        self._written[name] = content
        return content

    def set_aside(self, name: str, why: str) -> None:
        """Keeps a document that makes no sense, under another name, for whoever looks into it."""
        aside = self._directory / f"{name}.unreadable"
        _log.error("a stored document makes no sense and was set aside", document=name, why=why, kept_as=str(aside))
        (self._directory / name).replace(aside)
        self._written.pop(name, None)

    def keep(self, name: str, content: bytes) -> None:
        """Has the document written soon, off the event loop; of several quick ones only the newest."""
        if self._newest.get(name, self._written.get(name)) == content:
            return
        self._newest[name] = content
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="shelf")

    async def flush(self) -> None:
        """Returns when all that was handed over is on disk, or has failed."""
        if self._writing is not None:
            await asyncio.wait({self._writing})

    async def _write_all(self) -> None:
        while self._newest:
            name, content = self._newest.popitem()
            try:
                await asyncio.to_thread(self._replace, name, content)
            except OSError as error:
                # The front door goes on with what it knows; only its next restart would be poorer.
                self.failure = f"{name} cannot be written: {error.strerror}"
                _log.error("a document cannot be stored", document=name, error=str(error))
            else:
                self._written[name] = content
                self.failure = ""

    def _replace(self, name: str, content: bytes) -> None:
        new = self._directory / f"{name}.new"
        with new.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._directory / name)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
