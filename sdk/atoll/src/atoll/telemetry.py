"""Spans to a collector by OTLP/HTTP, so that observing never harms what is observed.

    span ends ─▶ gate (bounded, never waits; counts drops) ─▶ batch thread ─▶ OTLP/HTTP, 8 s at most a batch

* A full queue drops the new span and counts it. Nothing on the business path waits, whatever the collector does.
* `shutdown` gives up after its time: against a hung collector the SDK's own took 9.8 s.
* The exporter (requests, protobuf: 0.2 s to import on one core) is imported by the batch thread at its first batch;
  ten services that all import it at their start would lose two seconds of the ten that the whole system has.
* What the exporter complains about is one line a minute (see `logs`).

Sampling follows the parent (the gateway decides); a root span here is always taken.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import threading
from typing import TYPE_CHECKING

from opentelemetry import trace

from . import logs
from ._counters import SpanCounters
from ._options import Options

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

_log = logging.getLogger("opentelemetry.atoll")


counters = SpanCounters()
"""What became of spans in this process, for `/metrics`."""
_provider: TracerProvider | None = None


def start(options: Options, version: str | None = None) -> None:
    """Exports spans to `OTEL_EXPORTER_OTLP_ENDPOINT` from now on, as a version of the service (default: its package's).

    Does nothing when that is not set or OTEL_SDK_DISABLED is true, or when started already. Never raises over a
    collector: that it cannot be reached is found out later, by the thread that exports.
    """
    global _provider
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").rstrip("/")
    if _provider is not None or not endpoint or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    _provider = make_provider(options, f"{endpoint}/v1/traces", version)
    trace.set_tracer_provider(_provider)


def shutdown(timeout_seconds: float = 2.0) -> None:
    """Sends what is queued, for at most this long, then gives up. A second call does nothing."""
    global _provider
    provider, _provider = _provider, None
    if provider is not None:
        stop_provider(provider, timeout_seconds)


def make_provider(options: Options, url: str, version: str | None = None) -> TracerProvider:
    """A provider that exports to `url`; `start` makes the process's own."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import DEFAULT_ON

    logs.quieten_telemetry()
    resource = Resource(
        {
            "service.name": options.name,
            "service.instance.id": options.slot,
            "service.version": version or service_version(options.name),
        }
    )
    provider = TracerProvider(sampler=DEFAULT_ON, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(_gated_processor(url))
    return provider


def _gated_processor(url: str) -> SpanProcessor:
    from ._export import GatedProcessor, LazyExporter

    return GatedProcessor(LazyExporter(url, counters), counters)


def stop_provider(provider: TracerProvider, timeout_seconds: float) -> None:
    """Shuts a provider down, waiting at most so long. The thread that is left behind dies with the process."""
    thread = threading.Thread(target=provider.shutdown, name="telemetry shutdown", daemon=True)
    thread.start()
    thread.join(timeout_seconds)
    if thread.is_alive():
        _log.warning("telemetry: the collector did not take the last spans within %.1f s", timeout_seconds)


def service_version(name: str) -> str:
    """Version of the installed package `atoll-<name>`, else `0`."""
    try:
        return importlib.metadata.version(f"atoll-{name}")
    except importlib.metadata.PackageNotFoundError:
        return "0"
