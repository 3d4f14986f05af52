"""`python -m atoll_dashboard`: options, logs, serve. 0 drained; 64 not configured; 69 the port is taken."""

from __future__ import annotations

import logging
import signal
import socket
import sys

import structlog

from atoll_dashboard import config

_NOT_CONFIGURED, _PORT_TAKEN = 64, 69


def main() -> int:
    """Serve until SIGTERM; the exit code."""
    try:
        options = config.read()
    except (config.ConfigurationError, OSError) as error:
        print(f"atoll-dashboard: {error}", file=sys.stderr)
        return _NOT_CONFIGURED
    _log_as_json(options)
    if not _free(options.host, options.port):  # Streamlit would take the next one
        print(f"atoll-dashboard: port {options.port} on {options.host} is taken", file=sys.stderr)
        return _PORT_TAKEN
    from atoll_dashboard.app import make_app, settings

    # The server drains on SIGTERM, then sends it again to whoever handled it before: that is the end, and a good one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    make_app(options).run(config=settings(options))
    return 0


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


def _free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
