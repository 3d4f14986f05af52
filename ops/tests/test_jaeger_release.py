"""The official release: only what was pinned is taken, and a bad host costs one failed attempt."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_jaeger import FOLDER, PROGRAM, VERSION, archive, write_pins
from release_host import Host, left_in, release_host
from system import poll_until

from atoll_ops.jaeger import pins, release
from atoll_ops.jaeger.release import ReleaseError

PACKED = archive(PROGRAM.encode() + b"# " + os.urandom(40_000).hex().encode())
PATH = f"/v{VERSION}/{FOLDER}.tar.gz"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host that has the archive which is pinned."""
    with release_host() as running:
        running.add(PATH, PACKED)
        monkeypatch.setenv(release.RELEASES_VARIABLE, running.url + "/")
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """observability/jaeger with PACKED pinned."""
    return write_pins(tmp_path, PACKED)


def _fetch(folder: Path, workroom: Path, said: list[str] | None = None) -> Path:
    workroom.mkdir(exist_ok=True)
    wanted = pins.read(folder)
    assert wanted.archive is not None
    return release.fetch(wanted, wanted.archive, workroom, (said if said is not None else []).append)


def test_what_was_pinned_is_fetched_with_its_progress(host: Host, folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    program = _fetch(folder, tmp_path / "room", said)
    assert program.read_bytes().startswith(PROGRAM.encode())
    assert host.asked == [PATH]
    assert said[0] == "downloading 0 %"
    assert said[-1] == "downloading 100 %"
    assert not (tmp_path / "escaped").exists()
    assert {path.name for path in (tmp_path / "room").iterdir()} == {"jaeger", f"{FOLDER}.tar.gz"}


def test_another_file_of_the_same_size_is_refused_before_it_is_opened(
    host: Host, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("unpacked before it was verified")

    monkeypatch.setattr(release, "unpack", opened)
    host.add(PATH, bytes([PACKED[0] ^ 1]) + PACKED[1:])
    with pytest.raises(ReleaseError, match=r"its checksum is [0-9a-f]{64}, pinned is [0-9a-f]{64}"):
        _fetch(folder, tmp_path / "room")


def test_a_truncated_answer_is_refused(host: Host, folder: Path, tmp_path: Path) -> None:
    host.cut_after = 20_000
    with pytest.raises(ReleaseError, match=rf"ended after 20000 of {len(PACKED)} bytes"):
        _fetch(folder, tmp_path / "room")


def test_an_answer_that_does_not_end_is_cut_off_at_the_pinned_size(host: Host, folder: Path, tmp_path: Path) -> None:
    host.add(PATH, PACKED + bytes(50_000_000))
    with pytest.raises(ReleaseError, match=rf"more than the {len(PACKED)} bytes"):
        _fetch(folder, tmp_path / "room")
    assert (tmp_path / "room" / f"{FOLDER}.tar.gz").stat().st_size <= len(PACKED)


def test_a_host_that_falls_silent_is_given_up(
    host: Host, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "SILENCE_SECONDS_MAX", 0.2)
    host.hang_after = 8192
    with pytest.raises(ReleaseError, match="timed out"):
        _fetch(folder, tmp_path / "room")


def test_a_host_that_dribbles_is_given_up(
    host: Host, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "DOWNLOAD_SECONDS_MAX", 0.2)
    host.chunk_seconds = 0.1
    with pytest.raises(ReleaseError, match="not done after 0 s"):
        _fetch(folder, tmp_path / "room")


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_an_error_names_the_address_and_the_status(host: Host, folder: Path, tmp_path: Path, status: int) -> None:
    host.status = status
    with pytest.raises(ReleaseError, match=rf"{PATH} answers {status}"):
        _fetch(folder, tmp_path / "room")


def test_a_host_that_is_not_there_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(release.RELEASES_VARIABLE, "http://127.0.0.1:9")
    with pytest.raises(ReleaseError, match=r"127.0.0.1:9.*refused"):
        _fetch(folder, tmp_path / "room")


def test_the_host_may_send_us_to_its_storage(host: Host, folder: Path, tmp_path: Path) -> None:
    host.files = {"/storage": PACKED}
    host.redirects = {PATH: host.url + "/storage"}
    _fetch(folder, tmp_path / "room")
    assert host.asked == [PATH, "/storage"]


@pytest.mark.parametrize("elsewhere", ["http://192.0.2.1/file", "file:///etc/passwd", "ftp://127.0.0.1/file"])
def test_a_redirect_off_https_is_not_followed(host: Host, folder: Path, tmp_path: Path, elsewhere: str) -> None:
    host.redirects = {PATH: elsewhere}
    with pytest.raises(ReleaseError):
        _fetch(folder, tmp_path / "room")
    assert host.asked == [PATH]


def test_redirects_in_a_circle_end(host: Host, folder: Path, tmp_path: Path) -> None:
    host.redirects = {PATH: host.url + PATH}
    with pytest.raises(ReleaseError, match="answers 302"):
        _fetch(folder, tmp_path / "room")
    assert len(host.asked) <= release.REDIRECTS_MAX + 1


def test_a_mirror_is_https_or_loopback(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(release.RELEASES_VARIABLE, "http://mirror.example")
    with pytest.raises(ReleaseError, match=r"ATOLL_RELEASES_URL: http://mirror.example/.*: expected https://"):
        _fetch(folder, tmp_path / "room")


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (archive(name="elsewhere/jaeger"), f"there is no {FOLDER}/jaeger in it"),
        (archive(b"", kind=tarfile.SYMTYPE), "no regular file"),
        (b"no archive at all", "not a gzip file"),
        (PACKED[:-3000], "end-of-stream"),
    ],
)
def test_an_archive_that_was_pinned_by_mistake_is_refused(host: Host, tmp_path: Path, packed: bytes, said: str) -> None:
    folder = write_pins(tmp_path, packed)
    host.add(PATH, packed)
    with pytest.raises(ReleaseError, match=said):
        _fetch(folder, tmp_path / "room")
    assert not (tmp_path / "escaped").exists()


# ---- the verb ----------------------------------------------------------------------------------------------------


def _jaeger(root: Path, host: Host, cache: Path, *words: str) -> subprocess.Popen[str]:
    told = {
        "ATOLL_ROOT": str(root), "ATOLL_RELEASES_URL": host.url, "XDG_CACHE_HOME": str(cache), "PATH": "/nonexistent",
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "atoll_ops", "jaeger", *words], env=os.environ | told, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_download_leaves_nothing_and_the_next_is_whole(
    host: Host, folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    host.hang_after = 16_384
    interrupted = _jaeger(folder.parents[1], host, cache)
    poll_until("the download to be under way", lambda: any("tar.gz" in name for name in left_in(cache)))
    interrupted.send_signal(number)
    interrupted.communicate(timeout=20)
    assert interrupted.returncode == 130
    assert left_in(cache) == []
    host.hang_after = None
    said, _ = _jaeger(folder.parents[1], host, cache).communicate(timeout=60)
    path = Path(said.strip())
    assert path.read_bytes().startswith(PROGRAM.encode())
    assert left_in(cache) == sorted(str((path.parent / name).relative_to(cache)) for name in ("jaeger", "origin"))


def test_what_a_killed_one_left_is_swept_by_the_next(host: Host, folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    host.hang_after = 16_384
    killed = _jaeger(folder.parents[1], host, cache)
    poll_until("the download to be under way", lambda: any("tar.gz" in name for name in left_in(cache)))
    killed.kill()
    killed.communicate(timeout=20)
    assert left_in(cache) != []
    host.hang_after = None
    assert _jaeger(folder.parents[1], host, cache).communicate(timeout=60)[0].strip().endswith("/jaeger")
    assert len(left_in(cache)) == 2


def test_a_second_run_asks_nobody(host: Host, folder: Path, tmp_path: Path) -> None:
    paths = [_jaeger(folder.parents[1], host, tmp_path / "c").communicate(timeout=60)[0] for _ in range(2)]
    assert paths[0] == paths[1] != ""
    assert host.asked == [PATH]


def test_two_at_once_fetch_it_once(host: Host, folder: Path, tmp_path: Path) -> None:
    host.chunk_seconds = 0.05
    both = [_jaeger(folder.parents[1], host, tmp_path / "c") for _ in range(2)]
    said = [one.communicate(timeout=60) for one in both]
    assert said[0][0] == said[1][0] != ""
    assert host.asked == [PATH]


def test_the_rows_of_a_release_are_printed_for_who_pins_them(host: Host, folder: Path, tmp_path: Path) -> None:
    program = b"the program"
    for here in ("linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64"):
        name = f"jaeger-9.9.9-{here}"
        sums = f"{hashlib.sha256(program).hexdigest()} *{name}/jaeger\n"
        host.add(f"/v9.9.9/{name}.tar.gz", archive(program, f"{name}/jaeger"))
        host.add(f"/v9.9.9/{name}.sha256sum.txt", sums.encode())
    said, _ = _jaeger(folder.parents[1], host, tmp_path / "c", "--pin", "9.9.9").communicate(timeout=60)
    (tmp_path / "pins.toml").write_text(said + '[module]\npackage = "p"\njaeger_version = "v"\n')
    (tmp_path / "go.mod").touch()
    (tmp_path / "go.sum").touch()
    found = pins.read(tmp_path, "darwin-arm64")
    packed = host.files["/v9.9.9/jaeger-9.9.9-darwin-arm64.tar.gz"]
    assert found.archive == pins.Archive(hashlib.sha256(packed).hexdigest(), len(packed))
    host.add("/v9.9.9/jaeger-9.9.9-linux-amd64.sha256sum.txt", b"0000 *jaeger-9.9.9-linux-amd64/jaeger\n")
    refused = _jaeger(folder.parents[1], host, tmp_path / "c", "--pin", "9.9.9")
    assert "which" in refused.communicate(timeout=60)[1]
    assert refused.returncode == 1
