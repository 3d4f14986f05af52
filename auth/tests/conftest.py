import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp.test_utils import TestClient, TestServer
from world import AUTH, Caller, Clock, Keys, fresh_database

import atoll
from atoll_auth.app import make_app
from atoll_auth.commands import Direct
from atoll_auth.settings import Settings

Start = Callable[..., Awaitable[Caller]]


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for the commands


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys")


@pytest.fixture
def options(tmp_path: Path, keys: Keys) -> atoll.Options:
    return atoll.Options(
        slot="auth/1",
        host="127.0.0.1",
        port=0,
        data=tmp_path / "data",
        keys=keys.folder,
        bus="tcp://127.0.0.1:1",  # nobody answers there: auth serves with the broker away
        contract=AUTH / "contract",
        migrations=AUTH / "migrations",
    )


@pytest.fixture
async def start(options: atoll.Options, keys: Keys, clock: Clock) -> AsyncIterator[Start]:
    """Starts auth, in a real server; again after the caller's client is closed: a restart."""
    async with AsyncExitStack() as stack:

        async def go(**settings: Any) -> Caller:
            app = make_app(options, Settings(**settings), clock=clock, monotonic=clock)
            client = await stack.enter_async_context(TestClient(TestServer(app)))
            return Caller(client, keys, clock)

        yield go


@pytest.fixture
async def auth(start: Start) -> Caller:
    return await start()


@pytest.fixture
def db() -> Direct:
    return Direct(fresh_database())
