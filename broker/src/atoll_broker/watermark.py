"""How far the log has come, beside the log: what notices that SQLite has quietly given up its newest commits.

The write-ahead log is a chain of checksums, and after a crash SQLite takes the longest part of it that fits: that is
how it recognises a torn tail. A bit that flips in it later looks the same to SQLite, so it would drop that commit and
all that came after it, acknowledged or not, without a word. The watermark says how many commits there were:

    0      8          16       24         32          48    52
    "ATOLLWM1" commits  next_seq  (zero)   log id (hex)  crc32        in one sector; the file has 512 bytes

It is written after each commit, never before the commit's own flush, so it can only be behind, unless commits are gone.
Writing is a write into the page cache, which survives the death of this process; it is flushed once a second and with
each checkpoint, off the path of any ack. So after a kill it is exact; after a power cut it may be a second behind, and
what rots exactly there and then is not noticed.

A database that is ahead is the usual end of a crash. A watermark that is ahead stops the broker, and so does a log that
is not there at all. A watermark that is itself broken or missing is made anew, with a warning.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from time import monotonic
from typing import Final

import msgspec
import structlog

from .errors import StorageFailedError

SIZE: Final = 512
FLUSH_SECONDS: Final = 1.0
_MAGIC: Final = b"ATOLLWM1"
_LAYOUT: Final = struct.Struct("<8sQQQ16s")
_CRC: Final = struct.Struct("<I")


class Extent(msgspec.Struct, frozen=True):
    """Where a log stands."""

    log_id: str
    commits: int
    next_seq: int


class Watermark:
    """One file, open as long as the database is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._dirty_since: float | None = None

    def compare(self, found: Extent | None) -> None:
        """With what the database says (None: it is a new one). Raises StorageFailedError if that is behind."""
        said = self._read()
        if isinstance(said, Extent):
            self._compare(said, found)
        elif found is not None and found.commits:  # none were counted before there was a watermark
            structlog.get_logger().warning(f"the watermark was {said}: it is made anew", file=self._path.name)

    def open(self) -> None:
        """For writing. The file has its size, durably, from its first byte on, so that raising it never allocates."""
        whole = isinstance(self._read(), Extent)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not whole:
            os.pwrite(self._descriptor, bytes(SIZE), 0)
            os.fsync(self._descriptor)

    def raise_to(self, extent: Extent) -> None:
        """After its commit was flushed."""
        os.pwrite(self._opened(), _pack(extent), 0)
        if self._dirty_since is None:
            self._dirty_since = monotonic()

    @property
    def flush_due(self) -> bool:
        since = self._dirty_since  # read once: the writer's thread may be flushing
        return since is not None and monotonic() - since >= FLUSH_SECONDS

    def flush(self) -> None:
        if self._dirty_since is not None:
            os.fdatasync(self._opened())
            self._dirty_since = None

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _opened(self) -> int:
        assert self._descriptor is not None, "the watermark is not open"
        return self._descriptor

    def _read(self) -> Extent | str:
        """What it says, or why it says nothing."""
        try:
            return _unpack(self._path.read_bytes()) or "broken"
        except FileNotFoundError:
            return "missing"

    def _compare(self, said: Extent, found: Extent | None) -> None:
        advice = f"; if this log was put back on purpose, remove {self._path.name}"
        if found is None:
            raise StorageFailedError(f"the log is gone: {said.commits} commits were made, there is no database{advice}")
        if said.log_id != found.log_id:
            raise StorageFailedError(f"the log is {found.log_id}, the watermark that of {said.log_id}{advice}")
        if said.commits > found.commits or said.next_seq > found.next_seq:
            lost = f"{said.commits} commits were made, the last of event {said.next_seq - 1}; the database has "
            raise StorageFailedError(f"commits are gone: {lost}{found.commits} and {found.next_seq - 1}{advice}")


def _pack(extent: Extent) -> bytes:
    head = _LAYOUT.pack(_MAGIC, extent.commits, extent.next_seq, 0, extent.log_id.encode())
    return head + _CRC.pack(zlib.crc32(head))


def _unpack(data: bytes) -> Extent | None:
    head, rest = data[: _LAYOUT.size], data[_LAYOUT.size :]
    if len(data) < _LAYOUT.size + _CRC.size or _CRC.unpack_from(rest)[0] != zlib.crc32(head):
        return None
    magic, commits, next_seq, zero, log_id = _LAYOUT.unpack(head)
    if magic != _MAGIC or zero or not log_id.isascii():
        return None
    return Extent(log_id.decode(), commits, next_seq)
