"""A span and three numbers for every request, except those for health."""

from __future__ import annotations

import time
from collections import Counter

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .. import _tracing
from .._counters import Histogram


class HttpCounters:
    """Requests by (method, route, status), how many are in progress, and how long they took by (method, route)."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.in_progress = 0
        self.seconds: dict[tuple[str, str], Histogram] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request. Both labels are from closed sets, so that strangers cannot add series."""
        self.requests[method, route, status] += 1
        histogram = self.seconds.get((method, route))
        if histogram is None:
            histogram = self.seconds[method, route] = Histogram()
        histogram.observe(seconds)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def observing(counters: HttpCounters, exempt: frozenset[str]) -> Middleware:
    """The outermost middleware; what is inside it turns every error into a response."""

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else None
        if route in exempt:
            return await handler(request)
        method = request.method if request.method in _METHODS else "_OTHER"
        started = time.perf_counter()
        status = 500
        counters.in_progress += 1
        try:
            with _tracing.serving(method, route, request.headers.get("traceparent")) as span:
                response = await handler(request)
                status = response.status
                _tracing.served(span, status)
                return response
        finally:
            counters.in_progress -= 1
            counters.observe(method, route or "", status, time.perf_counter() - started)

    return observe
