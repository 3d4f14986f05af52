"""Jaeger, the real one: there with the system, back when it is killed, and missed by nobody when it is not there."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import tomllib
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet import LAUNCHER, REPOSITORY, Answer, Fleet, fleet, http, parts_of, write_mesh
from measured import say
from polling import poll_until

BACK_SECONDS = 5
MEMORY_MB = 200  # of Jaeger, when it has as many traces as it keeps
PROMISES = 3  # a promise in seconds fails at three times the promise
OBSERVERS = ("--only", "broker,auth,gateway,control,orders,inventory,payments,sales,notifications,jaeger")


def _query(jaeger: str, path: str, **parameters: str | int) -> Any:
    """One call of Jaeger's query API; its `data`. Pages answer 200 for anything: JSON tells."""
    answer = http("GET", f"{jaeger}{path}?{urllib.parse.urlencode(parameters)}", seconds=5)
    assert answer.status == 200, answer
    assert "json" in answer.headers["content-type"], answer.raw[:200]
    return answer.body["data"]


def _services_of(jaeger: str, service: str, order: str) -> set[str]:
    """Every service with a span in those traces of `service` that tell of this order."""
    found = set()
    for trace in _query(jaeger, "/api/traces", service=service, limit=1000):
        if order in json.dumps(trace):
            found |= {str(process["serviceName"]) for process in trace["processes"].values()}
    return found


def _running(shop: Fleet) -> dict[str, Any]:
    return poll_until(
        "jaeger to run", lambda: shop.status()["jaeger"], lambda part: part["state"] == "running", seconds=60
    )


def _all_running(shop: Fleet, *but: str) -> None:
    """A look that met a part which had no core for seconds says `unknown` until the next."""
    poll_until(
        "all to run",
        lambda: {name: part["state"] for name, part in shop.status().items() if name not in but},
        lambda states: set(states.values()) == {"running"},
        seconds=10,
    )


def _trade(shop: Fleet, invoice: str) -> str:
    """An order that is confirmed; its id. The shop works."""
    order = shop.place(invoice)
    shop.wait_order(order, "confirmed", seconds=30)
    return order


@pytest.fixture(scope="module")
def watched(jaeger_binary: Path) -> Iterator[Fleet]:
    """A system with Jaeger, whose program was brought before."""
    assert jaeger_binary
    with (
        tempfile.TemporaryDirectory(prefix="atoll-", ignore_cleanup_errors=True) as folder,
        fleet(Path(folder) / "state", None, *OBSERVERS, whole=True) as running,
    ):
        _running(running)
        yield running


def test_an_order_is_found_by_the_query_api(watched: Fleet) -> None:
    jaeger = watched.credentials["jaeger"]
    order = _trade(watched, "536365")
    services = poll_until(
        "the order's trace from gateway to sales",
        lambda: _services_of(jaeger, "orders", order),
        lambda found: {"gateway", "orders", "inventory", "payments", "sales"} <= found,
        seconds=30,
    )
    assert "jaeger" not in services  # it does not trace itself
    assert "jaeger" not in _query(jaeger, "/api/services")


def test_it_listens_on_loopback_alone(watched: Fleet) -> None:
    listening = subprocess.run(["ss", "-ltnpH"], text=True, capture_output=True, check=True).stdout.splitlines()
    mine = [line.split()[3] for line in listening if f"pid={watched.pid('jaeger')}," in line]
    assert len(mine) >= 4
    assert all(address.startswith("127.0.0.1:") for address in mine), mine


def test_killed_it_is_back_and_takes_spans_again(watched: Fleet) -> None:
    jaeger = watched.credentials["jaeger"]
    old = watched.pid("jaeger")
    began = time.monotonic()
    watched.atoll("kill", "jaeger")
    watched.wait_back("jaeger", old)
    seconds = time.monotonic() - began
    say(f"kill jaeger: back after {seconds:.1f} s (promise {BACK_SECONDS} s)")
    assert seconds < BACK_SECONDS * PROMISES
    order = _trade(watched, "536366")
    poll_until("a trace after the kill", lambda: _services_of(jaeger, "orders", order), seconds=30)


def test_stopped_and_paused_nobody_misses_it(watched: Fleet) -> None:
    watched.atoll("stop", "jaeger")
    assert watched.status()["jaeger"]["state"] == "stopped"
    _trade(watched, "536367")
    watched.atoll("start", "jaeger")
    _running(watched)
    watched.atoll("pause", "jaeger")
    _trade(watched, "536368")
    watched.atoll("resume", "jaeger")
    _running(watched)
    _all_running(watched, "agent")


# ---- absent, or somebody else's -----------------------------------------------------------------------------------


