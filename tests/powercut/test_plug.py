"""The mounted disk: nothing that had a file open when the power went can go on with it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from plug import forgetful_disk

SEED = 5


def test_a_file_that_was_open_at_the_cut_is_dead_and_its_name_opens_anew(tmp_path: Path) -> None:
    with forgetful_disk(tmp_path, SEED) as (disk, plug):
        path = disk / "log"
        survivor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(survivor, b"kept", 0)
            os.fsync(survivor)
            _sync(disk)
            plug.cut()
            for _ in ("off", "on again"):
                with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                    os.pwrite(survivor, b"lost", 4)
                with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                    os.fsync(survivor)
                plug.on()
        finally:
            os.close(survivor)
        assert path.read_bytes() == b"kept"
        with path.open("ab") as file:
            file.write(b", and more")
        assert path.read_bytes() == b"kept, and more"


def test_no_name_changes_while_the_power_is_off(tmp_path: Path) -> None:
    with forgetful_disk(tmp_path, SEED) as (disk, plug):
        (disk / "log").write_bytes(b"")
        _sync(disk)
        plug.cut()
        for act in (
            lambda: (disk / "log").unlink(),
            lambda: (disk / "log").rename(disk / "other"),
            lambda: (disk / "new").write_bytes(b""),
            lambda: (disk / "folder").mkdir(),
            lambda: _sync(disk),
        ):
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                act()
        plug.on()
        assert [path.name for path in disk.iterdir()] == ["log"]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
