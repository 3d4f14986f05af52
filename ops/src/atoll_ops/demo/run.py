"""The demo from file to verdict: send, wait for the sagas, compare."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from atoll_ops import acts, console
from atoll_ops.demo import mapping
from atoll_ops.demo.shop import RefusedError, Shop
from atoll_ops.errors import OperationError
from atoll_ops.state import State

IN_FLIGHT_MAX = 8
#: The sagas of a file end long before; a saga that hangs has a deadline of its own, which must show, not this one.
SETTLE_SECONDS_MAX = 600.0
_LOOK_EVERY_SECONDS = 0.25
_STABLE_LOOKS = 2  # with the bus known to be empty
_STABLE_LOOKS_BLIND = 12  # three seconds, without
_COLLECTOR_SECONDS = 0.5
_PENNY = Decimal("0.01")

Sold = tuple[int, int, Decimal]
Advance = Callable[[], None]


def demo(state: State, file: Path | None, rate: float | None) -> int:
    """Send the file's invoices, wait, compare; 0 if sales has them to the penny. Raises OperationError."""
    if rate is not None and rate <= 0:
        raise OperationError(f"--rate {rate:g}: expected more than 0 requests a second")
    credentials = state.read_credentials()
    path = file or Path(str(resources.files("atoll_ops") / "sample.csv"))
    invoices = mapping.read(path)
    with _traced(state):
        return asyncio.run(_demo(state, credentials, invoices, rate, path.name))


async def _demo(
    state: State, credentials: dict[str, str], invoices: list[mapping.Invoice], rate: float | None, title: str
) -> int:
    wanted = mapping.expected(invoices)
    async with _connected(credentials) as shop:
        before = await shop.sales()
        began = time.monotonic()
        returns = await _send_all(shop, invoices, rate)
        sent_seconds = time.monotonic() - began
        console.say("sent", f"{len(invoices)} invoices in {sent_seconds:.1f} s ({shop.retries} retries)")
        sold = await _settled(state, shop, returns)
        console.say("settled", f"after {time.monotonic() - began:.1f} s")
        cancelled = await _cancelled(shop)
    return _verdict(title, wanted, before, sold, cancelled)


@contextlib.asynccontextmanager
async def _connected(credentials: dict[str, str]) -> AsyncIterator[Shop]:
    # A single trace configuration does not read OTEL_SEMCONV_STABILITY_OPT_IN; the mode has no public name in 0.66b1.
    from opentelemetry.instrumentation._semconv import _StabilityMode
    from opentelemetry.instrumentation.aiohttp_client import create_trace_config

    connector = aiohttp.TCPConnector(limit=IN_FLIGHT_MAX)
    traced = create_trace_config(sem_conv_opt_in_mode=_StabilityMode.HTTP)
    async with aiohttp.ClientSession(connector=connector, trace_configs=[traced]) as session:
        yield Shop(session, credentials)


# ---- sending -----------------------------------------------------------------------------------------------------


