"""HTTP for whoever looks after the process: /live, /ready, /metrics. No token: the agent and Prometheus ask."""

from __future__ import annotations

import errno
import importlib.metadata
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import admin
from .errors import PortTakenError

if TYPE_CHECKING:
    from .core import Core
    from .groups import Group

# A client that owes the rest of its body held up a clean stop for ten seconds (measured).
SHUTDOWN_SECONDS: Final = 0.5

Why = Callable[[], str]


class BrokerCollector(Collector):
    """The broker's numbers, read from the core when they are asked for."""

    def __init__(self, core: Core, keys_refused: Callable[[], int], data: Path) -> None:
        self._core = core
        self._keys_refused = keys_refused
        self._data = data
        self._version = importlib.metadata.version("atoll-broker")

    def collect(self) -> Iterable[Metric]:
        core = self._core
        yield _labelled("atoll_build_info", "Always 1; the version that runs", {"version": self._version}, 1)
        yield from _disk(self._data)
        yield _gauge("atoll_pub_pending_events", "Events received, not yet on disk", core.publishing.pending_events)
        yield _gauge("atoll_log_bytes", "Bytes of events in the log", core.log.bytes)
        yield _gauge("atoll_disk_full", "1 while the disk has no room", core.publishing.full_until is not None)
        yield _gauge("atoll_faults", "Faults for messages that are active", len(core.faults))
        yield _gauge("atoll_alarms", "Alarms that are on", len(admin.alarms(core)))
        yield _counter("atoll_events", "Events stored since the boot", core.events_total)
        yield _counter("atoll_refused_events", "Events refused for good", core.publishing.refused_total)
        yield _counter("atoll_refused_keys", "Connections refused for their key", self._keys_refused())
        yield _by_group(core, "atoll_group_lag", "Events not yet acked", lambda group: group.lag)
        yield _by_group(core, "atoll_group_in_flight", "Events leased", lambda group: group.in_flight)
        yield _by_group(core, "atoll_group_dead_letters", "Dead letters", lambda group: group.dead)
        yield _by_group(core, "atoll_group_parked_keys", "Keys parked", lambda group: group.parked_keys)
        deliveries = CounterMetricFamily("atoll_deliveries", "Deliveries, the first and later ones", labels=["group"])
        redeliveries = CounterMetricFamily("atoll_redeliveries", "Deliveries after the first", labels=["group"])
        for name, group in core.groups.items():
            deliveries.add_metric([name], group.deliveries)
            redeliveries.add_metric([name], group.redeliveries)
        yield deliveries
        yield redeliveries
        yield _sessions(core)
        errors = CounterMetricFamily("atoll_errors", "ERR answers", labels=["code"])
        for code, count in core.errors.items():
            errors.add_metric([code], count)
        yield errors


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _disk(data: Path) -> Iterable[Metric]:
    try:
        disk = os.statvfs(data)
    except OSError:
        return  # the other numbers are worth having without this one
    yield _gauge("atoll_disk_bytes", "Size of the file system of the data directory", disk.f_blocks * disk.f_frsize)
    yield _gauge("atoll_disk_free_bytes", "What is free on it for this process", disk.f_bavail * disk.f_frsize)


def _labelled(name: str, text: str, labels: dict[str, str], value: float) -> Metric:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _by_group(core: Core, name: str, text: str, value: Callable[[Group], int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["group"])
    for group_name, group in core.groups.items():
        family.add_metric([group_name], value(group))
    return family


def _sessions(core: Core) -> Metric:
    """Identities without a session count as 0, so that their absence can raise an alarm."""
    family = GaugeMetricFamily("atoll_sessions", "Open sessions", labels=["identity"])
    counts = Counter(session.identity for session in core.sessions)
    for identity in sorted(core.mesh.identities):
        family.add_metric([identity], counts[identity])
    return family


def make_app(core: Core, why_not_ready: Why, keys_refused: Callable[[], int], data: Path) -> web.Application:
    """`why_not_ready` returns "" when the broker serves; `data` is the directory of the log."""
    registry = CollectorRegistry()
    registry.register(BrokerCollector(core, keys_refused, data))

    async def live(_: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def ready(_: web.Request) -> web.Response:
        why = why_not_ready()
        return web.json_response({"ready": not why, "why": why, "degraded": []}, status=503 if why else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/live", live), web.get("/ready", ready), web.get("/metrics", metrics)])
    return app


async def serve(app: web.Application, host: str, port: int) -> web.AppRunner:
    """Raises PortTakenError."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        what = "is taken" if error.errno == errno.EADDRINUSE else "can not be listened on"
        raise PortTakenError(f"ATOLL_PORT: {host}:{port} {what}") from None
    return runner
