"""`python -m atoll_broker`: options, storage, server; the exit code says how it ended (errors.EXIT_*)."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from . import logs, mesh
from .errors import (
    EXIT_CONFIGURATION,
    EXIT_LOCKED,
    EXIT_PORT_TAKEN,
    EXIT_STORAGE,
    BrokerError,
    ConfigurationError,
    PortTakenError,
    StorageFailedError,
    StorageLockedError,
)
from .options import Options
from .server import Server
from .storage_sqlite import SqliteStorage

_EXIT_CODES: dict[type[BrokerError], int] = {
    ConfigurationError: EXIT_CONFIGURATION,
    PortTakenError: EXIT_PORT_TAKEN,
    StorageFailedError: EXIT_STORAGE,
    StorageLockedError: EXIT_LOCKED,
}


async def serve() -> int:
    options = Options.from_environment()
    server = Server(options, mesh.load(options.mesh), SqliteStorage(options.data), logs.configure(options))
    return await server.run()


def main() -> int:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve())
    except tuple(_EXIT_CODES) as error:
        print(f"atoll-broker: {error}", file=sys.stderr)  # one line: the agent shows it as the reason
        return _EXIT_CODES[type(error)]


if __name__ == "__main__":
    sys.exit(main())
