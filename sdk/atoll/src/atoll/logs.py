"""Logs: JSON lines on stderr with `time level event service slot trace_id …`. Never secrets or tokens.

`structlog.get_logger()` anywhere; the standard library's loggers come out in the same form, so that aiohttp's and
OpenTelemetry's words land in the same file.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

import structlog

from . import _tracing
from ._options import Options

REPEAT_SECONDS = 60.0
"""The exporter of telemetry may complain once in so many seconds."""
EVENT_LENGTH_MAX = 4096
_TELEMETRY = ("opentelemetry", "urllib3", "requests")
"""The exporter and what it is made of."""


def configure(options: Options, *, stream: TextIO | None = None) -> None:
    """Sets up structlog and the standard library's logging for this process. `stream` defaults to stderr."""
    level = logging.getLevelNamesMapping()[options.log_level.upper()]
    out = stream or sys.stderr
    shared: list[Any] = [
        _add_trace_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper("iso", key="time"),
    ]
    render: list[Any] = [
        structlog.processors.format_exc_info,
        _adding(options),
        structlog.processors.JSONRenderer(default=str),
    ]
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(_Formatter(shared, render))
    handler.addFilter(_quieten)
    quieten_telemetry()
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(max(level, logging.INFO))


def quieten_telemetry() -> None:
    """One line a minute of the exporter's complaints, whether or not the process has set up its logs."""
    for name in _TELEMETRY:
        logger = logging.getLogger(name)
        logger.handlers[:] = [_OneLine(logging.WARNING)]
        logger.propagate = False


class _OneLine(logging.Handler):
    """Hands on the first record of a minute, as one line, to wherever the process logs (else to stderr)."""

    def emit(self, record: logging.LogRecord) -> None:
        _drop_trace(record)
        if _repeats.first("telemetry"):
            last = [logging.lastResort] if logging.lastResort is not None else []
            for handler in logging.root.handlers or last:
                handler.handle(record)


class _Formatter(logging.Formatter):
    """A record of the standard library's logging in the same JSON form."""

    def __init__(self, shared: list[Any], render: list[Any]) -> None:
        super().__init__()
        self._processors = [*shared, *render]

    def format(self, record: logging.LogRecord) -> str:
        event: Any = {"event": record.getMessage()[:EVENT_LENGTH_MAX], "logger": record.name}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        for process in self._processors:
            event = process(None, record.levelname.lower(), event)
        return str(event)


class _Repeats:
    """Lets one record a minute of a logger through and counts the others."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}

    def first(self, name: str) -> bool:
        now = self._clock()
        if now - self._last.get(name, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        self._last[name] = now
        return True


_repeats = _Repeats()


def _quieten(record: logging.LogRecord) -> bool:
    """Takes stack traces from a source that strangers could make talk without end."""
    if record.name == "aiohttp.server" and _is_bad_request(record):
        _drop_trace(record)
        record.levelname = "INFO"
        return _repeats.first("aiohttp.server bad request")
    return True


def _drop_trace(record: logging.LogRecord) -> None:
    """One line: the message and the innermost cause's type."""
    error = record.exc_info[1] if record.exc_info else None
    text = record.getMessage().splitlines()[0] if record.getMessage() else ""
    record.msg = f"{text}: {type(error).__name__}" if error else text
    record.args = ()
    record.exc_info = None


def _is_bad_request(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__module__ == "aiohttp.http_exceptions" if error else False


def _add_trace_id(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    trace_id = _tracing.trace_id()
    if trace_id:
        event.setdefault("trace_id", trace_id)
    return event


def _adding(options: Options) -> Callable[[object, str, MutableMapping[str, Any]], MutableMapping[str, Any]]:
    def add(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        head = {"time": event.pop("time", None), "level": event.pop("level", None), "event": event.pop("event", None)}
        return {**head, "service": options.name, "slot": options.slot, **event}

    return add
