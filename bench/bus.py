"""`./atoll bench bus`: events a second from one publisher to one group, and how long an event takes at 200 a second.

    publisher ──PUB──▶ broker (a real process: CURVE, SQLite WAL FULL) ──MSG──▶ consumer ──ACK──▶ broker

Publisher and consumer are processes of their own, on loopback. A run counts from the first PUB until the last event is
handled. Each row is measured several times, in turn with the others and with a reference that has no bus in it. Every
run is checked: each event once, those of a subject in order; a run that lost one is no figure but a failure.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

import _append
import _events
import _report
import _sdk
import _wire
import psutil
from _processes import RunFailedError, Worker, cpu_seconds, run, worker

from atoll_broker.testing import RealBroker

MESH = f"""
[grant.publisher]
publish = ["publisher.*"]
[group.consumer]
part = "consumer"
topics = ["{_events.TOPIC}"]
in_flight_max = {_wire.WINDOW_EVENTS}
"""
RATE = 200


class Row(NamedTuple):
    """A way through the bus. `share`: of the events asked for, since it is so much slower than the first."""

    title: str
    program: str
    batch: int
    share: float


ROWS = (
    Row(f"a  the bus, batches of {_events.BATCH_EVENTS_MAX}", "_wire", _events.BATCH_EVENTS_MAX, 1.0),
    Row("b  the bus, one event a PUB", "_wire", 1, 0.2),
    Row("c  SDK: outbox, bus, inbox; effects once", "_sdk", 0, 0.2),
)


class Bench:
    """One broker and a directory for what is measured on it."""

    def __init__(self, broker: RealBroker, directory: Path) -> None:
        self._broker = broker
        self._directory = directory
        self._runs = 0
        children = psutil.Process().children()
        self._pid = next(child.pid for child in children if "atoll_broker" in child.cmdline())

    async def crossing(self, row: Row, events: int, rate: int = 0) -> dict[str, Any]:
        """Sends events through the bus once; what publisher and consumer say of it, and the broker's CPU an event."""
        self._runs += 1
        before = cpu_seconds(self._pid)
        consume, publish = (self._job(row, role, events, rate) for role in ("consumer", "publisher"))
        async with worker(row.program, consume) as consumer:
            await consumer.says()  # subscribed
            async with worker(row.program, publish) as publisher:
                said = await _both(publisher, consumer)
        return said | {"cpu_us": (cpu_seconds(self._pid) - before) * 1e6 / events}

    def _job(self, row: Row, role: str, events: int, rate: int) -> _wire.Job | _sdk.Job:
        bus, keys = self._broker.endpoint, self._broker.keys(role)
        if row.program == "_sdk":
            folder = self._directory / f"{role}-{self._runs}"
            folder.mkdir()
            return _sdk.Job(role, bus, keys, folder, events, rate)
        return _wire.Job(role, bus, keys, events, row.batch, rate)

    async def append(self, events: int) -> dict[str, Any]:
        """The reference, once."""
        job = _append.Job(self._directory / "reference", events, _events.BATCH_EVENTS_MAX)
        async with worker("_append", job) as appending:
            return await appending.says()


async def _both(publisher: Worker, consumer: Worker) -> dict[str, Any]:
    """Their results in one. The first that fails ends the wait for the other."""
    try:
        async with asyncio.TaskGroup() as tasks:
            said = [tasks.create_task(one.says()) for one in (publisher, consumer)]
    except* RunFailedError as failed:
        raise failed.exceptions[0] from None
    return said[0].result() | said[1].result()


def _per_second(events: int, said: dict[str, Any]) -> float:
    return float(events / (said["ended"] - said["began"]))


async def measure(state: Path, events: int, runs: int, samples: int) -> None:
    """Everything, printed as it is known."""
    print(f"machine   {_report.machine()}; {_report.busy()}")
    with _report.directory(state) as directory:
        async with RealBroker(directory / "broker", MESH) as broker:
            bench = Bench(broker, directory)
            await _throughput(bench, events, runs)
            await _latency(bench, samples)
    print("every run: each event arrived once, those of a subject in order")


async def _throughput(bench: Bench, events: int, runs: int) -> None:
    reference: list[float] = []
    figures: dict[Row, list[tuple[float, float]]] = {row: [] for row in ROWS}
    for _ in range(runs):
        appended = await bench.append(events)
        reference.append(_per_second(events, appended))
        for row in ROWS:
            count = int(events * row.share)
            said = await bench.crossing(row, count)
            figures[row].append((_per_second(count, said), said["cpu_us"]))
    _print_settings(events, appended)
    title = f"file: append + fdatasync, batches of {_events.BATCH_EVENTS_MAX}"
    _report.row("throughput", "median (range)", "of file", "broker CPU µs")
    _report.row(title, _report.median_and_range(reference, "events/s"), "1")
    for row, measured in figures.items():
        values, cpu_us = zip(*measured, strict=True)
        cells = f"{_report.ratio(values, reference):.3f}", f"{statistics.median(cpu_us):.1f}"
        _report.row(row.title, _report.median_and_range(values, "events/s"), *cells)


def _print_settings(events: int, appended: dict[str, Any]) -> None:
    print(
        f"settings  {_events.DATA_BYTES} B of data in an event of {appended['event_bytes']} B, {_events.SUBJECTS:,}"
        f" subjects, one publisher, one group of one member, CURVE, loopback\n"
        f"          broker: SQLite WAL synchronous=FULL, batches up to {_events.BATCH_EVENTS_MAX}, windows of"
        f" {_wire.WINDOW_EVENTS:,} events; SDK: SQLite WAL synchronous=FULL,\n"
        f"          one event a transaction, {_sdk.WRITERS} at once; events a run:"
        f" {', '.join(f'{int(events * row.share):,}' for row in ROWS)}\n"
        f"          this disk: append + fdatasync of {_events.BATCH_EVENTS_MAX} events p50 {appended['p50_ms']:.2f} ms,"
        f" p99 {appended['p99_ms']:.2f} ms"
    )


async def _latency(bench: Bench, samples: int) -> None:
    _report.row(f"latency at {RATE}/s, publish → handler", f"p50 ms ({samples:,} events)", "p99 ms", "max ms")
    for row in (ROWS[0], ROWS[-1]):
        said = await bench.crossing(row, samples, RATE)
        _report.row(row.title, *(f"{said[key]:.2f}" for key in ("p50_ms", "p99_ms", "max_ms")))


def main() -> int:
    """Parses and runs."""
    parser = argparse.ArgumentParser(prog="atoll bench bus", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=60_000, help="a run of row a; b and c get their share of it")
    parser.add_argument("--runs", type=int, default=3, help="of each row")
    parser.add_argument("--samples", type=int, default=1_200, help="for each latency")
    _report.add_state(parser)
    asked = parser.parse_args()
    if min(asked.events // 10, asked.runs, asked.samples) < 1:
        parser.error("expected at least 10 events, 1 run, 1 sample")
    return run(measure(asked.state, asked.events, asked.runs, asked.samples))


if __name__ == "__main__":
    sys.exit(main())
