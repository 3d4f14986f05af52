"""From an admitted request to its answer: the way through the gateway, in one place.

    target → route → credentials → bulkhead → instance → request → head → body
    400      404,405  401,403,503   503        503        408,413,502,503,504   (connection cut)

Up to the head of the service's answer everything that goes wrong becomes a problem. After it the status has been sent:
a body that breaks off is shown to the client by cutting the connection, never by an end that looks regular.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import aiohttp
import structlog
from aiohttp import ClientResponse, ClientSession, web
from multidict import CIMultiDict
from yarl import URL

from atoll_token import Claims

from . import headers, paths
from .assertions import Assertions
from .balance import Load
from .bodies import Body
from .metrics import Metrics
from .paths import Target
from .policy import Policy
from .problems import Problem
from .registry import Registry
from .routing import OWN_PAGES, Route, Slot
from .streams import Streams
from .tracing import Trace, client_trace_config
from .trust import Door

TRACE: web.RequestKey[Trace] = web.RequestKey("trace", Trace)
ROUTE: web.RequestKey[Route] = web.RequestKey("route", Route)

# An answer up to this size is read whole before its head is sent on, so that a service that breaks off in it gives a
# clean 502, and most answers cost one write. Larger ones, and those of unknown length, stream.
_WHOLE_BYTES_MAX = 65536
# Connections to services are given up before the services give them up (aiohttp: 75 s and more): a request must not
# meet a connection that is just being closed.
_UPSTREAM_KEEPALIVE_SECONDS = 15.0
_RETRY_PAUSE_SECONDS = 0.05
_IDEMPOTENT = frozenset({"GET", "HEAD"})
_SKIPPED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # the HTTP client's own additions
_log = structlog.get_logger(__name__)


class _UnansweredError(Exception):
    """The instance gave no answer. `unreached`: nothing of the request has reached it; `problem`: what to say of it."""

    def __init__(self, problem: Problem, *, unreached: bool) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.unreached = unreached


class _BrokenOffError(Exception):
    """The service stopped in the middle of a body."""


@dataclass(slots=True)
class _Call:
    """One admitted request on its way."""

    request: web.Request
    target: Target
    route: Route
    trace: Trace
    claims: Claims | None
    body: Body
    load: Load
    attempts: int = 0
    tried: set[str] = field(default_factory=set)  # instances; fewer than attempts where there is only one

    @property
    def service(self) -> str:
        return self.route.service

    def may_repeat(self) -> bool:
        """Whether a second attempt is allowed: once, idempotent, without a body, within the budget."""
        repeatable = self.request.method in _IDEMPOTENT and not self.body.present and self.attempts == 1
        return repeatable and self.load.may_retry()


class Proxy:
    """Forwards. Its client sessions live as long as the application (`run`)."""

    def __init__(
        self,
        policy: Policy,
        registry: Registry,
        door: Door,
        assertions: Assertions,
        metrics: Metrics,
        streams: Streams,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._registry = registry
        self._door = door
        self._assertions = assertions
        self._metrics = metrics
        self._streams = streams
        self._clock = clock
        self._loads: dict[str, Load] = {}
        self._plain: ClientSession | None = None
        self._traced: ClientSession | None = None

    async def run(self, app: web.Application) -> AsyncIterator[None]:  # noqa: ARG002 - the form of cleanup_ctx
        """The client sessions: one bare, one with instrumentation that only sampled requests pay for."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_UPSTREAM_KEEPALIVE_SECONDS, use_dns_cache=True)
        plain, traced = self._session(connector), self._session(connector, client_trace_config())
        async with connector, plain as self._plain, traced as self._traced:
            yield

    def _session(self, connector: aiohttp.BaseConnector, *traces: aiohttp.TraceConfig) -> ClientSession:
        session = ClientSession(
            connector=connector,
            connector_owner=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._policy.connect_seconds_max),
            trust_env=False,
            skip_auto_headers=_SKIPPED,
            trace_configs=list(traces),
        )
        # aiohttp itself repeats GET, PUT and DELETE on a reused connection that turned out closed: outside of our
        # budget, and with a DELETE nobody knows whether the service has acted. There is no public switch.
        session._retry_connection = False
        return session

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The handler of every path that is not the gateway's own. Raises Problem."""
        trace = request[TRACE]
        target = _well_formed(request)
        request[ROUTE] = route = self._route(request.method, target)
        trace.routed(request.method, route)
        claims = self._door.admit(request.headers, route)
        body = Body(request, self._policy.body_bytes_max, self._policy.body_idle_seconds_max)
        load = self._load(route.service)
        with trace.current(), load.enter():
            return await self._forward(_Call(request, target, route, trace, claims, body, load))

    def _route(self, method: str, target: Target) -> Route:
        if len(target.segments) == 1 and target.segments[0] in OWN_PAGES:
            raise _not_allowed("GET, HEAD")  # what is allowed there never comes here
        match = self._registry.table.match(target.segments)
        if not match.methods:
            raise Problem(404, "not_found", "no service offers this path")
        route = match.route(method)
        if route is None:
            raise _not_allowed(match.allow)
        return route

    def _load(self, service: str) -> Load:
        load = self._loads.get(service)
        if load is None:
            load = self._loads[service] = Load(
                service,
                concurrency_max=self._policy.concurrency_max,
                retry_ratio_max=self._policy.retry_ratio_max,
                eject_seconds=self._policy.eject_seconds,
                clock=self._clock,
                choose=random.SystemRandom(),
            )
        return load

    async def _forward(self, call: _Call) -> web.StreamResponse:
        try:
            while True:
                name, slot = self._pick(call)
                with call.load.at(name):
                    try:
                        upstream = await self._ask(call, slot)
                    except _UnansweredError as error:
                        call.attempts += 1
                        call.tried.add(name)
                        if error.unreached:
                            call.load.failed(name)
                        if not call.may_repeat():
                            raise error.problem from error
                    else:
                        async with upstream:
                            return await self._relay(call, upstream)
                self._metrics.retries.labels(call.service).inc()
                await asyncio.sleep(_RETRY_PAUSE_SECONDS)
        except Problem as problem:
            if problem.status >= 500:
                self._metrics.upstream_failures.labels(call.service, problem.code).inc()
            raise

    def _pick(self, call: _Call) -> tuple[str, Slot]:
        """An instance, rather one that has not been tried."""
        candidates = self._registry.candidates(call.service, call.route.slots)
        name = call.load.pick(candidates.keys() - call.tried or candidates.keys())
        if name is None:
            raise _away(call.service, self._why_none(call.service))
        return name, candidates[name]

    def _why_none(self, service: str) -> str:
        slots = self._registry.services().get(service, {})
        return "; ".join(sorted({slot.why for slot in slots.values() if slot.why})) or "no instance is ready"

    async def _ask(self, call: _Call, slot: Slot) -> ClientResponse:
        """Sends the request and waits for the head of the answer."""
        session = self._traced if call.trace.sampled else self._plain
        assert session is not None, "requests are served only while `run` runs"
        start = self._clock()
        try:
            async with asyncio.timeout(self._head_seconds(call.body)) as limit:
                call.body.on_complete = lambda: self._start_service_time(limit)
                response = await session.request(
                    call.request.method,
                    URL(slot.url.rstrip("/") + call.target.path_and_query, encoded=True),
                    headers=self._headers(call),
                    data=call.body.chunks() if call.body.present else None,
                    allow_redirects=False,
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, ValueError) as error:  # or no URL at all
            raise _UnansweredError(_away(call.service, "no connection"), unreached=True) from error
        except TimeoutError:
            raise call.body.late() if call.body.waiting else _slow(call.service) from None
        except (aiohttp.ClientError, Problem) as error:
            if call.body.failure is not None:
                raise call.body.failure from None
            raise _UnansweredError(_broken(call.service, error), unreached=False) from error
        finally:
            call.body.on_complete = lambda: None  # a service may answer before it has read everything
        self._metrics.upstream_seconds.labels(call.service).observe(self._clock() - start)
        return response

    def _head_seconds(self, body: Body) -> float:
        """Until the body has come it is the client's time that runs, afterwards the service's."""
        return self._policy.request_seconds_max if body.present else self._policy.upstream_seconds_max

    def _start_service_time(self, limit: asyncio.Timeout) -> None:
        limit.reschedule(asyncio.get_running_loop().time() + self._policy.upstream_seconds_max)

    def _headers(self, call: _Call) -> CIMultiDict[str]:
        sent = headers.for_service(call.request.headers, public=call.route.public)
        if call.body.length is not None:
            sent["Content-Length"] = str(call.body.length)
        sent[headers.ASSERTION] = self._assertions.assertion(call.claims, call.service)
        sent[headers.CLIENT_ADDRESS] = call.request.remote or ""
        sent[headers.DEADLINE] = str(int(self._policy.upstream_seconds_max * 1000))
        if not call.trace.sampled:
            sent[headers.TRACEPARENT] = call.trace.traceparent
        return sent

    async def _relay(self, call: _Call, upstream: ClientResponse) -> web.StreamResponse:
        length = upstream.content_length
        if length is not None and length <= _WHOLE_BYTES_MAX and call.request.method != "HEAD":
            return await self._whole(call, upstream)
        return await self._stream(call, upstream)

    async def _whole(self, call: _Call, upstream: ClientResponse) -> web.Response:
        try:
            async with asyncio.timeout(self._policy.upstream_seconds_max):
                content = await upstream.read()
        except TimeoutError:
            raise _slow(call.service) from None
        except aiohttp.ClientError as error:
            raise _broken(call.service, error) from None
        kept = headers.for_client(upstream.headers)
        kept.popall("Content-Length", None)
        return web.Response(status=upstream.status, reason=upstream.reason, headers=kept, body=content)

    async def _stream(self, call: _Call, upstream: ClientResponse) -> web.StreamResponse:
        kept = headers.for_client(upstream.headers)
        response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=kept)
        await response.prepare(call.request)
        endless = upstream.content_type == "text/event-stream"
        with self._streams.open(call.request.transport, call.claims, endless=endless):
            why = await self._pump(upstream, response)
        if why is not None and call.request.transport is not None:
            _log.warning("an answer was cut", service=call.service, route=call.route.template, why=why)
            self._metrics.cut(why)
            call.request.transport.abort()
        return response

    async def _pump(self, upstream: ClientResponse, response: web.StreamResponse) -> str | None:
        """Passes the body on, chunk by chunk as they come; answers why it broke off, if it did."""
        try:
            while chunk := await self._next_chunk(upstream):
                async with asyncio.timeout(self._policy.body_idle_seconds_max):
                    await response.write(chunk)
        except TimeoutError:
            return "slow_reader"
        except ConnectionResetError:
            return None  # the client left
        except _BrokenOffError:
            return "upstream_broken"
        return None

    async def _next_chunk(self, upstream: ClientResponse) -> bytes:
        """What has come from the service, empty at the end; raises _BrokenOffError."""
        try:
            async with asyncio.timeout(self._policy.stream_idle_seconds_max):
                return await upstream.content.readany()
        except (TimeoutError, aiohttp.ClientError) as error:
            raise _BrokenOffError from error


