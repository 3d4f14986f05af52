"""`python -m atoll_gateway`: parses, wires, waits."""

from __future__ import annotations

import asyncio
import sys

import uvloop

import atoll

from . import serving, settings


def main() -> int:
    """Runs the gateway until it is told to stop; answers the exit code (64 configuration, 69 port, 74 storage)."""
    try:
        started_with = settings.from_environment()
        atoll.logs.configure(started_with.options)
        atoll.telemetry.start(started_with.options)
        serving.raise_file_limit(started_with.policy.connections_max)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serving.serve(started_with))
    except atoll.FatalError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        atoll.telemetry.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
