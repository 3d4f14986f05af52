"""From counters that only grow to "per second, lately": pure, so that it can be tested with any history.

A counter that is lower than before has started anew with its process: what it shows now was all counted since, as
Prometheus' `rate` has it. So no rate is ever negative. The pid tells a new process apart even where it has counted
past the old one's figure already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import msgspec

from atoll_ops.control import exposition

WINDOW_SECONDS = 10.0
#: A newest sample older than this says nothing about now.
FRESH_SECONDS = 5.0
_SAMPLES_MAX = 32

COUNTERS = ("requests", "events_in", "events_out", "errors", "retries")
QUANTILE = 0.95


class Sample(msgspec.Struct, frozen=True):
    """What one process had counted when it was asked. `at` is monotonic seconds."""

    at: float
    pid: int | None = None
    counts: dict[str, float] = {}  # by name in COUNTERS
    buckets: dict[float, float] = {}  # observations up to so many seconds; cumulative, as the text form has them
    version: str | None = None
    gauges: dict[str, float] = {}


class Window:
    """The samples of one slot over the last ten seconds or so; bounded."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=_SAMPLES_MAX)

    @property
    def last(self) -> Sample | None:
        """The newest sample."""
        return self._samples[-1] if self._samples else None

    def add(self, sample: Sample) -> None:
        """The newest sample; those that the window has passed go."""
        self._samples.append(sample)
        while len(self._samples) > 2 and self._samples[1].at <= sample.at - WINDOW_SECONDS:
            self._samples.popleft()

    def rates(self, now: float) -> dict[str, Any] | None:
        """Per second over the window, and the 95th percentile in milliseconds; None where nothing is known of now."""
        if len(self._samples) < 2 or now - self._samples[-1].at > FRESH_SECONDS:
            return None
        seconds = self._samples[-1].at - self._samples[0].at
        if seconds <= 0:
            return None
        grown = self._grown(lambda sample: sample.counts)
        p95 = quantile(self._grown(lambda sample: sample.buckets), QUANTILE)
        return {
            **{name: round(grown.get(name, 0.0) / seconds, 3) for name in COUNTERS},
            "p95_ms": round(p95 * 1000, 3) if p95 is not None else None,
            "window_seconds": round(seconds, 1),
        }

    def _grown(self, counts: Callable[[Sample], Mapping[Any, float]]) -> dict[Any, float]:
        """By how much each counter has grown in the window, over restarts."""
        total: dict[Any, float] = {}
        for earlier, later in pairwise(self._samples):
            before: Mapping[Any, float] = counts(earlier) if earlier.pid == later.pid else {}
            for name, value in grown(before, counts(later)).items():
                total[name] = total.get(name, 0.0) + value
        return total


def grown(before: Mapping[Any, float], after: Mapping[Any, float]) -> dict[Any, float]:
    """How much each counter grew. Any that fell: they all began anew, for they live in one process."""
    if any(value < before.get(name, 0.0) for name, value in after.items()):
        return dict(after)
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def quantile(cumulative: Mapping[float, float], share: float) -> float | None:
    """The value below which `share` of the observations lie, between bucket bounds by a straight line.

    None without observations. One beyond the last finite bound is told as that bound, as Prometheus does: "at least".
    """
    bounds = sorted(cumulative)
    total = cumulative[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank, lower, below = share * total, 0.0, 0.0
    for bound in bounds:
        if cumulative[bound] >= rank:
            if bound == float("inf"):
                return lower
            inside = cumulative[bound] - below
            return lower + (bound - lower) * ((rank - below) / inside if inside > 0 else 1.0)
        lower, below = bound, max(below, cumulative[bound])
    return lower


# ---- what the parts call it ------------------------------------------------------------------------------------------

#: Histograms of a part's work: requests answered, events handled. They are read as one.
_HISTOGRAMS = frozenset(
    {"atoll_http_request_seconds_bucket", "atoll_handler_seconds_bucket", "atoll_gateway_upstream_seconds_bucket"}
)
_GAUGES = frozenset({"atoll_outbox_refused", "atoll_disk_bytes", "atoll_disk_free_bytes"})
_OWN_PAGES = "gateway"  # in the gateway's `service` label: /metrics, /ready, … asked by whoever looks after it
_REJECTED, _RETRIED = "rejected", "retried"  # deliveries that were not handled; the second comes again
WANTED = (
    frozenset(
        {
            "atoll_build_info", "atoll_http_requests_total", "atoll_gateway_requests_total", "atoll_events_total",
            "atoll_publish_acks_total", "atoll_deliveries_total", "atoll_errors_total", "atoll_gateway_retries_total",
            "atoll_redeliveries_total",
        }
    )
    | _HISTOGRAMS
    | _GAUGES
)  # fmt: skip


def sample(text: str, at: float, pid: int | None) -> Sample:
    """What a part's /metrics says, summed over its labels."""
    made = Sample(at, pid, {}, {}, None, {})
    version = None
    for name, labels, value in exposition.read(text, WANTED):
        if name == "atoll_build_info":
            version = labels.get("version")
        elif name in _GAUGES:
            made.gauges[name] = value
        elif name in _HISTOGRAMS:
            _observe(made.buckets, labels, value)
        else:
            for counter in _counters(name, labels):
                made.counts[counter] = made.counts.get(counter, 0.0) + value
    return msgspec.structs.replace(made, version=version)


def _observe(buckets: dict[float, float], labels: dict[str, str], value: float) -> None:
    try:
        bound = float(labels.get("le", ""))
    except ValueError:
        return
    buckets[bound] = buckets.get(bound, 0.0) + value


def _counters(name: str, labels: dict[str, str]) -> tuple[str, ...]:
    """Which counters a series counts towards."""
    match name:
        case "atoll_gateway_requests_total" if labels.get("service") == _OWN_PAGES:
            return ()
        case "atoll_http_requests_total" | "atoll_gateway_requests_total":
            failed = labels.get("status", "").startswith("5")
            return ("requests", "errors") if failed else ("requests",)
        case "atoll_events_total" if labels.get("outcome") == _RETRIED:
            return ("events_in", "errors", "retries")
        case "atoll_events_total":  # of a service: deliveries by outcome; of the broker: events stored
            return ("events_in", "errors") if labels.get("outcome") == _REJECTED else ("events_in",)
        case "atoll_publish_acks_total" | "atoll_deliveries_total":
            return ("events_out",)
        case "atoll_gateway_retries_total" | "atoll_redeliveries_total":
            return ("retries",)
        case _:
            return ("errors",)
