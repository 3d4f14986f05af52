"""`python -m atoll_dashboard`: options, logs, serve.

Exit codes: 0 ended, 64 not configured, 69 the port is taken, 74 the data folder cannot be written.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys

import structlog

from atoll_dashboard import config

_NOT_CONFIGURED, _PORT_TAKEN, _STORAGE = 64, 69, 74


def main() -> int:
    """Serve until SIGTERM; the exit code."""
    try:
        options = config.read()
    except config.ConfigurationError as error:
        return _ended(_NOT_CONFIGURED, str(error))
    _log_as_json(options)
    refused = _try_port(options.host, options.port)  # Streamlit would say neither which nor why
    if refused is not None and refused.errno == errno.EADDRINUSE:
        return _ended(_PORT_TAKEN, f"port {options.port} on {options.host} is taken")
    if refused is not None:
        return _ended(_NOT_CONFIGURED, f"ATOLL_HOST, ATOLL_PORT: {options.host}:{options.port}: {refused}")
    from atoll_dashboard.app import make_app, settings

    try:
        app = make_app(options)
    except OSError as error:
        return _ended(_STORAGE, f"ATOLL_DATA: {error}")
    # The server drains on SIGTERM, then sends it again to whoever handled it before: that is the end, and a good one.
    # At once: Python would wait for threads that wait for a part that hangs.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    app.run(config=settings(options))
    return 0


def _ended(code: int, words: str) -> int:
    print(f"atoll-dashboard: {words}", file=sys.stderr)
    return code


def _log_as_json(options: config.Options) -> None:
    level = logging.getLevelNamesMapping().get(options.log_level.upper(), logging.INFO)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )


def _try_port(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


if __name__ == "__main__":
    sys.exit(main())
