"""Where a Jaeger comes from, in order, and what is said where there is none. Go and Jaeger are stand-ins here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from fake_jaeger import FOLDER, GO, PROGRAM, REAL, VERSION, archive, write_pins, write_program
from release_host import left_in, release_host
from system import poll_until

from atoll_ops import keys, mesh, ports
from atoll_ops.errors import MeshError, OperationError
from atoll_ops.jaeger import bring, build, cache, existing, pins, settings
from atoll_ops.jaeger.bring import AbsentError
from atoll_ops.jaeger.errand import Errand
from atoll_ops.launch import Plan, environments, variables
from atoll_ops.slots import Slot
from atoll_ops.state import State


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, nothing on PATH, and no host of releases that answers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("ATOLL_RELEASES_URL", "http://127.0.0.1:9")


# ---- the order ---------------------------------------------------------------------------------------------------


def test_one_on_path_comes_first(tmp_path: Path) -> None:
    folder = write_pins(tmp_path, None)
    write_program(tmp_path / "bin", "jaeger", PROGRAM)
    write_program(tmp_path / "bin", "go", GO)
    found = bring.bring(folder, print)
    assert found.path == tmp_path / "bin" / "jaeger"
    assert found.has_ui
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "stranger",
    [
        PROGRAM.replace(f"v{VERSION}", "v1.76.0"),  # an old one
        "#!/bin/sh\nsleep 0; echo some other tool\n",
        "#!/nonexistent/interpreter\n",
        PROGRAM.replace('if words[:1] == ["validate"]:', 'if words[:1] == ["validate"]:\n    sys.exit("no such key")'),
    ],
)
def test_what_is_no_jaeger_2_is_passed_over(tmp_path: Path, stranger: str) -> None:
    folder = write_pins(tmp_path, None)
    write_program(tmp_path / "bin", "jaeger", stranger)
    write_program(tmp_path / "bin", "go", GO)
    assert bring.bring(folder, print).origin == "built from source 2.98.0"


def test_the_release_comes_before_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = archive()
    folder = write_pins(tmp_path, packed)
    write_program(tmp_path / "bin", "go", GO)
    with release_host() as host:
        host.add(f"/v{VERSION}/{FOLDER}.tar.gz", packed)
        monkeypatch.setenv("ATOLL_RELEASES_URL", host.url)
        found = bring.bring(folder, print)
    assert (found.origin, found.has_ui) == (f"official release {VERSION}", True)
    assert bring.bring(folder, print) == found  # from the cache: the host is gone


def test_without_a_release_go_builds_it_with_progress(tmp_path: Path) -> None:
    folder = write_pins(tmp_path, b"what the host does not have")
    write_program(tmp_path / "bin", "go", GO)
    said: list[str] = []
    found = bring.bring(folder, said.append)
    assert (found.origin, found.has_ui) == ("built from source 2.98.0", False)
    percent = [int(text.split()[1]) for text in said if re.fullmatch(r"building \d+ %", text)]
    assert percent == sorted(percent)
    assert {0, 50, 99} <= set(percent)
    assert bring.bring(folder, print) == found


def test_a_release_that_does_not_take_our_files_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = archive(b"#!/bin/sh\nexit 3\n")
    folder = write_pins(tmp_path, packed)
    write_program(tmp_path / "bin", "go", GO)
    with release_host() as host:
        host.add(f"/v{VERSION}/{FOLDER}.tar.gz", packed)
        monkeypatch.setenv("ATOLL_RELEASES_URL", host.url)
        assert bring.bring(folder, print).origin == "built from source 2.98.0"


def test_none_at_all_says_why_and_what_to_do(tmp_path: Path) -> None:
    folder = write_pins(tmp_path, None)
    with pytest.raises(AbsentError) as absent:
        bring.bring(folder, print)
    said = str(absent.value)
    assert f"no pinned release for {pins.this_platform()}" in said
    assert "no `go` on PATH" in said
    assert "install Go 1.24.6 or newer, or use one that runs: ./atoll up --jaeger URL" in said
    assert bring.prospect(folder).startswith("none can be had: ")
    assert left_in(tmp_path / "cache") == []


def test_a_build_that_fails_says_the_line_that_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pins(tmp_path, None)
    write_program(tmp_path / "bin", "go", GO)
    monkeypatch.setenv("GOFAKE_FAILS", "go.mod requires go >= 1.24.6 (running go 1.20.1)")
    with pytest.raises(AbsentError, match=r"go list: go: go.mod requires go >= 1.24.6 \(running go 1.20.1\)"):
        bring.bring(folder, print)
    assert left_in(tmp_path / "cache") == []


def test_a_cache_that_cannot_be_written_is_a_reason_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_pins(tmp_path, None)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(AbsentError, match="the cache cannot be written: Not a directory"):
        bring.bring(folder, print)


def test_a_changed_pin_never_meets_an_old_binary(tmp_path: Path) -> None:
    folder = write_pins(tmp_path, None)
    before = pins.read(folder).digest
    assert pins.read(folder, "plan9-mips").digest != before
    for name in ("pins.toml", "go.mod", "go.sum"):
        (folder / name).write_text((folder / name).read_text() + "\n")
        assert pins.read(folder).digest != before
        before = pins.read(folder).digest


def test_what_a_power_cut_left_empty_is_made_again(tmp_path: Path) -> None:
    folder = write_pins(tmp_path, None)
    write_program(tmp_path / "bin", "go", GO)
    made = bring.bring(folder, print).path
    made.write_bytes(b"")
    found = bring.bring(folder, print)
    assert found.path == made
    assert found.path.stat().st_size > 0
    assert not bring.unfit(found.path, folder)


def test_a_binary_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pins(tmp_path, None)
    write_program(tmp_path / "bin", "go", GO)
    place = cache.Place(pins.read(folder).digest)
    synced: dict[str, bool] = {}

    def fsync(descriptor: int) -> None:
        synced[Path(f"/proc/self/fd/{descriptor}").readlink().name] = place.folder.exists()
        real(descriptor)

    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    bring.bring(folder, print)
    assert synced == {"jaeger": False, "origin": False, "place": False}


def test_two_at_once_build_it_once(tmp_path: Path) -> None:
    write_pins(tmp_path, None)
    write_program(tmp_path / "bin", "go", GO)
    log = tmp_path / "builds"
    told = {"ATOLL_ROOT": str(tmp_path), "GOFAKE_LOG": str(log), "GOFAKE_SECONDS": "5"}
    both = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", "atoll_ops", "jaeger"], env=os.environ | told, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [one.communicate(timeout=60) for one in both]
    assert said[0][0] == said[1][0] != ""
    assert log.read_text() == "build\n"
    assert all("building" in errors for _, errors in said)  # the one that waits hears how far the other is


def test_the_cache_is_where_users_have_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache.root() == Path("/elsewhere/atoll")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    monkeypatch.setenv("HOME", "/users/of")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.root() == Path("/users/of/.cache/atoll")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.root() == Path("/users/of/Library/Caches/atoll")


def test_the_repositorys_own_pins_are_whole() -> None:
    read = pins.read(REAL, "linux-amd64")
    assert read.archive is not None
    for archive_pinned in read.release.archives.values():
        assert re.fullmatch(r"[0-9a-f]{64}", archive_pinned.sha256)
        assert archive_pinned.bytes > 10_000_000
    assert build.needed(read) == "Go 1.24.6 or newer"
    required = (REAL / "go.mod").read_text()
    assert f"tool {read.module.package}" in required
    assert "github.com/jaegertracing/jaeger v1.76.0" in required  # which is 2.13.0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version", "versoin", "unknown field `versoin`|missing required field"),
        ("[module]", "[modul]", "modul"),
        ('"2.98.0"', "2", "jaeger_version"),
    ],
)
def test_wrong_pins_name_the_field(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = write_pins(tmp_path, None) / "pins.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(OperationError, match=said):
        pins.read(path.parent)


# ---- settings and what the parts are told ------------------------------------------------------------------------


def test_settings_that_are_right() -> None:
    settings.check({}, "x")
    settings.check({"JAEGER_STORAGE": "badger", "JAEGER_MEMORY_TRACES_MAX": "5000", "GOMEMLIMIT": "200MiB"}, "x")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"JAEGER_STORAGE": "cassandra"}, "x.JAEGER_STORAGE: expected memory or badger, not 'cassandra'"),
        ({"JAEGER_STORAGE": ""}, "x.JAEGER_STORAGE: expected memory or badger, not ''"),
        ({"JAEGER_MEMORY_TRACES_MAX": "many"}, "x.JAEGER_MEMORY_TRACES_MAX: expected a number"),
        ({"JAEGER_MEMORY_TRACES_MAX": "0"}, "from 1 to 1000000, not '0'"),
        ({"JAEGER_QUERY_PORT": "1"}, "x.JAEGER_QUERY_PORT: expected one of JAEGER_STORAGE"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(given: dict[str, str], said: str) -> None:
    with pytest.raises(MeshError, match=re.escape(said)):
        settings.check(given, "x")


def _plan(tmp_path: Path, jaeger: str = "") -> Plan:
    path = tmp_path / "mesh.toml"
    path.write_text(
        '[part.one]\npath = "."\nport = 20\n'
        '[part.jaeger]\npath = "observability/jaeger"\nkind = "tool"\nport = 5\nready = "/status"\n'
    )
    page = mesh.read(path, tmp_path)
    return Plan(tmp_path, State(tmp_path / "state"), page, ports.Ports.of(page, 9000), jaeger)


def test_jaeger_is_told_its_ports_and_who_brings_it_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    monkeypatch.setenv("GOPROXY", "https://goproxy.example")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/secret")
    plan = _plan(tmp_path)
    told = variables(plan, plan.mesh.parts[keys.JAEGER], Slot(keys.JAEGER))
    names = ("JAEGER_HOST", "JAEGER_QUERY_PORT", "JAEGER_OTLP_GRPC_PORT", "JAEGER_OTLP_HTTP_PORT", "JAEGER_HEALTH_PORT")
    assert [told[name] for name in names] == ["127.0.0.1", "9002", "9003", "9004", "9005"]
    assert told["https_proxy"] == "http://proxy.example"
    assert told["GOPROXY"] == "https://goproxy.example"
    assert told["ATOLL_RELEASES_URL"] == "http://127.0.0.1:9"
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in told
    other = variables(plan, plan.mesh.parts["one"], Slot("one"))
    assert not other.keys() & {"https_proxy", "GOPROXY", "ATOLL_RELEASES_URL", *names}
    assert [one.name for one in environments(plan.mesh)] == [tmp_path.name]


def test_spans_go_where_the_jaeger_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert _plan(tmp_path).site.collector == "http://127.0.0.1:9004"
    assert _plan(tmp_path, "http://traces.example:16686").site.collector == "http://traces.example:4318"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.example")
    assert _plan(tmp_path, "http://traces.example:16686").site.collector == "http://collector.example"


@pytest.mark.parametrize(
    ("given", "kept", "spans"),
    [
        ("http://127.0.0.1:16686/", "http://127.0.0.1:16686", "http://127.0.0.1:4318"),
        ("https://jaeger.example/base/", "https://jaeger.example/base", "https://jaeger.example:4318"),
        ("http://[::1]:16686", "http://[::1]:16686", "http://[::1]:4318"),
    ],
)
def test_an_address_of_somebodys_jaeger(given: str, kept: str, spans: str) -> None:
    assert existing.query_url(given) == kept
    assert existing.otlp_url(kept) == spans


@pytest.mark.parametrize(
    "given",
    ["jaeger", "127.0.0.1:16686", "ftp://host", "http://", "http://host:port", "http://host:0", "http://a b",
     "http://user:secret@host", "http://host?x=1", "http://host#x", "http://[::1"],
)  # fmt: skip
def test_what_is_no_address_is_refused_in_a_line(given: str) -> None:
    with pytest.raises(OperationError, match=r"--jaeger .*: expected the address of its query API") as refused:
        existing.query_url(given)
    assert refused.value.code == 2
    assert "\n" not in str(refused.value)


def test_a_stranger_at_the_address_is_told_from_a_jaeger() -> None:
    with release_host() as host:
        host.add("/good/api/services", b'{"data": null, "total": 0}')
        host.add("/page/api/services", b"<html>anything, with 200</html>")
        assert existing.silence(host.url + "/good") == ""
        assert existing.silence(host.url + "/page") == "/api/services answers something else"
        assert existing.silence(host.url + "/none") == "/api/services answers 404"
    assert "refused" in existing.silence(host.url)


# ---- `./atoll test` ----------------------------------------------------------------------------------------------


def test_tests_get_it_meanwhile_and_hear_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pins(tmp_path, None)
    write_program(tmp_path / "bin", "go", GO)
    monkeypatch.setenv("GOFAKE_SECONDS", "2")
    errand = Errand(tmp_path, tmp_path / "log")
    heard: list[str] = []
    assert errand.wait(lambda name, text: heard.append(f"{name}: {text}"))
    assert any(re.fullmatch(r"jaeger: building \d+ %", line) for line in heard), heard
    assert heard == list(dict.fromkeys(heard))  # a line once


def test_tests_hear_why_there_is_none(tmp_path: Path) -> None:
    write_pins(tmp_path, None)
    errand = Errand(tmp_path, tmp_path / "log")
    heard: list[str] = []
    assert not errand.wait(lambda _, text: heard.append(text))
    assert "jaeger is absent: no pinned release" in heard[-1]


def test_an_errand_that_is_ended_ends_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pins(tmp_path, None)
    go = str(write_program(tmp_path / "bin", "go", GO))
    monkeypatch.setenv("GOFAKE_SECONDS", "60")

    def compilers() -> list[int]:
        return [one.pid for one in psutil.process_iter(["cmdline"]) if go in (one.info["cmdline"] or ())]

    errand = Errand(tmp_path, tmp_path / "log")
    try:
        poll_until("the build to run", compilers)
    finally:
        errand.end()
    assert compilers() == []
    assert left_in(tmp_path / "cache") == []
