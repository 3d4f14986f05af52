"""Telemetry never harms: bounded, off the path, quiet."""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.sdk.trace import TracerProvider

import atoll
from atoll import logs, telemetry
from atoll._counters import SpanCounters
from atoll._export import GatedProcessor, LazyExporter


@pytest.fixture
def hung() -> Iterator[str]:
    """A collector that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1/traces"


@pytest.fixture
def refused() -> Iterator[str]:
    with socket.socket() as unused:  # bound as long as it is used, or another process may listen there
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}/v1/traces"


@pytest.fixture
def slow_seconds() -> float:
    """So long does the collector of a test that asks for this take over each answer."""
    return 3.0


@pytest.fixture
def collector(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[bytes]]]:
    bodies: list[bytes] = []
    takes = request.getfixturevalue("slow_seconds") if "slow_seconds" in request.fixturenames else 0.0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(takes)  # the fault itself
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", bodies
    server.shutdown()
    server.server_close()


def test_a_collector_that_is_slow_for_once_loses_nothing(
    collector: tuple[str, list[bytes]], slow_seconds: float
) -> None:
    """Stopped for a while, or on a machine that has no time for it."""
    url, bodies = collector
    counters = SpanCounters()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(GatedProcessor(LazyExporter(url, counters), counters))
    provider.get_tracer("test").start_span("hello there").end()
    ends = time.monotonic() + slow_seconds + 20
    while not (counters.exported or counters.failed):
        assert time.monotonic() < ends, "after 23 s the span was neither taken nor given up"
        time.sleep(0.02)
    telemetry.stop_provider(provider, 2.0)
    assert (counters.exported, counters.failed) == (1, 0)
    assert len(bodies) == 1, "it was not sent twice"


@pytest.mark.parametrize("kind", ["hung", "refused"])
def test_shutdown_is_bounded_and_spans_do_not_wait(
    kind: str, options: atoll.Options, request: pytest.FixtureRequest
) -> None:
    provider = telemetry.make_provider(options, request.getfixturevalue(kind))
    tracer = provider.get_tracer("test")
    started = time.monotonic()
    for _ in range(2000):
        tracer.start_span("work").end()
    assert time.monotonic() - started < 4.0, "2,000 spans took as long as a collector that is not there"
    started = time.monotonic()
    telemetry.stop_provider(provider, 2.0)
    assert time.monotonic() - started < 6.0  # the SDK of OpenTelemetry alone took 9.8


def test_spans_arrive_with_the_identity_of_the_service(
    options: atoll.Options, collector: tuple[str, list[bytes]]
) -> None:
    url, bodies = collector
    provider = telemetry.make_provider(options, url)
    provider.get_tracer("test").start_span("hello there").end()
    telemetry.stop_provider(provider, 20.0)
    sent = b"".join(bodies)
    for text in (b"hello there", b"service.name", b"orders", b"service.instance.id", b"orders/1", b"service.version"):
        assert text in sent


def test_a_full_queue_drops_and_counts(hung: str) -> None:
    counters = SpanCounters()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(GatedProcessor(LazyExporter(hung, counters), counters, queue_spans_max=100))
    tracer = provider.get_tracer("test")
    for _ in range(150):
        tracer.start_span("work").end()
    assert counters.dropped == 50
    telemetry.stop_provider(provider, 0.1)


def test_nothing_is_started_when_switched_off(options: atoll.Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    telemetry.start(options)
    assert telemetry._provider is None
    telemetry.shutdown()


def test_importing_the_library_does_not_import_the_exporter() -> None:
    import subprocess
    import sys

    heavy = ("requests", "google", "opentelemetry.sdk")
    code = f"import sys, atoll; print([name for name in sys.modules if name.startswith({heavy})])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture
def lines(options: atoll.Options) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    before = logging.root.handlers[:], logging.root.level
    logs.configure(options, stream=stream)
    yield stream
    logging.root.handlers[:], level = before
    logging.root.setLevel(level)


def test_a_line_of_log_is_json_with_the_promised_fields(lines: io.StringIO) -> None:
    import structlog

    structlog.get_logger("x").info("order placed", order="o-1")
    line = json.loads(lines.getvalue())
    assert list(line)[:3] == ["time", "level", "event"]
    assert (line["level"], line["event"], line["service"], line["slot"]) == (
        "info",
        "order placed",
        "orders",
        "orders/1",
    )


def test_an_exporter_is_as_quiet_in_a_process_that_did_not_set_up_logs(options: atoll.Options, refused: str) -> None:
    import subprocess
    import sys

    code = f"""
import pathlib, atoll
from atoll import telemetry
here = pathlib.Path()
options = atoll.Options(slot="orders/1", host="", port=0, data=here, keys=here, bus="tcp://127.0.0.1:1")
provider = telemetry.make_provider(options, {refused!r})
span = provider.get_tracer("t").start_span("s")
span.end()
from atoll._counters import SpanCounters
from atoll._export import LazyExporter
for _ in range(2):
    LazyExporter({refused!r}, SpanCounters()).export([span])
telemetry.stop_provider(provider, 0.1)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert len(said.splitlines()) == 1, said


def test_a_failing_exporter_says_one_line_a_minute_and_no_stack_trace(
    lines: io.StringIO, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_repeats", logs._Repeats())
    counters = SpanCounters()
    exporter = LazyExporter(refused, counters)
    from opentelemetry.sdk.trace import TracerProvider

    span = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("s")
    span.end()
    for _ in range(3):
        exporter.export([span])  # type: ignore[list-item]
    assert counters.failed == 3
    said = lines.getvalue().splitlines()
    assert len(said) == 1
    assert "Traceback" not in said[0]
