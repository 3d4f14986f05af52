"""An OTLP/HTTP collector of the test's own on loopback, which takes spans, or refuses, or never answers."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """What a test asks of a span."""

    service: str
    name: str
    trace: str
    id: str
    parent: str


@dataclass
class Collector:
    """What came. `release` lets the requests that hang go, so that the server can end."""

    spans: list[Span] = field(default_factory=list)
    requests: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    def take(self, body: bytes) -> None:
        """Keep the spans of one export."""
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            names = {item.key: item.value.string_value for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                    self.spans.append(Span(names["service.name"], span.name, *ids))

    def traces(self) -> dict[str, list[Span]]:
        """Spans by trace."""
        found: dict[str, list[Span]] = {}
        for span in list(self.spans):
            found.setdefault(span.trace, []).append(span)
        return found


@contextmanager
def collector(port: int, behaviour: str) -> Iterator[Collector]:
    """Listen on a port. `behaviour`: "takes", "refuses" (503) or "hangs" (reads the request and never answers)."""
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.requests += 1
            if behaviour == "hangs":
                kept.release.wait()
                return
            if behaviour == "takes":
                kept.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200 if behaviour == "takes" else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        kept.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
