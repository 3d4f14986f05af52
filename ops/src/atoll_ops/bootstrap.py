"""The launcher's other half: makes the ops environment when its sources changed. `python -B -m atoll_ops.bootstrap`.

Runs on the system's Python with the standard library alone; `./atoll` gives the repository in ATOLL_ROOT and, in
ATOLL_STAMP, what it will compare next time.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from atoll_ops.environments import Environment, Workshop
from atoll_ops.errors import OperationError

INTERRUPTED = 130


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an installer must not outlive us
    root = Path(os.environ["ATOLL_ROOT"])
    workshop = Workshop(root)
    environment = Environment.of(root / "ops")
    try:
        workshop.sync([environment], _say)
        (workshop.home / environment.name / "launcher.stamp").write_text(os.environ["ATOLL_STAMP"])
    except OperationError as error:
        print(f"atoll: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _say(name: str, text: str) -> None:
    print(f"{name:<14} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