async def _send_all(shop: Shop, invoices: list[mapping.Invoice], rate: float | None) -> list[str]:
    """Post every invoice, a few at once; where the returns are. Raises RefusedError for the first that is refused."""
    returns: list[str] = []
    turn = iter(enumerate(invoices))
    began = time.monotonic()
    with _progress(len(invoices)) as advance:

        async def worker() -> None:
            for number, invoice in turn:  # one iterator for all workers: whoever is free takes the next
                if rate is not None:
                    await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
                _, location = await shop.post(invoice.path, invoice.body)
                if invoice.kind == mapping.RETURN:
                    returns.append(location)
                advance()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(IN_FLIGHT_MAX):
                    group.create_task(worker())
        except* RefusedError as refused:
            raise refused.exceptions[0] from None
    return returns


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Advance]:
    """A bar on a terminal; elsewhere a line each tenth."""
    if sys.stdout.isatty():
        from rich.progress import Progress

        with Progress() as bar:
            task = bar.add_task("sending", total=total)
            yield _Counter(lambda _: bar.advance(task))
    else:
        step = max(1, -(-total // 10))
        yield _Counter(lambda count: console.say("sending", f"{count} of {total}") if count % step == 0 else None)


class _Counter:
    def __init__(self, show: Callable[[int], None]) -> None:
        self._count = 0
        self._show = show

    def __call__(self) -> None:
        self._count += 1
        self._show(self._count)


# ---- waiting -----------------------------------------------------------------------------------------------------


async def _settled(state: State, shop: Shop, returns: list[str]) -> Sold:
    """What sales counts once no saga is under way, the bus is empty and the count stands still."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    waiting = list(returns)
    last: Sold | None = None
    same = 0
    while True:
        waiting = [one for one in waiting if (await shop.get(one))["status"] == "received"]
        under_way = waiting or (await shop.get("/orders?status=placed&limit=1"))["items"]
        lag = None if under_way else await asyncio.to_thread(_lag, state)
        if not under_way and not lag:
            sold = await shop.sales()
            same = same + 1 if sold == last else 0
            last = sold
            if same >= (_STABLE_LOOKS if lag is not None else _STABLE_LOOKS_BLIND):
                return sold
        if time.monotonic() > deadline:
            left = "not all orders confirmed" if under_way else f"sales counts {last}, bus lag {lag}"
            raise OperationError(f"the sagas did not end in {SETTLE_SECONDS_MAX:.0f} s: {left}; {len(waiting)} returns")
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


def _lag(state: State) -> int | None:
    """Events on the bus that some group has yet to handle; None if control or the bus does not tell."""
    try:
        groups = acts.control(state, "GET", "/ops/groups")["groups"]
    except (acts.ControlDownError, OperationError):
        return None
    return sum(int(group["lag"]) for group in groups.values())


async def _cancelled(shop: Shop) -> int:
    """Cancelled orders, up to a page: they explain a difference."""
    return len((await shop.get("/orders?status=cancelled&limit=100"))["items"])


# ---- the verdict -------------------------------------------------------------------------------------------------


def _verdict(title: str, wanted: mapping.Expected, before: Sold, sold: Sold, cancelled: int) -> int:
    orders, units, revenue = sold
    counts = f"{wanted.orders} orders, {wanted.returns} returns, {wanted.write_offs} write-offs"
    print(f"\n{'':<12}{'revenue':>16}{'units':>12}{'orders':>10}")
    print(f"{'/sales':<12}{_money(revenue):>16}{units:>12}{orders:>10}")
    print(f"{'the file':<12}{_money(wanted.revenue):>16}{wanted.units:>12}{wanted.orders:>10}   {title}: {counts}")
    if abs(revenue - wanted.revenue) < _PENNY and units == wanted.units:
        print("\nequal to the penny")
        return 0
    print(f"\nthey differ: revenue by {_money(revenue - wanted.revenue)}, units by {units - wanted.units}")
    if before[0] or before[1]:
        print(f"sales held {before[0]} orders ({_money(before[2])}, {before[1]} units) before this demo began;")
        print("to compare with an empty system: ./atoll down, ./atoll reset, ./atoll up --detach")
    if cancelled:
        print(f"{cancelled if cancelled < 100 else '100 or more'} orders were cancelled")
    return 1


def _money(amount: Decimal) -> str:
    return f"{amount:,.2f}"


# ---- traces ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _traced(state: State) -> Iterator[None]:
    """Spans of the demo's own requests go where the system's go, as service `demo`, if anybody takes them there."""
    system = state.read_system()
    if system is not None:
        os.environ.setdefault("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{system.ports.otlp_http}")
    if not _collector_listens(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")):
        yield
        return
    import atoll

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # a lost span is no news for whoever waits for sums
    options = atoll.Options(slot="demo/1", host="127.0.0.1", port=0, data=state.data, keys=state.keys, bus="")
    atoll.telemetry.start(options, atoll.telemetry.service_version("ops"))
    try:
        yield
    finally:
        atoll.telemetry.shutdown(timeout_seconds=2.0)


def _collector_listens(endpoint: str) -> bool:
    """Whether a connection to the collector can be made at all; without one, its retries would only cost seconds."""
    address = urlsplit(endpoint)
    try:
        with socket.create_connection((address.hostname or "", address.port or 4318), _COLLECTOR_SECONDS):
            return True
    except OSError:
        return False
