"""Whole processes: exit codes, draining, hardening, and one trace from request to handler."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from rigs import MESH, PLACED, SCHEMA
from scripted import until

from atoll_broker.testing import RealBroker, free_port

SERVICE = Path(__file__).with_name("service.py")
OPEN_MESH = MESH.replace('announce = ["/orders"]', 'announce = ["/orders"]\npublic = true').replace(
    '[grant.payments]\npublish = ["payments.*"]',
    '[grant.payments]\npublish = ["payments.*"]\nannounce = ["/notes"]\npublic = true',
)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[RealBroker]:
    async with RealBroker(tmp_path / "broker", OPEN_MESH) as broker:
        yield broker


class Process:
    """One service as the agent runs it."""

    def __init__(self, folder: Path, name: str, broker: RealBroker | None, **more: str) -> None:
        self.folder = folder / name
        for part in ("keys", "migrations", "contract/publishes", "contract/consumes"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "migrations" / "0001-notes.sql").write_text("CREATE TABLE note (text TEXT) STRICT;")
        kind = "publishes" if name == "orders" else "consumes"
        (self.folder / "contract" / kind / f"{PLACED}.schema.json").write_text(json.dumps(SCHEMA))
        self.port = free_port()
        self.environment = {
            "ATOLL_SLOT": f"{name}/1",
            "ATOLL_HOST": "127.0.0.1",
            "ATOLL_PORT": str(self.port),
            "ATOLL_DATA": str(self.folder / "data"),
            "ATOLL_KEYS": str(broker.keys(name) if broker else self.folder / "keys"),
            "ATOLL_BUS": broker.endpoint if broker else "tcp://127.0.0.1:1",
            "OTEL_SDK_DISABLED": "true",
            **more,
        }
        self.log = self.folder / "log"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> Process:
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, str(SERVICE), cwd=self.folder, env={**os.environ, **self.environment}, stderr=log
            )
        return self

    async def __aenter__(self) -> Process:
        await self.start()
        await self.until("/ready", lambda body: body["ready"] and not body["degraded"])
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def exit_code(self) -> int:
        assert self.process is not None
        async with asyncio.timeout(15):
            return await self.process.wait()

    def call(self, path: str, body: object = None, **headers: str) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json", **headers}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            result: dict[str, Any] = json.load(answer)
        return result

    async def until_metric(self, line: str) -> None:
        def shown() -> bool:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                return line in answer.read().decode()

        for _ in range(100):
            if await asyncio.to_thread(shown):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"/metrics never said {line}")

    async def until(self, path: str, condition: Any, seconds: float = 15.0) -> None:
        deadline, last = time.monotonic() + seconds, "nothing"
        while time.monotonic() < deadline:
            try:
                body = await asyncio.to_thread(self.call, path)
                last = str(body)
                if condition(body):
                    return
            except (urllib.error.URLError, ConnectionError) as error:
                last = str(error)
            await asyncio.sleep(0.05)
        raise AssertionError(f"{path} after {seconds} s: {last}; {self.log.read_text()[-2000:]}")


async def test_a_wrong_variable_ends_with_64_and_one_line(tmp_path: Path) -> None:
    process = await Process(tmp_path, "orders", None, ATOLL_PORT="eighty").start()
    assert await process.exit_code() == 64
    assert process.log.read_text() == "ATOLL_PORT is 'eighty': expected a port, 0 to 65535\n"


async def test_a_missing_key_ends_with_64_and_one_line(tmp_path: Path) -> None:
    process = await Process(tmp_path, "orders", None).start()
    assert await process.exit_code() == 64
    assert "curve.secret" in process.log.read_text()
    assert "Traceback" not in process.log.read_text()


async def test_a_taken_port_ends_with_69(tmp_path: Path) -> None:
    process = Process(tmp_path, "orders", None)
    with socket.create_server(("127.0.0.1", process.port)):
        await process.start()
        assert await process.exit_code() == 69
    assert f"port {process.port} is taken" in process.log.read_text()


async def test_a_second_process_on_the_database_ends_with_75(tmp_path: Path, broker: RealBroker) -> None:
    async with Process(tmp_path, "orders", broker):
        second = await Process(tmp_path, "orders", broker).start()
        assert await second.exit_code() == 75


async def test_a_disk_that_fails_ends_the_process_with_74(tmp_path: Path, broker: RealBroker) -> None:
    async with Process(tmp_path, "orders", broker) as orders:
        assert orders.process is not None
        # A write beyond the limit fails with EFBIG, which SQLite reports as an I/O error.
        resource.prlimit(orders.process.pid, resource.RLIMIT_FSIZE, (150_000, 150_000))
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            await asyncio.to_thread(lambda: [orders.call("/orders/notes", {"text": "x" * 900}) for _ in range(400)])
        assert await orders.exit_code() == 74
    assert "service.db: " in orders.log.read_text()


async def test_a_request_becomes_an_effect_elsewhere_and_both_stop_cleanly(tmp_path: Path, broker: RealBroker) -> None:
    async with Process(tmp_path, "orders", broker) as orders, Process(tmp_path, "payments", broker) as payments:
        for i in range(20):
            await asyncio.to_thread(orders.call, "/orders/notes", {"text": str(i)})
        await payments.until("/notes", lambda body: body["texts"] == [str(i) for i in range(20)])
        for process in (orders, payments):
            assert process.process is not None
            process.process.send_signal(signal.SIGTERM)
        assert [await orders.exit_code(), await payments.exit_code()] == [0, 0]
        assert "Traceback" not in orders.log.read_text() + payments.log.read_text()


async def test_a_handler_that_hangs_does_not_keep_the_process_from_stopping(tmp_path: Path, broker: RealBroker) -> None:
    async with Process(tmp_path, "orders", broker) as orders, Process(tmp_path, "payments", broker) as payments:
        await asyncio.to_thread(orders.call, "/orders/notes", {"text": "hang"})
        await payments.until_metric("atoll_events_in_flight 1.0")
        assert payments.process is not None
        payments.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(9):
            assert await payments.process.wait() == 0


async def test_half_sent_headers_are_cut_and_malformed_requests_leave_no_traceback(
    tmp_path: Path, broker: RealBroker
) -> None:
    async with Process(tmp_path, "orders", broker) as orders:
        half_reader, half = await asyncio.open_connection("127.0.0.1", orders.port)
        half.write(b"GET /live HTTP/1.1\r\nHost:")
        for garbage in (b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nA B: c\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", orders.port)
            writer.write(garbage)
            async with asyncio.timeout(5):
                assert b" 400 " in await reader.readline()
            writer.close()
        async with asyncio.timeout(13):
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await half_reader.readexactly(1)
        half.close()
        assert "Traceback" not in orders.log.read_text()


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """A real enough collector: keeps the spans that it is sent, each with its service's name."""
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            for source in sent.resource_spans:
                names = {one.key: one.value.string_value for one in source.resource.attributes}
                for scope in source.scope_spans:
                    spans.extend((names["service.name"], span) for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()
    server.server_close()


def _of_trace(spans: list[Any]) -> dict[str, Any]:
    """(service, span) by the span's name."""
    mine = [(service, span) for service, span in spans if span.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"]
    return {span.name: (service, span) for service, span in mine}


async def test_one_trace_from_the_request_to_the_handler(
    tmp_path: Path, broker: RealBroker, collector: tuple[str, list[Any]]
) -> None:
    url, spans = collector
    telemetry = {"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_ENDPOINT": url}
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with (
        Process(tmp_path, "orders", broker, **telemetry) as orders,
        Process(tmp_path, "payments", broker, **telemetry) as payments,
    ):
        await asyncio.to_thread(orders.call, "/orders/notes", {"text": "a"}, traceparent=parent)
        await payments.until("/notes", lambda body: body["texts"] == ["a"])
        names = {"POST /orders/notes", f"publish {PLACED}", f"relay {PLACED}", f"process {PLACED}"}
        # Not left to the end: a shutdown gives a slow export two seconds, and on a busy machine that is not enough.
        await until("the spans of the trace", lambda: names <= _of_trace(spans).keys(), seconds=30)
        for process in (orders, payments):
            assert process.process is not None
            process.process.terminate()
            assert await process.exit_code() == 0
    trace = _of_trace(spans)
    server, produced = trace["POST /orders/notes"][1], trace[f"publish {PLACED}"][1]
    relayed, processed = trace[f"relay {PLACED}"][1], trace[f"process {PLACED}"][1]
    assert trace[f"process {PLACED}"][0] == "payments"
    assert server.parent_span_id.hex() == "00f067aa0ba902b7"
    assert produced.parent_span_id == server.span_id
    assert relayed.parent_span_id == produced.span_id
    assert processed.parent_span_id == produced.span_id
    assert [link.span_id for link in processed.links] == [produced.span_id]
    kinds = [span.kind for span in (server, produced, relayed, processed)]
    assert kinds == [
        server.SPAN_KIND_SERVER,
        server.SPAN_KIND_PRODUCER,
        server.SPAN_KIND_CLIENT,
        server.SPAN_KIND_CONSUMER,
    ]
    assert server.start_time_unix_nano <= relayed.start_time_unix_nano <= relayed.end_time_unix_nano