@contextmanager
def _up_with(state: Path, environment: Mapping[str, str], *words: str) -> Iterator[tuple[Fleet, str]]:
    """A system brought up under another environment, and what `up` said."""
    running = Fleet(state, REPOSITORY / "mesh.toml", whole=True)
    command = [str(LAUNCHER), "up", "--detach", "--ports", "0", "--state", str(state), *words]
    try:
        done = subprocess.run(
            command, env=os.environ | environment, cwd=REPOSITORY, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        yield running, done.stdout
    finally:
        running.atoll("down", check=False)


def test_without_any_everything_runs_and_says_so(state: Path, tmp_path: Path) -> None:
    """No `jaeger` and no `go` on PATH, an empty cache, a host of releases that nobody answers for."""
    bare = {
        "PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path), "ATOLL_RELEASES_URL": "http://127.0.0.1:9",
    }  # fmt: skip
    with _up_with(state, bare, *OBSERVERS) as (shop, _):
        part = poll_until(
            "the verdict on Jaeger", lambda: shop.status()["jaeger"], lambda part: part["state"] == "absent", seconds=30
        )
        assert "no `go` on PATH" in part["why"]
        assert "./atoll up --jaeger URL" in part["why"]
        assert "jaeger absent" in shop.atoll("status").output
        _trade(shop, "536369")
        _all_running(shop, "agent", "jaeger")


def test_somebodys_jaeger_is_used_and_none_of_ours_started(watched: Fleet, state: Path) -> None:
    """The other system's Jaeger plays the one that runs already."""
    theirs = watched.credentials["jaeger"]
    collector = f"http://127.0.0.1:{_ports(watched)['otlp_http']}"
    told, without = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector}, parts_of(REPOSITORY / "mesh.toml") & {"dashboard"}
    words = ("--jaeger", theirs, *(("--without", *without) if without else ()))
    with _up_with(state, told, *words) as (shop, said):
        assert f"{theirs}  ready; spans go to {collector}" in said
        assert "jaeger" not in shop.status()
        assert shop.credentials["jaeger"] == theirs
        order = _trade(shop, "536370")
        poll_until("the trace, there", lambda: _services_of(theirs, "orders", order), seconds=30)


def _ports(shop: Fleet) -> dict[str, Any]:
    ports: dict[str, Any] = json.loads((shop.state / "system.json").read_text())["ports"]
    return ports


# ---- storage -----------------------------------------------------------------------------------------------------


def _send(collector: str, first: int, traces: int, spans: int = 1) -> None:
    """OTLP over HTTP, as JSON: so many traces, numbered from `first`, of so many spans."""
    now = time.time_ns()
    made = [
        {
            "traceId": f"{number:032x}", "spanId": f"{number * 1000 + place + 1:016x}", "name": "work", "kind": 1,
            "startTimeUnixNano": str(now), "endTimeUnixNano": str(now + 1_000_000),
            "attributes": [{"key": "text", "value": {"stringValue": "x" * 200}}],
        }
        for number in range(first, first + traces)
        for place in range(spans)
    ]  # fmt: skip
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "stored"}}]}
    body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "test"}, "spans": made}]}]}
    answer = http("POST", f"{collector}/v1/traces", body=body)
    assert answer.status == 200, answer


def _trace(jaeger: str, number: int) -> Answer:
    return http("GET", f"{jaeger}/api/traces/{number:032x}", seconds=5)


@contextmanager
def _jaeger_alone(state: Path, tmp_path: Path, **settings: str) -> Iterator[tuple[Fleet, str, str]]:
    """A system of Jaeger and nothing else; its query API and its collector."""
    mesh = write_mesh(tmp_path / "mesh.toml", settings={"jaeger": settings})
    with fleet(state, mesh, "--only", "jaeger", whole=True) as running:
        _running(running)
        yield running, running.credentials["jaeger"], f"http://127.0.0.1:{_ports(running)['otlp_http']}"


@pytest.mark.usefixtures("jaeger_binary")
def test_badger_keeps_traces_across_a_kill(state: Path, tmp_path: Path) -> None:
    with _jaeger_alone(state, tmp_path, JAEGER_STORAGE="badger") as (shop, jaeger, collector):
        _send(collector, 1, 50)
        poll_until("the last trace", lambda: _trace(jaeger, 50).status, lambda status: status == 200, seconds=20)
        old = shop.pid("jaeger")
        shop.atoll("kill", "jaeger")
        shop.wait_back("jaeger", old)
        assert [_trace(jaeger, number).status for number in (1, 25, 50)] == [200, 200, 200]
        assert (state / "data" / "jaeger-1" / "badger" / "keys").is_dir()


@pytest.mark.usefixtures("jaeger_binary")
def test_memory_is_bounded_and_the_oldest_trace_goes_first(state: Path, tmp_path: Path) -> None:
    with _jaeger_alone(state, tmp_path, JAEGER_MEMORY_TRACES_MAX="100") as (_, jaeger, collector):
        _send(collector, 1, 100)
        poll_until("the hundredth trace", lambda: _trace(jaeger, 100).status, lambda status: status == 200, seconds=20)
        assert _trace(jaeger, 1).status == 200
        _send(collector, 101, 100)
        poll_until("the last trace", lambda: _trace(jaeger, 200).status, lambda status: status == 200, seconds=20)
        assert _trace(jaeger, 1).status == 404
        assert _trace(jaeger, 100).status == 404


@pytest.mark.usefixtures("jaeger_binary")
def test_as_many_traces_as_it_keeps_fit_its_share_of_memory(state: Path, tmp_path: Path) -> None:
    """As mesh.toml sets it, with traces of the size of an order's; more than are kept."""
    settings = tomllib.loads((REPOSITORY / "mesh.toml").read_text())["part"]["jaeger"]["settings"]
    kept = int(settings["JAEGER_MEMORY_TRACES_MAX"])
    sent = 2 * kept
    with _jaeger_alone(state, tmp_path) as (shop, jaeger, collector):
        for first in range(1, sent + 1, 50):
            _send(collector, first, 50, spans=25)
        poll_until("the last trace", lambda: _trace(jaeger, sent).status, lambda status: status == 200, seconds=30)
        held = shop.pss_bytes() / 1e6
        memory = shop.status()["jaeger"]["memory_mb"]
        say(f"jaeger with {kept} traces of 25 spans: {memory:.0f} MB (with its agent Σ PSS {held:.0f} MB)")
        assert memory < MEMORY_MB * PROMISES
