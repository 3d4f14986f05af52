"""Wiring: the application of a gateway, and what surrounds every request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from . import pages
from .assertions import Assertions
from .metrics import NO_ROUTE, Metrics
from .parts import PARTS, Feed, Parts
from .problems import Problem, of_http_exception
from .proxy import ROUTE, TRACE, Proxy
from .registry import Registry
from .routing import METHODS, OWN_PAGES
from .settings import Settings
from .storage import Shelf
from .streams import Streams
from .tracing import Trace, Tracing
from .trust import Door, KeyRing, Revoked

_CLIENT_LEFT = 499  # nobody sees it; the word for it in metrics and traces
_log = structlog.get_logger(__name__)


def make_app(settings: Settings, feed: Feed) -> web.Application:
    """The gateway as an aiohttp application; everything in it starts and ends with the application."""
    policy = settings.policy
    parts = _make_parts(settings, feed)
    door = Door(parts.keys, parts.revoked, time.time, parts.metrics.refused)
    assertions = Assertions(settings.assertion_key, time.time, time.monotonic)
    proxy = Proxy(policy, parts.registry, door, assertions, parts.metrics, parts.streams)
    tracing = Tracing(policy.trace_all_per_second, policy.trace_one_in, policy.trace_slow_seconds)
    app = web.Application(middlewares=[_observing(parts.metrics, tracing)])
    app[PARTS] = parts
    app.add_routes(pages.routes)
    app.router.add_route("*", "/{path:.*}", proxy.handle, expect_handler=_postpone)
    app.cleanup_ctx.extend([_state, proxy.run, _follow_broker])
    app.on_response_prepare.append(_sign)
    return app


def _make_parts(settings: Settings, feed: Feed) -> Parts:
    policy = settings.policy
    metrics = Metrics()
    shelf = Shelf(settings.options.data)
    revoked = Revoked(shelf, policy.heartbeat_seconds_max, time.monotonic)
    streams = Streams(metrics, revoked.covers)
    revoked.on_change = streams.cut_revoked
    registry = Registry(shelf, policy.public_prefixes, live=lambda: feed.state == "up")
    return Parts(feed, shelf, registry, KeyRing(shelf, settings.root), revoked, metrics, streams)


async def _state(app: web.Application) -> AsyncIterator[None]:
    parts = app[PARTS]
    parts.restore()
    yield
    await parts.shelf.flush()


async def _follow_broker(app: web.Application) -> AsyncIterator[None]:
    parts = app[PARTS]
    async with parts.feed:
        parts.watch()
        yield


async def _postpone(request: web.Request) -> None:
    """aiohttp would send `100 Continue` here; it waits until the request is admitted (bodies.py)."""


async def _sign(request: web.Request, response: web.StreamResponse) -> None:  # noqa: ARG001 - the form of a signal
    """No version numbers for strangers, and no browser guesses a type."""
    response.headers["Server"] = "atoll"
    response.headers["X-Content-Type-Options"] = "nosniff"


def _observing(metrics: Metrics, tracing: Tracing) -> Middleware:
    """Around every request: its trace, its place in the metrics, and the one shape of errors."""

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        own = request.path if request.path[1:] in OWN_PAGES else None
        trace = request[TRACE] = Trace("", None) if own else tracing.begin(request)
        status, error = _CLIENT_LEFT, None
        in_progress = 0 if own else 1  # whoever reads the gauge must not find his own request in it
        metrics.in_progress.inc(in_progress)
        try:
            response, error = await _answer(request, handler, trace)
            status = response.status
            return response
        finally:
            metrics.in_progress.dec(in_progress)
            _count(metrics, request, own, status)
            trace.end(status, error)

    return observe


async def _answer(request: web.Request, handler: Handler, trace: Trace) -> tuple[web.StreamResponse, str | None]:
    """The answer, and the problem's code if it is one. ConnectionError goes through: the client has left."""
    try:
        return await handler(request), None
    except Problem as raised:
        problem = raised
    except web.HTTPException as raised_by_aiohttp:
        problem = of_http_exception(raised_by_aiohttp)
    except ConnectionError:
        raise
    except Exception:
        _log.exception("a request failed", trace_id=trace.trace_id)
        problem = Problem(500, "internal", "the gateway failed; its log has the cause")
    return problem.response(trace.trace_id or None), problem.code


def _count(metrics: Metrics, request: web.Request, own: str | None, status: int) -> None:
    route = request.get(ROUTE)
    method = request.method if request.method in METHODS else "other"
    service, template = ("gateway", own) if own else (route.service, route.template) if route else (NO_ROUTE, NO_ROUTE)
    metrics.requests.labels(service, method, template, str(status)).inc()
