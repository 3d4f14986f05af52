"""Jaeger as a part: brought in its slot while everything runs, and operated like any other. (A stand-in of it.)"""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import psutil
import pytest
from fake_jaeger import GO, PROGRAM, archive, write_pins, write_program
from release_host import left_in, release_host
from system import System, poll_until


@pytest.fixture
def looked(system: System, tmp_path: Path) -> System:
    """The system with a part `jaeger`; nothing on PATH, an empty cache, no host of releases."""
    write_pins(tmp_path, None)
    page = tmp_path / "mesh.toml"
    table = '\n[part.jaeger]\npath = "observability/jaeger"\nkind = "tool"\nport = 5\nready = "/status"\n'
    page.write_text(page.read_text() + table)
    system.told = {
        "PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "ATOLL_RELEASES_URL": "http://127.0.0.1:9", "GOFAKE_SECONDS": "0", "OTEL_EXPORTER_OTLP_ENDPOINT": "",
    }  # fmt: skip
    return system


def _line(said: str) -> str:
    return next(line for line in said.splitlines() if line.startswith("jaeger "))


def test_it_starts_with_the_system_and_is_killed_stopped_and_paused_like_any_part(
    looked: System, tmp_path: Path
) -> None:
    write_program(tmp_path / "bin", "jaeger", PROGRAM)
    looked.up()
    part = looked.wait_running("jaeger")
    assert part["kind"] == "tool"
    looked.run("kill", "jaeger")
    again = looked.wait_running("jaeger", not_pid=part["pid"])
    assert again["restarts"] == 1
    os.kill(again["pid"], signal.SIGKILL)
    looked.wait_running("jaeger", not_pid=again["pid"])
    looked.run("pause", "jaeger")
    assert looked.part("jaeger")["state"] == "paused"
    looked.run("resume", "jaeger")
    looked.run("stop", "jaeger")
    assert looked.part("jaeger")["state"] == "stopped"
    assert looked.part("one")["state"] == "running"
    looked.run("start", "jaeger")
    looked.kill_agent()
    assert _line(looked.up().output).endswith(" ready")


def test_nothing_waits_while_it_is_built(looked: System, tmp_path: Path) -> None:
    write_program(tmp_path / "bin", "go", GO)
    looked.told["GOFAKE_SECONDS"] = "8"
    said = looked.up().output
    assert "one            ready" in said
    assert "(will be at http://127.0.0.1:" in _line(said)
    part = poll_until(
        "a percentage in status",
        lambda: looked.part("jaeger"),
        lambda part: re.fullmatch(r"building [1-9]0 %", part["why"]),
    )
    assert part["state"] == "starting"
    assert looked.wait_running("jaeger")["why"] == "has no UI: built from source 2.98.0"


def test_the_next_up_finds_it_in_the_cache_and_says_that_it_has_no_ui(looked: System, tmp_path: Path) -> None:
    write_program(tmp_path / "bin", "go", GO)
    looked.up()
    looked.wait_running("jaeger")
    looked.run("down")
    (tmp_path / "bin" / "go").unlink()
    looked.up()
    looked.wait_running("jaeger")
    looked.kill_agent()
    assert _line(looked.up().output).endswith("ready (has no UI: built from source 2.98.0)")
    assert "built from source 2.98.0" in looked.run("doctor", check=False).output


@pytest.mark.parametrize("verb", ["stop", "down"])
def test_a_build_ends_with_its_slot(looked: System, tmp_path: Path, verb: str) -> None:
    write_program(tmp_path / "bin", "go", GO)
    looked.told["GOFAKE_SECONDS"] = "60"
    looked.up()
    poll_until("the build to run", lambda: _compilers(tmp_path))
    looked.run(*(("stop", "jaeger") if verb == "stop" else ("down",)))
    assert _compilers(tmp_path) == []
    assert left_in(tmp_path / "cache") == []


def test_a_killed_build_takes_its_compilers_along_and_begins_again(looked: System, tmp_path: Path) -> None:
    write_program(tmp_path / "bin", "go", GO)
    looked.told["GOFAKE_SECONDS"] = "60"
    looked.up()
    (old,) = poll_until("the build to run", lambda: _compilers(tmp_path))
    os.kill(looked.part("jaeger")["pid"], signal.SIGKILL)
    poll_until("another build, alone", lambda: _compilers(tmp_path), lambda pids: pids and old not in pids)


def _compilers(tmp_path: Path) -> list[int]:
    words = str(tmp_path / "bin" / "go")
    return [one.pid for one in psutil.process_iter(["cmdline"]) if words in (one.info["cmdline"] or ())]


