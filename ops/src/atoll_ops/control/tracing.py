"""The trace that an act happens in."""

from __future__ import annotations

from opentelemetry import trace


def trace_id() -> str | None:
    """The current trace's id in hex, if there is one."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None
