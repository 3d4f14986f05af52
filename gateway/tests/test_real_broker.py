"""The gateway as a process, with the real broker, a service made with the SDK, and auth's two states."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support import Answer, Issuer

import atoll
from atoll import web as atoll_web
from atoll_broker.testing import RealBroker, free_port

MESH = """
[grant.auth]
announce = ["/auth"]
public = true
put = ["keys", "revocations"]
[grant.gateway]
watch = ["registry", "keys", "revocations"]
[grant.orders]
announce = ["/orders"]
[gateway]
upstream_seconds_max = 5.0
"""


@atoll_web.requires("orders:read")
async def _read(request: web.Request) -> web.Response:
    return web.json_response({"id": request.match_info["id"], "subject": request[atoll_web.SUBJECT]})


def _options(broker: RealBroker, slot: str, directory: Path, port: int = 0) -> atoll.Options:
    name = slot.partition("/")[0]
    return atoll.Options(
        slot=slot, host="127.0.0.1", port=port, data=directory / name, keys=broker.keys(name), bus=broker.endpoint,
        contract=directory / "no-contract",
    )  # fmt: skip


@contextlib.asynccontextmanager
async def _orders(broker: RealBroker, issuer: Issuer, directory: Path) -> AsyncIterator[None]:
    """A service made with the SDK."""
    port = free_port()
    options = _options(broker, "orders/1", directory, port)
    (broker.keys("orders") / "gateway.pub").write_bytes(issuer.assertion_key.public.to_pem())
    app = web.Application()
    app.router.add_get("/orders/{id}", _read)
    atoll_web.attach(app, options, prefixes=["/orders"])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _auth(broker: RealBroker, issuer: Issuer, directory: Path) -> AsyncIterator[dict[str, Any]]:
    """Auth's session: the key set once, and the revocations (the yielded dictionary) in a steady beat."""
    revoked: dict[str, Any] = {}
    async with atoll.Session(_options(broker, "auth/1", directory)) as session:
        await session.wait_up(5)
        await session.put("keys", issuer.key_set())

        async def beat() -> None:
            number = 0
            while True:
                number += 1
                await session.put("revocations", issuer.revocations(number, **revoked))
                await asyncio.sleep(0.2)

        beating = asyncio.create_task(beat())
        try:
            yield revoked
        finally:
            beating.cancel()
            await asyncio.wait({beating})


class Process:
    """`python -m atoll_gateway`."""

    def __init__(self, broker: RealBroker, issuer: Issuer, directory: Path) -> None:
        keys = broker.keys("gateway")
        (keys / "root.pub").write_bytes(issuer.root.public.to_pem())
        (keys / "assertion.key").write_bytes(issuer.assertion_key.to_pem())
        self.port = free_port()
        self.environment = {
            **os.environ, "ATOLL_SLOT": "gateway/1", "ATOLL_HOST": "127.0.0.1", "ATOLL_PORT": str(self.port),
            "ATOLL_DATA": str(directory / "gateway"), "ATOLL_KEYS": str(keys), "ATOLL_BUS": broker.endpoint,
            "ATOLL_MESH": str(directory / "mesh.toml"), "OTEL_SDK_DISABLED": "true",
        }  # fmt: skip
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, **changes: str) -> None:
        environment = {**self.environment, **changes}
        command = (sys.executable, "-m", "atoll_gateway")
        self._process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)

    async def end(self, number: signal.Signals) -> tuple[int, str]:
        """The exit code and what was logged."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        return await self.wait()

    async def wait(self) -> tuple[int, str]:
        assert self._process is not None
        async with asyncio.timeout(15):
            _, log = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, log.decode()

    async def call(self, path: str, token: str = "") -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"http://127.0.0.1:{self.port}{path}"
        async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as response:
            return Answer(response.status, response.headers, await response.read())

    async def until(self, path: str, status: int, token: str = "", seconds: float = 10.0) -> Answer:
        """Asks until the status comes; says the last answer when it does not."""
        last: object = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        last = answer = await self.call(path, token)
                        if answer.status == status:
                            return answer
                    except aiohttp.ClientConnectionError as error:
                        last = error
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"waited {seconds} s for {status} at {path}; last: {last}") from None


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[RealBroker]:
    async with RealBroker(tmp_path, MESH) as broker:
        yield broker


async def test_the_front_door_opens_and_outlives_broker_and_restart(broker: RealBroker, tmp_path: Path) -> None:
    issuer = Issuer()
    process = Process(broker, issuer, tmp_path)
    await process.start()
    try:
        waiting = await process.until("/readyz", 503)
        assert "keys" in waiting.json["why"]
        async with _orders(broker, issuer, tmp_path), _auth(broker, issuer, tmp_path) as revoked:
            await process.until("/readyz", 200)
            answer = await process.until("/orders/7", 200, issuer.token("orders:read"))
            assert answer.json == {"id": "7", "subject": "alice"}
            document = (await process.call("/openapi.json")).json
            assert document["paths"]["/orders/{id}"]["get"]["security"] == [{"atoll": ["orders:read"]}]

            revoked["tokens"] = {"stolen": 2**31}
            stolen = issuer.token("orders:read", jti="stolen")
            (await process.until("/orders/7", 401, stolen, seconds=2)).problem(401, "revoked")

            await broker.kill()
            token = issuer.token("orders:read")
            await process.until("/orders/7", 200, token)
            code, log = await process.end(signal.SIGTERM)
            assert code == 0, log
            assert "Traceback" not in log
            assert token not in log
            await process.start()
            assert (await process.until("/orders/7", 200, token)).json["subject"] == "alice"
            (await process.until("/orders/7", 401, stolen)).problem(401, "revoked")
        away = await process.until("/orders/7", 503, issuer.token("orders:read"))
        assert "orders" in away.problem(503, "service_away")["detail"]
    finally:
        await process.end(signal.SIGKILL)


async def test_a_service_that_leaves_is_away_and_comes_back(broker: RealBroker, tmp_path: Path) -> None:
    issuer = Issuer()
    process = Process(broker, issuer, tmp_path)
    await process.start()
    try:
        async with _auth(broker, issuer, tmp_path):
            for _ in range(2):
                async with _orders(broker, issuer, tmp_path):
                    await process.until("/orders/7", 200, issuer.token("orders:read"))
                await process.until("/orders/7", 503, issuer.token("orders:read"))
    finally:
        await process.end(signal.SIGKILL)


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"ATOLL_MESH": ""}, 64, "ATOLL_MESH"),
        ({"ATOLL_MESH": "/nowhere/mesh.toml"}, 64, "ATOLL_MESH"),
        ({"ATOLL_PORT": "http"}, 64, "ATOLL_PORT"),
        ({"ATOLL_KEYS": "empty"}, 64, "root.pub"),
        ({"ATOLL_PORT": "taken"}, 69, "ATOLL_PORT"),
    ],
)
async def test_a_wrong_start_ends_with_its_code_and_one_line(
    change: dict[str, str], code: int, word: str, broker: RealBroker, tmp_path: Path
) -> None:
    process = Process(broker, Issuer(), tmp_path)
    (tmp_path / "empty").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        concrete = {"empty": str(tmp_path / "empty"), "taken": str(taken.getsockname()[1])}
        await process.start(**{name: concrete.get(value, value) for name, value in change.items()})
        got, log = await process.wait()
    assert got == code, log
    assert word in log.strip().splitlines()[-1]
    assert "Traceback" not in log
