"""A disk that keeps its word about fsync and about nothing else: the model behind the file system that forgets.

Every file has two images: what programs see, and what would be there after a power cut. Between them lie the changes
since the file's last fsync. A cut throws a seeded dice about each of them. What it promises is what ext4 promises, or
less:

*Data.* fsync and fdatasync make the file's bytes and its length durable, all of them. What was not synced may be on
the disk, or not, or in part, in any order: a block of 4,096 bytes shows its old bytes, the newest, or those after any
write in between; or it is torn, and each sector of 512 bytes decides for itself. A sector is whole. The length covers
what survived; at times the disk has the longer length already and not the bytes, which then read as zeros (XFS does
that; ext4 in ordered mode never, so this is the harder case).

*Truncation* is journalled: those of a file happen in order, and a write after one is not on the disk without it.

*Names.* Creating, renaming and removing are journalled, in one order for the whole disk, as ext4's journal has them: a
cut keeps a beginning of them. fsync of a directory makes them durable up to its own last one. fsync of a *file* does
not make its name durable (ext4 happens to do so, POSIX does not promise it): who forgets the directory loses the file.

*A failed fsync* (`lose_pending`): the kernel marks the pages clean and never writes them again, so the next fsync
succeeds and programs still read what a cut will take away.

Not modelled: sectors that rot by themselves, a disk that lies about flush, mmap'ed pages that were never written back
(nobody here keeps data in them: SQLite's -shm is made anew after a crash).
"""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

BLOCK: Final = 4096
SECTOR: Final = 512
_ZEROS_SHARE: Final = 0.2  # of the cuts that make a file shorter than programs saw it
_TORN_SHARE: Final = 0.5  # of the blocks that are not kept whole


@dataclass
class Tally:
    """Sectors with unsynced bytes at a cut, by what became of them."""

    kept: int = 0
    gone: int = 0
    torn_blocks: int = 0

    def add(self, other: Tally) -> None:
        """Add another file's."""
        self.kept += other.kept
        self.gone += other.gone
        self.torn_blocks += other.torn_blocks


@dataclass(frozen=True)
class Write:
    """Bytes at an offset."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    """The file's new length, shorter or longer."""

    size: int


class File:
    """Two images of one file's bytes, and the changes between them."""

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.visible = bytearray()
        self.durable = bytearray()
        self.pending: list[Write | Truncate] = []

    def write(self, offset: int, data: bytes) -> None:
        """Visible at once, durable by and by."""
        _put(self.visible, offset, data)
        self.pending.append(Write(offset, data))

    def truncate(self, size: int) -> None:
        """The same for the length."""
        _resize(self.visible, size)
        self.pending.append(Truncate(size))

    def sync(self) -> None:
        """What is visible is durable."""
        for change in self.pending:
            if isinstance(change, Write):
                _put(self.durable, change.offset, change.data)
            else:
                _resize(self.durable, change.size)
        self.pending.clear()

    def lose_pending(self) -> None:
        """A failed fsync: what was to be written is forgotten, and nobody will see that before the next cut."""
        self.pending.clear()

    def cut(self, dice: Random, keep: float) -> Tally:
        """Decide what of the changes the disk has, with the chance `keep` for each block to be kept whole."""
        truncations = [at for at, change in enumerate(self.pending) if isinstance(change, Truncate)]
        happened = dice.randint(0, len(truncations))
        until = truncations[happened] if happened < len(truncations) else len(self.pending)
        tally = Tally()
        writes: list[Write] = []
        for change in self.pending[:until]:
            if isinstance(change, Write):
                writes.append(change)
                continue
            tally.add(_settle(self.durable, writes, dice, keep))
            writes = []
            _resize(self.durable, change.size)
        tally.add(_settle(self.durable, writes, dice, keep))
        if len(self.durable) < len(self.visible) and dice.random() < _ZEROS_SHARE:
            _resize(self.durable, len(self.visible))
        self.pending.clear()
        self.visible = bytearray(self.durable)
        return tally


class Folder:
    """A directory; what is in it is said by the paths."""

    def __init__(self, mode: int) -> None:
        self.mode = mode


Node = File | Folder


@dataclass(frozen=True)
class Naming:
    """A change of names, and the directories that it concerns."""

    folders: tuple[str, ...]
    apply: Callable[[dict[str, Node]], None]


