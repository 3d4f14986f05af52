"""A mail is there whole and once, wherever a delivery is cut off."""

import mailbox
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import atoll
from atoll_notifications.maildir import Maildir

MESSAGE = b"Subject: hello\r\n\r\nworld\r\n"


@pytest.fixture
def maildir(tmp_path: Path) -> Maildir:
    made = Maildir(tmp_path / "a" / "maildir")
    made.make()
    return made


def names(maildir: Maildir) -> list[str]:
    return sorted(path.relative_to(maildir.path).as_posix() for path in maildir.path.rglob("*") if path.is_file())


def test_a_mail_reader_finds_it(maildir: Maildir) -> None:
    maildir.deliver("e-1", MESSAGE)
    assert names(maildir) == ["new/e-1"]
    [message] = mailbox.Maildir(maildir.path, create=False)
    assert message["Subject"] == "hello"
    assert (maildir.path / "new" / "e-1").stat().st_mode & 0o777 == 0o600


def test_again_is_the_same_mail(maildir: Maildir) -> None:
    maildir.deliver("e-1", MESSAGE)
    maildir.deliver("e-1", MESSAGE)
    assert names(maildir) == ["new/e-1"]


@pytest.mark.parametrize("place", ["cur/e-1:2,S", "cur/e-1:2,", "cur/e-1"])
def test_what_a_reader_has_moved_does_not_come_back(maildir: Maildir, place: str) -> None:
    maildir.deliver("e-1", MESSAGE)
    (maildir.path / "new" / "e-1").rename(maildir.path / place)
    maildir.deliver("e-1", MESSAGE)
    assert names(maildir) == [place]


def test_a_mail_whose_name_begins_the_same_is_another(maildir: Maildir) -> None:
    (maildir.path / "cur" / "e-11:2,S").write_bytes(MESSAGE)
    maildir.deliver("e-1", MESSAGE)
    assert "new/e-1" in names(maildir)


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "fsync of new"])
def test_wherever_it_is_cut_off_the_next_try_mends_it(
    maildir: Maildir, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """And `new` never holds a part of a mail."""
    calls = 0
    fsync, rename = os.fsync, Path.rename

    def cut_off(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def second(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            cut_off()
        fsync(descriptor)

    where: dict[str, tuple[object, str, Callable[..., object]]] = {
        "write": (os, "fdopen", cut_off),
        "fsync": (os, "fsync", cut_off),
        "rename": (Path, "rename", cut_off),
        "fsync of new": (os, "fsync", second),
    }
    monkeypatch.setattr(*where[call])
    with pytest.raises(OSError, match="No space"):
        maildir.deliver("e-1", MESSAGE)
    assert [path.read_bytes() for path in (maildir.path / "new").iterdir()] in ([], [MESSAGE])
    monkeypatch.undo()
    assert rename is Path.rename
    maildir.deliver("e-1", MESSAGE)
    assert names(maildir) == ["new/e-1"]


def test_bytes_are_synced_before_they_are_seen_and_the_folder_after(
    maildir: Maildir, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def watch_fsync(descriptor: int) -> None:
        done.append("fsync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def watch_rename(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(Path, "rename", watch_rename)
    maildir.deliver("e-1", MESSAGE)
    assert done == ["fsync e-1", "rename", "fsync new", "fsync tmp"]


def test_a_place_that_can_not_be_one_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(atoll.ConfigurationError, match="NOTIFICATIONS_MAILDIR"):
        Maildir(tmp_path / "file" / "maildir").make()
