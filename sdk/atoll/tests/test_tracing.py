"""Spans of the bus: what a trace must show of failures, duplicates and things sent twice."""

from __future__ import annotations

import contextlib
import datetime
import time

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import atoll
from atoll import _tracing

TOPIC = "orders.order.placed.v1"
STORED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"
SAMPLED, UNSAMPLED = f"{STORED}01", f"{STORED}00"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(_tracing, "_tracer", provider.get_tracer("test"))
    return exporter


def attempt(parent: str, error: Exception | None = None) -> None:
    """One handling of an event that ends so."""
    ends = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with ends, _tracing.processing(TOPIC, "event-1", "order-1", "payments", 2, parent):
        if error is not None:
            raise error


def only(spans: InMemorySpanExporter) -> ReadableSpan:
    (span,) = spans.get_finished_spans()
    return span


def test_a_consumer_span_names_what_it_handled_and_whom_it_follows(spans: InMemorySpanExporter) -> None:
    attempt(SAMPLED)
    span = only(spans)
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert dict(span.attributes or {}) == {
        "messaging.system": "atoll",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": TOPIC,
        "messaging.message.id": "event-1",
        "messaging.consumer.group.name": "payments",
        "cloudevents.event_subject": "order-1",
        "atoll.attempt": 2,
    }
    (link,) = span.links
    assert link.context == span.parent
    assert dict(link.attributes or {}) == {"opentracing.ref_type": "child_of"}, "Jaeger would hide the parent"


@pytest.mark.parametrize(
    ("error", "outcome", "kind"),
    [(ValueError("x" * 999), "failed", "ValueError"), (atoll.Reject("no"), "rejected", "Reject")],
)
@pytest.mark.parametrize("parent", [SAMPLED, UNSAMPLED], ids=["sampled", "not sampled"])
def test_a_failed_attempt_is_marked_sampled_or_not(
    spans: InMemorySpanExporter, parent: str, error: Exception, outcome: str, kind: str
) -> None:
    began = time.time_ns()
    attempt(parent, error)
    span = only(spans)
    assert span.status.status_code is StatusCode.ERROR
    assert len(span.status.description or "") <= 200
    assert span.attributes is not None
    assert (span.attributes["atoll.outcome"], span.attributes["error.type"]) == (outcome, kind)
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert span.start_time is not None
    assert began <= span.start_time


def test_what_goes_well_unsampled_leaves_no_span(spans: InMemorySpanExporter) -> None:
    attempt(UNSAMPLED)
    assert spans.get_finished_spans() == ()


def test_an_event_that_came_before_says_so(spans: InMemorySpanExporter) -> None:
    with _tracing.processing(TOPIC, "event-1", "order-1", "payments", 2, SAMPLED) as span:
        _tracing.duplicate(span)
    found = only(spans)
    assert found.attributes is not None
    assert found.attributes["atoll.outcome"] == "duplicate"
    assert found.status.status_code is StatusCode.UNSET


def test_a_relay_span_begins_at_the_append_and_one_sent_again_now(spans: InMemorySpanExporter) -> None:
    appended = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=60)
    _tracing.relaying(TOPIC, "event-1", "order-1", SAMPLED, appended).end()
    _tracing.relaying(TOPIC, "event-1", "order-1", SAMPLED, None).end()
    first, second = spans.get_finished_spans()
    assert first.start_time is not None
    assert second.start_time is not None
    assert abs(first.start_time / 1e9 - appended.timestamp()) < 0.001
    assert second.start_time > first.start_time + 50e9
