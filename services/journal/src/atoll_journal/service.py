"""The process: open, serve, stop. SIGTERM and SIGINT end it within two seconds."""

from __future__ import annotations

import asyncio
import signal

from atoll_journal.health import Health
from atoll_journal.ledger import Ledger
from atoll_journal.logs import Log
from atoll_journal.settings import Settings
from atoll_journal.witness import Witness


def serve(settings: Settings) -> None:
    """Runs until it is told to stop. Raises FatalError."""
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    log = Log(settings.slot, settings.log_level)
    ledger = Ledger(settings.data, settings.migrations)
    witness = Witness(settings, ledger, log)
    health = Health(settings, witness, ledger)
    await health.start()
    try:
        ledger.open()
        log.info("serving", port=health.port, events=ledger.position, topics=len(settings.topics))
        _on_signals(witness, health)
        await witness.run()
        log.info("stopped", events=ledger.position)
    finally:
        health.close()
        ledger.close()


def _on_signals(witness: Witness, health: Health) -> None:
    def stop() -> None:
        health.draining = True
        witness.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
