"""The heavy half of `telemetry`: imported only where spans are exported."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from ._counters import SpanCounters

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

QUEUE_SPANS_MAX = 16_384
"""About 10 s of a busy service at 1,600 spans/s; the SDK's default of 2,048 drops bursts. Some 30 MB when full."""
BATCH_SPANS_MAX = 512
EXPORT_SECONDS = 8.0
"""One batch, its retries included. A collector answers in milliseconds, unless its machine is busy: with 2 s an order's
trace lost a span now and then. Who ends does not wait for it: `telemetry.shutdown` has a time of its own."""
SCHEDULE_SECONDS = 0.5
_log = logging.getLogger("opentelemetry.atoll")


class LazyExporter(SpanExporter):
    """The OTLP/HTTP exporter, imported and made by the batch thread at its first batch. Counts what it sends."""

    def __init__(self, url: str, counters: SpanCounters) -> None:
        self._url = url
        self._counters = counters
        self._exporter: OTLPSpanExporter | None = None
        self.pending = 0
        """Spans that were taken and are neither sent nor given up. Kept by the gate and this, under `lock`."""
        self.lock = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Never raises; what cannot be sent is counted and forgotten."""
        try:
            result = self._get().export(spans)
        except Exception as error:
            _log.error("spans were not exported", exc_info=error)  # the log's filter makes one line of it
            result = SpanExportResult.FAILURE
        with self.lock:
            self.pending -= len(spans)
            if result is SpanExportResult.SUCCESS:
                self._counters.exported += len(spans)
            else:
                self._counters.failed += len(spans)
        return result

    def shutdown(self) -> None:
        """Ends the retries of an export that is under way."""
        if self._exporter is not None:
            self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _get(self) -> OTLPSpanExporter:
        if self._exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            self._exporter = OTLPSpanExporter(endpoint=self._url, timeout=EXPORT_SECONDS)
        return self._exporter


class GatedProcessor(BatchSpanProcessor):
    """A batch processor with a gate: what does not fit is dropped and counted, one comparison per span.

    The SDK's own queue drops the *oldest* span with a warning for each and tells no number.
    """

    def __init__(self, exporter: LazyExporter, counters: SpanCounters, queue_spans_max: int = QUEUE_SPANS_MAX) -> None:
        super().__init__(
            exporter,
            max_queue_size=queue_spans_max + BATCH_SPANS_MAX,
            schedule_delay_millis=SCHEDULE_SECONDS * 1000,
            max_export_batch_size=BATCH_SPANS_MAX,
        )
        self._gated = exporter
        self._counters = counters
        self._queue_spans_max = queue_spans_max

    def on_end(self, span: ReadableSpan) -> None:
        """Takes a sampled span, or counts it as dropped. Never waits for the collector."""
        context = span.context
        if context is None or not context.trace_flags.sampled:
            return
        with self._gated.lock:
            if self._gated.pending >= self._queue_spans_max:
                self._counters.dropped += 1
                return
            self._gated.pending += 1
        super().on_end(span)
