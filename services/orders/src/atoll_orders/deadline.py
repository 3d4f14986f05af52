"""Cancels the orders whose saga hangs.

The deadline is a time of day in the order's own row, not a timer: it outlives a crash, and an order that ran out while
the service was down is cancelled at its next start. So a clock that jumps ahead cancels early, which costs a sale and
nothing else: what was reserved and captured is given back as for any other cancellation.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

import atoll
from atoll_orders import saga, store
from atoll_orders.domain import Fact, Kind

BATCH_MAX = 100
"""Orders cancelled at once: the writer thread is shared with everything else."""
PAUSE_SECONDS = 0.25
"""Between two looks. One look is an index search that finds nothing, some 20 µs."""

_log = structlog.get_logger("atoll_orders")


def now_ms() -> int:
    """Milliseconds since 1970 by the wall clock."""
    return time.time_ns() // 1_000_000


async def watch(database: atoll.Database, clock: Callable[[], int] = now_ms) -> None:
    """Cancels overdue orders until it is cancelled itself. Whatever fails is logged and looked at again after the
    pause: without this task a hanging order would hang for ever, and nobody would notice."""
    while True:
        try:
            cancelled = await cancel_overdue(database, clock())
        except Exception:
            _log.exception("deadlines not looked at")
            cancelled = 0
        if cancelled < BATCH_MAX:
            await asyncio.sleep(PAUSE_SECONDS)


async def cancel_overdue(database: atoll.Database, at_ms: int) -> int:
    """Cancels at most `BATCH_MAX` orders that are overdue at `at_ms` (ms since 1970); says how many it could. Each is a
    transaction of its own, so one that fails keeps no other waiting; the writer thread commits them together."""
    overdue = await database.read(lambda reader: store.overdue(reader, at_ms, BATCH_MAX))
    if not overdue:
        return 0
    outcomes = await asyncio.gather(*(database.write(_cancelling(each)) for each in overdue), return_exceptions=True)
    failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if failed:
        _log.error("orders not cancelled at their deadline", orders=len(failed), error=str(failed[0]))
    cancelled = sum(outcome is True for outcome in outcomes)
    _log.info("orders cancelled at their deadline", orders=cancelled)
    return cancelled


def _cancelling(order_id: str) -> Callable[[atoll.Transaction], bool]:
    def work(tx: atoll.Transaction) -> bool:
        order = saga.known(tx, Kind.ORDER, order_id)
        return saga.cancel(tx, order, Fact.DEADLINE, "stock or payment did not answer in time")

    return work
