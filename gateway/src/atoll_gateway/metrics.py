"""Every metric of the gateway, declared here before it is emitted. Labels come from announced routes and fixed words,
never from a request's text: a label a path would let any client fill the memory."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import atoll

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
NO_ROUTE = "none"


class _Spans(Collector):
    """What became of ended spans: drops are counted, or a gap in the traces would look like silence."""

    def collect(self) -> Iterator[Metric]:
        """Reads the exporter's counters at each scrape."""
        spans = CounterMetricFamily("atoll_otel_spans", "Ended spans by what became of them", labels=["outcome"])
        for outcome in ("exported", "failed", "dropped"):
            spans.add_metric([outcome], getattr(atoll.telemetry.counters, outcome))
        yield spans


class _Build(Collector):
    """Which version runs: an operator looks for it first."""

    def collect(self) -> Iterator[Metric]:
        """One sample, always 1."""
        build = GaugeMetricFamily("atoll_build_info", "Always 1; the version that runs", labels=["version"])
        build.add_metric([atoll.telemetry.service_version("gateway")], 1)
        yield build


class Metrics:
    """The process's metrics, in a registry of their own so that two gateways fit into one test."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "atoll_gateway_requests",
            "Requests answered; status 499: the client left first",
            ("service", "method", "route", "status"),
            registry=self._registry,
        )
        self.in_progress = Gauge(
            "atoll_gateway_requests_in_progress", "Requests for services that are being served", registry=self._registry
        )
        self.upstream_seconds = Histogram(
            "atoll_gateway_upstream_seconds",
            "From sending a request to a service until the head of its answer",
            ("service",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.upstream_failures = Counter(
            "atoll_gateway_upstream_failures",
            "Requests that a service did not answer as it should, by the problem's code",
            ("service", "code"),
            registry=self._registry,
        )
        self.retries = Counter(
            "atoll_gateway_retries", "Requests sent a second time", ("service",), registry=self._registry
        )
        self.auth_failures = Counter(
            "atoll_gateway_auth_failures",
            "Requests refused for their credentials, by the problem's code",
            ("code",),
            registry=self._registry,
        )
        self.malformed = Counter(
            "atoll_gateway_malformed_requests",
            "Requests that are not well-formed HTTP",
            registry=self._registry,
        )
        self.connections = Gauge("atoll_gateway_client_connections", "Open client connections", registry=self._registry)
        self.bus_up = Gauge("atoll_session_up", "1 while there is a session with the broker", registry=self._registry)
        self._registry.register(_Build())
        self._registry.register(_Spans())
        self.connections_cut = Counter(
            "atoll_gateway_client_connections_cut",
            "Client connections closed by the gateway: head_timeout, too_many, upstream_broken, slow_reader, "
            "revoked, expired",
            ("why",),
            registry=self._registry,
        )

    def refused(self, code: str) -> None:
        """Counts one request refused for its credentials."""
        self.auth_failures.labels(code).inc()

    def cut(self, why: str) -> None:
        """Counts one connection that the gateway closed."""
        self.connections_cut.labels(why).inc()

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)