def _well_formed(request: web.Request) -> Target:
    """What the HTTP parser lets through and two servers could still read in two ways."""
    if len(request.headers.getall("Host", [])) != 1 and request.version >= aiohttp.HttpVersion11:
        raise Problem(400, "bad_host", "expected exactly one Host header", field="Host")
    if request.headers.get("Expect", "100-continue").lower() != "100-continue":
        raise Problem(417, "expectation_failed", "the only expectation that is met is 100-continue", field="Expect")
    if not headers.encodable(request.headers):
        raise Problem(400, "bad_header", "a header's value is neither ASCII nor UTF-8")
    return paths.parse(request.raw_path)


def _not_allowed(allow: str) -> Problem:
    return Problem(405, "method_not_allowed", f"this path allows {allow}", headers={"Allow": allow})


def _away(service: str, why: str) -> Problem:
    return Problem(503, "service_away", f"{service} is away: {why}", headers={"Retry-After": "1"})


def _slow(service: str) -> Problem:
    detail = f"{service} did not answer in time; whether it acted is unknown"
    return Problem(504, "service_timeout", detail, headers={"Retry-After": "1"})


def _broken(service: str, error: Exception) -> Problem:
    detail = f"{service} broke off the exchange ({type(error).__name__}); whether it acted is unknown"
    return Problem(502, "service_broken", detail, headers={"Retry-After": "1"})
