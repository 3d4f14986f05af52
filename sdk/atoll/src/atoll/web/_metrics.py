"""`/metrics` in Prometheus' text form: the library's plain counters, shown by one collector.

A registry of its own rather than the global one, so that two applications in one process (tests) do not meet. A service
adds its own metrics to `Attachment.registry`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .. import telemetry
from .._consumer import Consumer
from .._counters import Histogram
from .._relay import Relay
from .._session import Session
from ._observe import HttpCounters


class AtollCollector(Collector):
    """Reads the counters at each scrape; the outbox's two are read from the database just before it."""

    def __init__(
        self, session: Session, relay: Relay | None, consumer: Consumer | None, http: HttpCounters, version: str,
        data: Path,
    ) -> None:  # fmt: skip
        self._session = session
        self._relay = relay
        self._consumer = consumer
        self._http = http
        self._version = version
        self._data = data
        self.outbox = (0, 0)
        """(waiting, refused)"""

    def collect(self) -> Iterator[Metric]:
        """All families of this library."""
        yield from self._process()
        yield _gauge("atoll_session_up", "1 while there is a session with the broker", int(self._session.state == "up"))
        yield _counter("atoll_sessions", "Sessions opened with the broker", self._session.sessions)
        if self._relay is not None:
            yield from self._outbox(self._relay)
        if self._consumer is not None:
            yield from self._inbox(self._consumer)
        yield from self._requests()
        spans = CounterMetricFamily("atoll_otel_spans", "Ended spans by what became of them", labels=["outcome"])
        for outcome in ("exported", "failed", "dropped"):
            spans.add_metric([outcome], getattr(telemetry.counters, outcome))
        yield spans

    def _process(self) -> Iterable[Metric]:
        build = GaugeMetricFamily("atoll_build_info", "Always 1; the version that runs", labels=["version"])
        build.add_metric([self._version], 1)
        yield build
        try:
            disk = os.statvfs(self._data)
        except OSError:
            return  # the other numbers are worth having without this one
        yield _gauge("atoll_disk_bytes", "Size of the file system of the data directory", disk.f_blocks * disk.f_frsize)
        yield _gauge("atoll_disk_free_bytes", "What is free on it for this process", disk.f_bavail * disk.f_frsize)

    def _outbox(self, relay: Relay) -> Iterable[Metric]:
        yield _gauge("atoll_outbox_waiting", "Events that the broker has not acknowledged", self.outbox[0])
        yield _gauge("atoll_outbox_refused", "Events that the broker refused; each wants a human", self.outbox[1])
        yield _gauge("atoll_relay_stopped", "1 if outbox and broker do not fit", int(relay.stopped is not None))
        yield _counter("atoll_publish_acks", "Events acknowledged by the broker", relay.counters.acked)
        yield _counter("atoll_publish_busy", "Times that the broker said BUSY", relay.counters.busy)
        yield _counter("atoll_publish_went_back", "Times that the relay had to send again", relay.counters.went_back)

    def _inbox(self, consumer: Consumer) -> Iterable[Metric]:
        events = CounterMetricFamily("atoll_events", "Deliveries by what became of them", labels=["outcome"])
        for outcome in ("handled", "duplicate", "rejected", "retried", "stale"):
            events.add_metric([outcome], getattr(consumer.counters, outcome))
        yield events
        yield _gauge("atoll_events_in_flight", "Deliveries that are not answered yet", consumer.in_flight)
        missing = sum(last - first + 1 for first, last in consumer.gaps.items())
        yield _gauge("atoll_events_missing", "Places in the broker's log that this group will never get", missing)
        seconds = HistogramMetricFamily("atoll_handler_seconds", "Time in the handler", labels=["topic"])
        for topic, histogram in consumer.counters.seconds.items():
            _add(seconds, [topic], histogram)
        yield seconds

    def _requests(self) -> Iterable[Metric]:
        requests = CounterMetricFamily("atoll_http_requests", "Requests answered", labels=["method", "route", "status"])
        for (method, route, status), count in self._http.requests.items():
            requests.add_metric([method, route, str(status)], count)
        yield requests
        yield _gauge("atoll_http_requests_in_progress", "Requests that are being answered", self._http.in_progress)
        seconds = HistogramMetricFamily("atoll_http_request_seconds", "Time to answer", labels=["method", "route"])
        for labels, histogram in self._http.seconds.items():
            _add(seconds, list(labels), histogram)
        yield seconds


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    family.add_metric(labels, buckets=histogram.buckets(), sum_value=histogram.sum)
