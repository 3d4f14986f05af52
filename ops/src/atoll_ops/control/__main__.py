"""`python -m atoll_ops control`: options, run; nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import atoll
from atoll import web as atoll_web
from atoll_ops.control.app import make_app

CONFIGURATION_ERROR = 64


def main() -> int:
    """Serve until a signal; the exit code."""
    try:
        options = atoll.Options.from_environment()
        run = os.environ.get("ATOLL_RUN", "")
        if not Path(run).is_dir() or not run:
            raise atoll.ConfigurationError(f"ATOLL_RUN is {run!r}: expected the directory of the agent's socket")
        agents, page = (_path(name) for name in ("ATOLL_AGENTS", "ATOLL_MESH"))
        app = make_app(options, Path(run), os.environ, agents, page)
    except atoll.ConfigurationError as error:
        print(error, file=sys.stderr)
        return CONFIGURATION_ERROR
    atoll_web.serve(app, options)
    return 0


def _path(name: str) -> Path | None:
    """A path that the agent may have told."""
    told = os.environ.get(name, "")
    return Path(told) if told else None


if __name__ == "__main__":
    sys.exit(main())
