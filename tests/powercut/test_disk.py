"""The model of the disk itself: it takes nothing that was synced, and takes what was not."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from disk import BLOCK, SECTOR, Disk, File, Folder

SEEDS = range(200)
MOODS = (0.0, 0.5, 0.85)


def cuts(*paths: str) -> Iterator[tuple[Disk, Random, float]]:
    """Many new disks with synced files of these names, and a dice each."""
    for seed in SEEDS:
        disk = Disk()
        for path in paths:
            disk.add(path, File(0o600))
        disk.sync_folder("/")
        yield disk, Random(seed), MOODS[seed % 3]


def test_what_was_synced_is_there_and_what_was_not_comes_in_any_mixture() -> None:
    seen = set()
    for disk, dice, keep in cuts("/log"):
        file = disk.file("/log")
        file.write(0, b"a" * BLOCK * 2)
        file.sync()
        file.write(BLOCK, b"b" * BLOCK)
        disk.cut(dice, keep)
        assert file.visible[:BLOCK] == b"a" * BLOCK
        sectors = [bytes(file.visible[at : at + SECTOR]) for at in range(BLOCK, 2 * BLOCK, SECTOR)]
        assert set(sectors) <= {b"a" * SECTOR, b"b" * SECTOR}, "a sector is whole"
        seen.add("kept" if b"a" * SECTOR not in sectors else "gone" if b"b" * SECTOR not in sectors else "torn")
    assert seen == {"kept", "gone", "torn"}


def test_writes_reach_the_disk_in_any_order_and_a_hole_reads_as_zeros() -> None:
    later_alone = 0
    for disk, dice, keep in cuts("/log"):
        file = disk.file("/log")
        file.write(0, b"1" * BLOCK)
        file.write(BLOCK, b"2" * BLOCK)
        disk.cut(dice, keep)
        later_alone += len(file.visible) == 2 * BLOCK and file.visible[0] == 0 and file.visible[BLOCK] == ord("2")
    assert later_alone > 5


def test_a_block_that_was_written_twice_may_have_the_bytes_in_between() -> None:
    found = set()
    for disk, dice, keep in cuts("/log"):
        file = disk.file("/log")
        for version in b"xyz":
            file.write(0, bytes([version]) * BLOCK)
        disk.cut(dice, keep)
        found |= set(file.visible[::SECTOR])
    assert found >= set(b"xyz")


def test_a_file_that_was_cut_short_is_so_or_is_as_it_was() -> None:
    lengths = set()
    for disk, dice, keep in cuts("/log"):
        file = disk.file("/log")
        file.write(0, b"a" * BLOCK * 3)
        file.sync()
        file.truncate(SECTOR)
        file.write(SECTOR, b"b" * SECTOR)
        disk.cut(dice, keep)
        lengths.add(len(file.visible))
        if len(file.visible) == BLOCK * 3:
            assert file.visible == b"a" * BLOCK * 3, "a write after a truncation is not there without it"
    assert lengths == {SECTOR, 2 * SECTOR, BLOCK * 3}


def test_names_go_in_order_and_a_directory_that_was_synced_keeps_its_own() -> None:
    found = set()
    for disk, dice, keep in cuts():
        disk.add("/data", Folder(0o700))
        disk.add("/data/one", File(0o600))
        disk.sync_folder("/data")
        disk.add("/data/two", File(0o600))
        disk.file("/data/two").sync()  # its bytes, not its name
        disk.rename("/data/one", "/data/three")
        disk.cut(dice, keep)
        found.add(tuple(sorted(path[6:] for path in disk.visible if path.startswith("/data/"))))
    assert found == {("one",), ("one", "two"), ("three", "two")}


def test_a_failed_fsync_is_not_seen_before_the_cut() -> None:
    for disk, dice, keep in cuts("/log"):
        file = disk.file("/log")
        file.write(0, b"a" * SECTOR)
        file.lose_pending()
        assert file.visible == b"a" * SECTOR
        file.write(SECTOR, b"b" * SECTOR)
        file.sync()
        disk.cut(dice, keep)
        assert file.visible[:SECTOR] == bytes(SECTOR)


def test_what_is_not_there_is_said() -> None:
    disk = Disk()
    with pytest.raises(FileNotFoundError):
        disk.file("/log")
    with pytest.raises(IsADirectoryError):
        disk.file("/")
    disk.add("/data", Folder(0o700))
    disk.add("/data/one", File(0o600))
    with pytest.raises(OSError, match="not empty"):
        disk.remove("/data")
