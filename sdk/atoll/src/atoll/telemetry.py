"""skeleton"""
from __future__ import annotations
from ._options import Options

def start(options: Options) -> None:
    """Starts the export of spans to `OTEL_EXPORTER_OTLP_ENDPOINT`; does nothing with OTEL_SDK_DISABLED=true."""

def shutdown(timeout_seconds: float = 2.0) -> None:
    """Sends what is queued, for at most this long, then gives up."""
