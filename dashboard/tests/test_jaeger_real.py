"""Jaeger's client against the real Jaeger, where this machine has one (`./atoll up` brings it)."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from serving import free_port, until

from atoll_dashboard import waterfall
from atoll_dashboard.jaeger import Jaeger, Search

CONFIGURATION = Path(__file__).parents[2] / "observability" / "jaeger"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no Jaeger that hangs."""
    monkeypatch.setattr("atoll_dashboard.jaeger._PATIENCE_SECONDS", 10.0)


def binary() -> str | None:
    """The one that is there, on PATH or brought before."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    brought = sorted((cache / "atoll" / "jaeger").glob("*/jaeger"))
    return shutil.which("jaeger") or next((str(path) for path in brought if os.access(path, os.X_OK)), None)


@pytest.fixture(scope="module")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Jaeger, str]]:
    """A real one, and where it takes spans."""
    found = binary()
    if found is None:
        why = "no Jaeger on this machine: `./atoll jaeger` brings one"
        if os.environ.get("CI"):
            pytest.fail(f"on CI nothing is left out: {why}")
        pytest.skip(why)
    names = ("JAEGER_QUERY_PORT", "JAEGER_OTLP_HTTP_PORT", "JAEGER_OTLP_GRPC_PORT", "JAEGER_HEALTH_PORT")
    ports = {name: str(free_port()) for name in names}
    files = [f"--config={CONFIGURATION / name}" for name in ("jaeger.yaml", "storage-memory.yaml")]
    log = (tmp_path_factory.mktemp("jaeger") / "log").open("wb")
    process = subprocess.Popen([found, *files], env=os.environ | ports, stdout=log, stderr=log)
    query = f"http://127.0.0.1:{ports['JAEGER_QUERY_PORT']}"
    try:
        until("Jaeger answers", lambda: _answers(query), 60)
        until("it takes spans", lambda: _takes(int(ports["JAEGER_OTLP_HTTP_PORT"])), 60)
        yield Jaeger(query), f"http://127.0.0.1:{ports['JAEGER_OTLP_HTTP_PORT']}/v1/traces"
    finally:
        process.kill()
        process.wait()
        log.close()


def _answers(query: str) -> bool:
    try:
        return requests.get(f"{query}/api/services", timeout=1).status_code == 200
    except requests.RequestException:
        return False


def _takes(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def attribute(key: str, text: str) -> dict[str, Any]:
    """As OTLP writes it in JSON."""
    return {"key": key, "value": {"stringValue": text}}


def send(where: str, service: str, *spans: dict[str, Any]) -> None:
    """Spans of a service, by OTLP over HTTP."""
    resource = {"attributes": [attribute("service.name", service)]}
    told = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]}
    headers = {"Content-Type": "application/json"}
    requests.post(where, data=json.dumps(told), headers=headers, timeout=5).raise_for_status()


def span(trace: str, name: str, parent: str | None = None, kind: int = 1, **more: Any) -> dict[str, Any]:
    """A span of 20 ms, now."""
    now = time.time_ns()
    made = {"traceId": trace, "spanId": secrets.token_hex(8), "name": name, "kind": kind, **more}
    return (
        made
        | {"startTimeUnixNano": now, "endTimeUnixNano": now + 20_000_000}
        | ({"parentSpanId": parent} if parent else {})
    )


def test_a_trace_is_found_and_drawn(jaeger: tuple[Jaeger, str]) -> None:
    client, where = jaeger
    trace = secrets.token_hex(16)
    root = span(trace, "POST /orders", kind=2, attributes=[attribute("http.route", "/orders")])
    sent = span(trace, "publish orders", root["spanId"], kind=4)
    taken = span(
        trace, "process orders", sent["spanId"], kind=5, status={"code": 2, "message": "no"},
        links=[{"traceId": trace, "spanId": root["spanId"]}],
    )  # fmt: skip
    send(where, "orders", root, sent)
    send(where, "payments", taken)
    until("the whole trace", lambda: (found := client.trace(trace)) is not None and len(found.spans) == 3, 20)
    found = client.trace(trace)
    assert found is not None
    head = found.head
    assert (head.root_service, head.root_name, head.spans, head.errors) == ("orders", "POST /orders", 3, 1)
    assert head.services == ("orders", "payments")
    assert abs(head.started_at - time.time()) < 60
    assert head.duration_ms == pytest.approx(20, abs=15)
    kinds = {one.name: one.kind for one in found.spans}
    assert kinds == {"POST /orders": "server", "publish orders": "producer", "process orders": "consumer"}
    assert [bar.depth for bar in waterfall.bars(found.spans)] == [0, 1, 2]
    assert found.spans[0].attributes["http.route"] == "/orders"
    last = found.spans[-1]
    assert last.error
    assert last.links == (root["spanId"],)


def test_the_list_is_filtered_as_asked(jaeger: tuple[Jaeger, str]) -> None:
    client, where = jaeger
    good, bad = secrets.token_hex(16), secrets.token_hex(16)
    order = secrets.token_hex(4)
    borne = [attribute("cloudevents.event_subject", order)]
    send(where, "sales", span(good, "GET /sales", attributes=borne), span(bad, "GET /sales", status={"code": 2}))

    def found(service: str = "sales", **asked: Any) -> list[str]:
        return [one.id for one in client.search(Search(service, **asked))]

    until("both", lambda: {good, bad} <= set(found(limit=20)), 20)
    assert found(error=True) == [bad]
    assert found(attribute=("cloudevents.event_subject", order)) == [good]
    assert found(attribute=("cloudevents.event_subject", order[::-1] + "x")) == []
    assert found(attribute=("nobody's", order)) == []
    assert found(min_ms=5000) == []
    assert found(lookback_seconds=0.0, limit=19) == []
    assert len(found(limit=1)) == 1
    assert found("nobody's") == []
    assert client.trace(secrets.token_hex(16)) is None
