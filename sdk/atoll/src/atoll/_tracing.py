"""Spans along an event's way, by the OpenTelemetry API alone; without a provider they cost next to nothing.

    publish orders.order.placed.v1     producer span, made at the append; its context is the event's `traceparent`
      relay orders.order.placed.v1     append → PUBACK, a child of it
      process orders.order.placed.v1   consumer span in another process: child of the stored context, and a link to it

The link is what the conventions ask for; the parent is what makes one trace in the viewer. Attributes are few and
bounded: topic, event id, subject, group, attempt, outcome. Never `data`. The subject is there to find an order's trace
by the order's id, which is what somebody who asks has at hand.

What was not sampled and then fails is worth a span all the same: it is made afterwards, in the trace that the event
names. That trace holds only its failures, so their parent is missing there; that much a viewer says itself.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from collections.abc import Iterator

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.util.types import AttributeValue

from ._errors import Reject

_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_ERROR_LENGTH_MAX = 200
_tracer = trace.get_tracer("atoll")


@contextlib.contextmanager
def publishing(topic: str, event_id: str, subject: str) -> Iterator[str | None]:
    """The producer span around the append; yields the `traceparent` to store, or None without a trace."""
    with _tracer.start_as_current_span(
        f"publish {topic}",
        kind=SpanKind.PRODUCER,
        attributes=_messaging("publish", "create", topic, event_id, subject),
    ) as span:
        yield traceparent(span.get_span_context())


@contextlib.contextmanager
def processing(topic: str, event_id: str, subject: str, group: str, attempt: int, parent: str | None) -> Iterator[Span]:
    """The consumer span around a handler: child of the stored context, with a link to it.

    `Retry` and `Reject` are verdicts and end the attempt as any other exception does: the span is marked as failed.
    """
    stored = span_context(parent)
    attributes = _messaging("process", "process", topic, event_id, subject)
    attributes["messaging.consumer.group.name"] = group
    attributes["atoll.attempt"] = attempt
    began = time.time_ns()
    with _tracer.start_as_current_span(
        f"process {topic}",
        context=_context(stored),
        kind=SpanKind.CONSUMER,
        attributes=attributes,
        links=_link(stored),
        start_time=began,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except Exception as error:
            failed = span if span.is_recording() or stored is None else _afterwards(topic, stored, attributes, began)
            fail(failed, f"{type(error).__name__}: {error}", type(error).__name__)
            failed.set_attribute("atoll.outcome", "rejected" if isinstance(error, Reject) else "failed")
            if failed is not span:
                failed.end()
            raise


def _link(stored: SpanContext | None) -> list[Link] | None:
    # Jaeger shows the parent of a span that also links to it as this attribute says, and without it as FOLLOWS_FROM:
    # every consumer's span would look like one without a parent.
    return [Link(stored, {"opentracing.ref_type": "child_of"})] if stored else None


def _afterwards(topic: str, stored: SpanContext, attributes: dict[str, AttributeValue], began: int) -> Span:
    """A span that nobody meant to take, since the attempt has failed."""
    taken = SpanContext(stored.trace_id, stored.span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return _tracer.start_span(
        f"process {topic}",
        context=_context(taken),
        kind=SpanKind.CONSUMER,
        attributes=attributes,
        links=_link(stored),
        start_time=began,
    )


def duplicate(span: Span) -> None:
    """Notes that the event had its effect before: nothing was done this time."""
    span.set_attribute("atoll.outcome", "duplicate")


def relaying(topic: str, event_id: str, subject: str, parent: str | None, began: datetime.datetime | None) -> Span:
    """Starts the relay's span, as of the append (`began`), or as of now when it is sent once more.

    End it when the PUBACK has come or the session is lost.
    """
    return _tracer.start_span(
        f"relay {topic}",
        context=_context(span_context(parent)),
        kind=SpanKind.CLIENT,
        attributes=_messaging("relay", "send", topic, event_id, subject),
        start_time=int(began.timestamp() * 1e9) if began is not None else None,
    )


@contextlib.contextmanager
def serving(method: str, route: str | None, parent: str | None) -> Iterator[Span]:
    """The server span of an HTTP request, a child of the incoming context. Named by the route, never by the path."""
    attributes: dict[str, AttributeValue] = {"http.request.method": method, "url.scheme": "http"}
    if route is not None:
        attributes["http.route"] = route
    name = f"{method} {route}" if route is not None else method
    context = _context(span_context(parent))
    with _tracer.start_as_current_span(
        name, context=context, kind=SpanKind.SERVER, attributes=attributes, record_exception=False
    ) as span:
        yield span


def served(span: Span, status: int) -> None:
    """Notes the answer; by the conventions only 5xx is the server's failure."""
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        fail(span, "", str(status))


def fail(span: Span, text: str, kind: str) -> None:
    """Marks the span as failed, with a bounded text and `error.type`, which is of few values."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, text[:_ERROR_LENGTH_MAX] or None))


def span_context(parent: str | None) -> SpanContext | None:
    """Reads a `traceparent`; None if there is none or it is not one."""
    match = _PARENT.fullmatch(parent) if parent else None
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return context if context.is_valid else None


def traceparent(context: SpanContext) -> str | None:
    """Writes a `traceparent`; None without a trace."""
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def trace_id() -> str | None:
    """The current trace's id, for logs and problems."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


def _context(parent: SpanContext | None) -> Context:
    # An empty context, not the current one: a relay or a writer thread must not adopt whatever span is open there.
    return trace.set_span_in_context(NonRecordingSpan(parent), Context()) if parent else Context()


def _messaging(
    operation: str, operation_type: str, topic: str, event_id: str, subject: str
) -> dict[str, AttributeValue]:
    return {
        "messaging.system": "atoll",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation_type,
        "messaging.destination.name": topic,
        "messaging.message.id": event_id,
        "cloudevents.event_subject": subject,
    }