def test_absent_everything_runs_and_says_so(looked: System, tmp_path: Path) -> None:
    looked.up()
    part = poll_until("the verdict", lambda: looked.part("jaeger"), lambda part: part["state"] == "absent")
    assert "no `go` on PATH" in part["why"]
    assert "./atoll up --jaeger URL" in part["why"]
    assert (part["wanted"], part["restarts"], part["pid"]) == ("up", 0, None)
    said = looked.run("status").output
    assert "–  jaeger/1  absent" in said
    assert "2 of 2 running, jaeger absent; agent pid" in said
    seen = looked.run("doctor", check=False).output
    assert "– jaeger is absent, everything else runs: no pinned release" in seen
    assert "– jaeger: none can be had: " in seen
    looked.kill_agent()
    looked.up()
    poll_until("the verdict", lambda: looked.part("jaeger")["state"] == "absent")
    refused = looked.run("kill", "jaeger", check=False)
    assert "has no process to kill" in refused.output
    failed = looked.run("start", "jaeger", check=False)
    assert failed.code == 1
    assert "failed (absent: " in failed.output
    write_program(tmp_path / "bin", "jaeger", PROGRAM)  # somebody installs it
    assert "started" in looked.run("start", "jaeger").output
    assert looked.part("jaeger")["state"] == "running"


def test_a_taken_port_of_jaegers_stops_nothing_and_names_the_way_out(looked: System, tmp_path: Path) -> None:
    write_program(tmp_path / "bin", "jaeger", PROGRAM)
    looked.up()
    looked.wait_running("jaeger")
    query = looked.part("jaeger")["port"] - 3
    looked.run("stop", "jaeger")
    with socket.create_server(("127.0.0.1", query)):
        failed = looked.run("start", "jaeger", check=False)
        assert failed.code == 1
        why = looked.part("jaeger")["why"]
        assert f"port {query} (Jaeger UI) is taken" in why
        assert f"./atoll up --jaeger http://127.0.0.1:{query}" in why
    looked.run("start", "jaeger")


def test_badger_is_chosen_by_its_setting_and_anything_else_is_refused(looked: System, tmp_path: Path) -> None:
    write_program(tmp_path / "bin", "jaeger", PROGRAM)
    page = tmp_path / "mesh.toml"
    plain = page.read_text()
    page.write_text(plain + '[part.jaeger.settings]\nJAEGER_STORAGE = "tape"\n')
    refused = looked.up(check=False)
    assert refused.code == 2
    assert "part.jaeger.settings.JAEGER_STORAGE: expected memory or badger, not 'tape'" in refused.output
    page.write_text(plain + '[part.jaeger.settings]\nJAEGER_STORAGE = "badger"\n')
    looked.up()
    looked.wait_running("jaeger")
    log = (looked.state / "logs" / "jaeger-1.log").read_text()
    assert f"fake: storage storage-badger.yaml data {looked.state}/data/jaeger-1/badger" in log


def test_somebodys_jaeger_is_used_instead_of_ours(looked: System) -> None:
    with release_host() as host:
        host.add("/api/services", b'{"data": ["one"]}')
        said = looked.up("--jaeger", host.url).output
        assert _line(said) == f"jaeger         {host.url}  ready; spans go to http://127.0.0.1:4318"
        assert [part["name"] for part in looked.snapshot()["parts"]] == ["one", "two"]
        assert f'"jaeger": "{host.url}"' in (looked.state / "credentials.json").read_text()
        told = next(one.environ() for one in looked.processes() if one.environ().get("ATOLL_SLOT") == "one/1")
        assert told["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4318"
        assert f"✓ jaeger: {host.url} answers" in looked.run("doctor", check=False).output
        looked.run("down")
    said = looked.up("--jaeger", host.url).output
    assert "does not answer now: " in _line(said)
    looked.run("down")
    refused = looked.up("--jaeger", "localhost:16686", check=False)
    assert refused.code == 2
    assert refused.output.count("\n") == 1


def test_a_release_is_fetched_in_the_slot_with_its_progress(looked: System, tmp_path: Path) -> None:
    packed = archive(PROGRAM.encode() + b"# " + os.urandom(60_000).hex().encode())
    write_pins(tmp_path, packed)
    with release_host() as host:
        from test_jaeger_release import PATH

        host.add(PATH, packed)
        host.chunk_seconds = 0.3
        looked.told["ATOLL_RELEASES_URL"] = host.url
        looked.up()
        poll_until("a percentage", lambda: looked.part("jaeger")["why"], lambda why: why.startswith("downloading "))
        assert looked.wait_running("jaeger")["why"] == ""
