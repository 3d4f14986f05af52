"""Fixtures: a gateway on a real socket, real services behind it, and a broker's feed that the test speaks for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, settings
from support import Feed, Harness, Issuer, MakeGateway, MakeService, Service, make_settings

# A busy machine is no defect of what is tested; the rest stays as it is by default, or on CI.
settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture
def issuer() -> Issuer:
    """An auth service's keys and its root's."""
    return Issuer()


@pytest.fixture
def feed(issuer: Issuer) -> Feed:
    """A broker that has settled, knows no service yet, and has the key set and auth's heartbeat."""
    feed = Feed()
    feed.tell("keys", issuer.key_set())
    feed.tell("revocations", issuer.revocations(beat=1))
    feed.tell("revocations", issuer.revocations(beat=2))
    feed.tell("registry", {"services": {}})
    return feed


@pytest.fixture
async def service() -> AsyncIterator[MakeService]:
    """Makes services: `await service("orders", handler, routes=…)`."""
    async with AsyncExitStack() as stack:

        async def make(name: str, handler: Any, **more: Any) -> Service:
            return await stack.enter_async_context(Service(name, handler, **more))

        yield make


@pytest.fixture
async def gateway(feed: Feed, issuer: Issuer, tmp_path: Path) -> AsyncIterator[MakeGateway]:
    """Makes gateways: `await gateway(upstream_seconds_max=0.2)`. All share one data directory."""
    async with AsyncExitStack() as stack:

        async def make(*services: Service, **knobs: Any) -> Harness:
            if services:
                feed.tell("registry", {"services": {one.name: {f"{one.name}/1": one.slot()} for one in services}})
            settings = make_settings(tmp_path, issuer, knobs)
            client = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
            return await stack.enter_async_context(Harness(settings, feed, issuer, client))

        yield make
