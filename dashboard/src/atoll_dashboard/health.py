"""What the supervisor and Prometheus ask: `/live`, `/ready`, `/metrics`. No session is needed, and nothing is told."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from atoll_dashboard.world import World, world


class _Numbers(Collector):
    def __init__(self, here: World) -> None:
        self._here = here

    def collect(self) -> list[Metric]:
        """Read off the process at the moment of asking."""
        here = self._here
        seen = here.poller.seen()
        build = InfoMetricFamily("atoll_build", "What runs", value={"version": here.options.version})
        sessions = GaugeMetricFamily("atoll_dashboard_sessions", "Sessions that live", value=len(here.sessions))
        age = GaugeMetricFamily("atoll_dashboard_snapshot_age_seconds", "Age of the snapshot that is shown")
        if seen.came is not None:
            age.add_metric([], seen.age_seconds(time.monotonic()))
        failures = CounterMetricFamily(
            "atoll_dashboard_poll_failures", "Looks that failed, by what was gone", labels=["part"]
        )
        for part, count in sorted(here.poller.failures.items()):
            failures.add_metric([part], count)
        acts = CounterMetricFamily(
            "atoll_dashboard_acts", "Acts asked for here, by what became of asking", labels=["act", "result"]
        )
        for (act, result), count in sorted(here.gateway.acts.items()):
            acts.add_metric([act, result], count)
        return [build, sessions, age, failures, acts]


async def live(_: Request) -> Response:
    """The event loop turns."""
    return JSONResponse({"why": "", "degraded": []})


async def ready(_: Request) -> Response:
    """Pages can be served; `degraded` names the gateway when nothing new can be learnt."""
    gone = [one.part for one in world().poller.seen().gone if one.part == "gateway"]
    return JSONResponse({"why": "", "degraded": gone})


async def metrics(_: Request) -> Response:
    """Prometheus text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(world()))
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
