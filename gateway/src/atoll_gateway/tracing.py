"""One server span a request, for those requests that get one.

Whether a request is sampled is decided *before* any span is made: a span that is thrown away afterwards costs nearly
what a kept one does. The budget is all requests up to so many a second, then one in so many; a quiet system is traced
whole, a busy one cheaply. The client's own flag is not asked: anyone could switch tracing on for all his requests.
Its trace id is kept, so that a client can find its request.

What was not sampled and then fails (5xx) or is slow gets its server span afterwards, alone, under the trace id that the
client and the logs have; a budget of its own bounds that, for everything may fail at once. Operators have budgets of
their own too: their acts are traced whatever the shop's load, for the audit names their traces, and their looking,
which a dashboard does each second, takes nothing from the shop's.

A sampled request goes out on a client session of its own, with the OpenTelemetry instrumentation's trace
configuration; the others carry a `traceparent` with flag 00, so that what they cause agrees not to be sampled, and
still have a trace id for logs and problems.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy
from opentelemetry import trace
from opentelemetry.context import Context

# The instrumentation reads OTEL_SEMCONV_STABILITY_OPT_IN only when it patches aiohttp as a whole; a single trace
# configuration must be told, and the mode's type has no public name in 0.66b1.
from opentelemetry.instrumentation._semconv import _StabilityMode
from opentelemetry.instrumentation.aiohttp_client import create_trace_config
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from .routing import METHODS, Route

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_PATH_CHARS_MAX = 500
_USER_AGENT_CHARS_MAX = 200
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_random = random.SystemRandom()


class Budget:
    """All of the first `all_per_second` requests of a second, then one in `one_in`."""

    def __init__(self, all_per_second: int, one_in: int, clock: Callable[[], float]) -> None:
        self._all_per_second = all_per_second
        self._one_in = one_in
        self._clock = clock
        self._second = -1
        self._seen = 0
        self._over = 0

    def sample(self) -> bool:
        """Whether this request is traced."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._seen = second, 0
        self._seen += 1
        if self._seen <= self._all_per_second:
            return True
        self._over += 1
        return self._over % self._one_in == 0


Late = Callable[[str, int], Span | None]
"""Makes a span for a request that has failed or was slow: its name, its beginning in ns. None: the budget is spent."""


class Trace:
    """The trace identity of one request, and its server span if it is sampled, or once it has failed."""

    def __init__(self, trace_id: str, span: Span | None, late: Late | None = None, slow_seconds: float = 0) -> None:
        self.trace_id = trace_id
        self._span = span
        self._late = late
        self._slow_ns = int(slow_seconds * 1e9)
        self._began = time.time_ns() if late is not None else 0
        self._route: tuple[str, Route] | None = None

    @property
    def sampled(self) -> bool:
        return self._span is not None

    @property
    def traceparent(self) -> str:
        """What an unsampled request carries; a sampled one's is written by its client span."""
        return f"00-{self.trace_id}-{_random.getrandbits(64) or 1:016x}-00"

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes the server span the parent of what happens inside; it does not end it."""
        if self._span is None:
            yield
            return
        with trace.use_span(self._span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            yield

    def routed(self, method: str, route: Route) -> None:
        """Names the span by the route's template: a name a path would be one series a customer."""
        self._route = method, route
        if self._span is not None:
            self._name(self._span)

    def end(self, status: int, error: str | None) -> None:
        """Ends the span. Only 5xx is the server's error; `error` is a problem code, of few values."""
        span = self._span or self._afterwards(status)
        if span is None:
            return
        span.set_attribute("http.response.status_code", status)
        if error is not None or status >= 500:
            span.set_attribute("error.type", error or str(status))
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end()

    def _name(self, span: Span) -> None:
        if self._route is not None:
            method, route = self._route
            span.update_name(f"{method} {route.template}")
            span.set_attributes({"http.route": route.template, "atoll.service": route.service})

    def _afterwards(self, status: int) -> Span | None:
        if self._late is None or (status < 500 and time.time_ns() - self._began < self._slow_ns):
            return None
        span = self._late(self.trace_id, self._began)
        if span is not None:
            self._name(span)
        return span