@dataclass
class Disk:
    """Paths (`/data/log`) to nodes, as they are seen and as a cut would leave them."""

    visible: dict[str, Node] = field(default_factory=lambda: {"/": Folder(0o755)})
    durable: dict[str, Node] = field(default_factory=lambda: {"/": Folder(0o755)})
    journal: list[Naming] = field(default_factory=list)

    def node(self, path: str) -> Node:
        """Raises FileNotFoundError."""
        found = self.visible.get(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return found

    def file(self, path: str) -> File:
        """Raises FileNotFoundError or IsADirectoryError."""
        found = self.node(path)
        if not isinstance(found, File):
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        return found

    def children(self, path: str) -> Iterator[str]:
        """Names in a directory."""
        before = path.rstrip("/") + "/"
        for other in self.visible:
            if other != "/" and other.startswith(before) and "/" not in other[len(before) :]:
                yield other[len(before) :]

    def add(self, path: str, node: Node) -> None:
        """A new name. Raises FileExistsError, or FileNotFoundError if its directory is not there."""
        if path in self.visible:
            raise FileExistsError(errno.EEXIST, "exists", path)
        self.node(_folder_of(path))
        self._do((_folder_of(path),), lambda names: names.__setitem__(path, node))

    def remove(self, path: str) -> None:
        """Raises FileNotFoundError, or OSError if it is a directory with something in it."""
        self.node(path)
        if next(self.children(path), None) is not None:
            raise OSError(errno.ENOTEMPTY, "not empty", path)
        self._do((_folder_of(path),), lambda names: _forget(names, path))

    def rename(self, old: str, new: str) -> None:
        """Of a file or a directory, over what had the new name."""
        self.node(old)
        self.node(_folder_of(new))
        self._do((_folder_of(old), _folder_of(new)), lambda names: _move(names, old, new))

    def sync_folder(self, path: str) -> None:
        """Names are durable up to the last one of this directory."""
        last = max((at for at, naming in enumerate(self.journal) if path in naming.folders), default=-1)
        self._harden(last + 1)

    def cut(self, dice: Random, keep: float) -> Tally:
        """The power is gone; what is seen from now on is what the disk had."""
        self._harden(dice.randint(0, len(self.journal)))
        self.journal.clear()
        self.visible = dict(self.durable)
        tally = Tally()
        for _, node in sorted(self.visible.items()):
            if isinstance(node, File):
                tally.add(node.cut(dice, keep))
        return tally

    @property
    def size(self) -> int:
        """Bytes that programs see in all files."""
        return sum(len(node.visible) for node in self.visible.values() if isinstance(node, File))

    def _do(self, folders: tuple[str, ...], apply: Callable[[dict[str, Node]], None]) -> None:
        apply(self.visible)
        self.journal.append(Naming(folders, apply))

    def _harden(self, count: int) -> None:
        for naming in self.journal[:count]:
            naming.apply(self.durable)
        del self.journal[:count]


def _folder_of(path: str) -> str:
    return path.rsplit("/", 1)[0] or "/"


def _forget(names: dict[str, Node], path: str) -> None:
    del names[path]


def _move(names: dict[str, Node], old: str, new: str) -> None:
    for path in [path for path in names if path == old or path.startswith(old + "/")]:
        names[new + path[len(old) :]] = names.pop(path)


def _put(image: bytearray, offset: int, data: bytes) -> None:
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(data)] = data


def _resize(image: bytearray, size: int) -> None:
    if size < len(image):
        del image[size:]
    else:
        image.extend(bytes(size - len(image)))


def _settle(image: bytearray, writes: list[Write], dice: Random, keep: float) -> Tally:
    """Put on the disk what the dice say of these writes, between which the file was never cut short."""
    tally = Tally()
    for block, pieces in sorted(_by_block(writes).items()):
        at = _block_time(dice, keep, len(writes))
        torn = at is None
        tally.torn_blocks += torn
        for sector, versions in sorted(pieces.items()):
            time = dice.randint(0, len(writes)) if at is None else at
            chosen = [piece for when, piece in versions if when < time]
            for piece in chosen:
                _put(image, piece.offset, piece.data)
            whole = len(chosen) == len(versions)
            tally.kept += whole
            tally.gone += not whole
            assert block * BLOCK <= sector * SECTOR < (block + 1) * BLOCK, "a sector lies in its block"
    return tally


def _block_time(dice: Random, keep: float, writes: int) -> int | None:
    """Up to which write a block is on the disk; None: it is torn, and each of its sectors has a time of its own."""
    if dice.random() < keep:
        return writes
    if dice.random() < _TORN_SHARE:
        return None
    return 0 if dice.random() < 0.5 else dice.randint(0, writes)


def _by_block(writes: list[Write]) -> dict[int, dict[int, list[tuple[int, Write]]]]:
    """block -> sector -> what was written there, each with the number of its write."""
    found: dict[int, dict[int, list[tuple[int, Write]]]] = defaultdict(lambda: defaultdict(list))
    for number, write in enumerate(writes):
        at, end = write.offset, write.offset + len(write.data)
        while at < end:
            sector = at // SECTOR
            upto = min(end, (sector + 1) * SECTOR)
            piece = Write(at, write.data[at - write.offset : upto - write.offset])
            found[at // BLOCK][sector].append((number, piece))
            at = upto
    return found
