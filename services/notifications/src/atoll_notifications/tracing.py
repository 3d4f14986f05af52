"""The span of a delivery: in the order's trace, a child of what published the event, as is the SDK's `process`."""

import contextlib
from collections.abc import Iterator

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from atoll_notifications.store import Mail

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("atoll_notifications")


@contextlib.contextmanager
def delivering(mail: Mail, channel: str) -> Iterator[Span]:
    """Around one try to deliver `mail` by `channel` (maildir, smtp); an exception marks it as failed."""
    carrier = {"traceparent": mail.traceparent} if mail.traceparent else {}
    parent = _propagator.extract(carrier, context=Context())  # never whatever span is current on this task
    attributes = {
        "mail.channel": channel,
        "mail.name": mail.name,
        "messaging.destination.name": mail.topic,
        "cloudevents.event_subject": mail.order_id,
    }
    with _tracer.start_as_current_span(
        "deliver mail",
        context=parent,
        kind=SpanKind.CLIENT if channel == "smtp" else SpanKind.INTERNAL,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except Exception as error:
            failed(span, f"{type(error).__name__}: {error}")
            raise


def failed(span: Span, text: str) -> None:
    span.set_status(Status(StatusCode.ERROR, text[:200]))