class Tracing:
    """Begins traces. The tracer comes from the global provider, which `atoll.telemetry` sets up, or does nothing."""

    def __init__(
        self, all_per_second: int, one_in: int, slow_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clients = Budget(all_per_second, one_in, clock)
        self._acts = Budget(all_per_second, one_in, clock)
        self._looks = Budget(0, one_in, clock)
        self._late = Budget(all_per_second, one_in, clock)
        self._slow_seconds = slow_seconds
        self._tracer = trace.get_tracer("atoll_gateway")

    def begin(self, request: web.BaseRequest) -> Trace:
        """The trace of a request that has just come in."""
        parent = _parent(request.headers)
        if self._budget(request).sample():
            span = self._start(request, parent)
            # Not so with telemetry switched off, or with a sampler that says no: then nothing must claim to be sampled.
            if span.is_recording():
                return Trace(f"{span.get_span_context().trace_id:032x}", span)

        def late(trace_id: str, began_ns: int) -> Span | None:
            if not self._late.sample():
                return None
            # A span cannot be given a trace id, only a parent in that trace: the client's, or one that is nowhere.
            return self._start(request, parent or (trace_id, f"{_random.getrandbits(64) or 1:016x}"), began_ns)

        trace_id = parent[0] if parent else f"{_random.getrandbits(128) or 1:032x}"
        return Trace(trace_id, None, late, self._slow_seconds)

    def _budget(self, request: web.BaseRequest) -> Budget:
        if not request.raw_path.startswith("/ops/"):
            return self._clients
        return self._looks if request.method in ("GET", "HEAD") else self._acts

    def _start(self, request: web.BaseRequest, parent: tuple[str, str] | None, began_ns: int | None = None) -> Span:
        return self._tracer.start_span(
            request.method if request.method in METHODS else "HTTP",
            context=_context(parent),
            kind=SpanKind.SERVER,
            attributes=_attributes(request),
            start_time=began_ns,
        )


def client_trace_config() -> aiohttp.TraceConfig:
    """For the client session of sampled requests. Queries stay out of spans: they hold what customers ask for."""
    return create_trace_config(
        url_filter=lambda url: str(url.with_query(None)), sem_conv_opt_in_mode=_StabilityMode.HTTP
    )


def _parent(headers: CIMultiDictProxy[str]) -> tuple[str, str] | None:
    """Trace id and span id of a well-formed `traceparent`; a repeated or malformed one is nobody's."""
    values = headers.getall("traceparent", [])
    match = _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None
    if match is None or not int(match[1], 16) or not int(match[2], 16):
        return None
    return match[1], match[2]


def _context(parent: tuple[str, str] | None) -> Context:
    if parent is None:
        return Context()
    remote = SpanContext(int(parent[0], 16), int(parent[1], 16), is_remote=True, trace_flags=_SAMPLED)
    return trace.set_span_in_context(NonRecordingSpan(remote), Context())


def _attributes(request: web.BaseRequest) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "http.request.method": request.method if request.method in METHODS else "_OTHER",
        "url.scheme": "http",
        "url.path": _printable(request.raw_path.partition("?")[0], _PATH_CHARS_MAX),
        "network.protocol.version": f"{request.version.major}.{request.version.minor}",
        "client.address": request.remote or "",
    }
    agent = request.headers.get("User-Agent")
    if agent is not None:
        attributes["user_agent.original"] = _printable(agent, _USER_AGENT_CHARS_MAX)
    return attributes


def _printable(text: str, chars_max: int) -> str:
    """Bounded, and without the lone surrogates that stray bytes become: one would spoil its whole batch of spans."""
    return text[:chars_max].encode("ascii", "backslashreplace").decode("ascii")
