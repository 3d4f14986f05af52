"""`./atoll bench gateway`: requests a second through the front door with a token, beside a bare aiohttp proxy.

    load ──▶ upstream                             how much there is to have
    load ──▶ bare proxy ──▶ upstream              what a hop costs in Python
    load ──▶ gateway (a real process) ──▶ upstream   token, scope, assertion, limits, sampled traces

The upstream is announced through a real broker, the key set is signed and PUT there, the token is minted, all as in a
running system. The three are measured in turn, so that what the machine does meanwhile hits them alike.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import _load
import _report
import _serving
import aiohttp
from _peer import Peer
from _processes import REPOSITORY, RunFailedError, cpu_seconds, process, run, worker
from aiohttp import web

from atoll_broker.testing import RealBroker
from atoll_token import Claims, SigningKey, mint, sign_key_set

CONNECTIONS = 32
PATH = "/bench/7"
_GRANTS = """
[grant.gateway]
watch = ["registry", "keys", "revocations"]
[grant.bench]
announce = ["/bench"]
put = ["keys"]
"""
_READY_SECONDS_MAX = 15.0
_PING_SECONDS = 0.5


class Target(NamedTuple):
    """A server under load."""

    url: str
    pid: int
    token: str = ""


class Keys:
    """What auth would hold, and the gateway's own pair."""

    def __init__(self) -> None:
        self._root, self._key, self._assertion = (SigningKey.generate() for _ in range(3))

    def give_gateway(self, folder: Path) -> None:
        """The gateway's part of them, beside its CURVE keys."""
        (folder / "root.pub").write_bytes(self._root.public.to_pem())
        (folder / "assertion.key").write_bytes(self._assertion.to_pem())

    def key_set(self) -> str:
        """The signed document for the bus."""
        return sign_key_set(1, [self._key.public], self._root)

    def token(self) -> str:
        """An access token, one for all requests, as a client uses it until it expires."""
        now = int(time.time())
        claims = Claims(
            iss="atoll-auth", sub="bench", aud="atoll", scope="bench:read", jti="bench-1",
            iat=now, nbf=now, exp=now + 600, typ="access",
        )  # fmt: skip
        return mint(claims, self._key)


# ---- the system --------------------------------------------------------------------------------------------------


def _mesh() -> str:
    """The benchmark's grants, and the gateway's table as the repository's own page has it: its sampling and limits."""
    found = re.search(r"(?ms)^\[gateway\]\n.*?(?=^\[|\Z)", (REPOSITORY / "mesh.toml").read_text())
    assert found is not None, "mesh.toml has no [gateway]"
    return _GRANTS + found[0]


@contextlib.asynccontextmanager
async def _announced(broker: RealBroker, upstream: str, keys: Keys) -> AsyncIterator[None]:
    """The upstream in the registry, and the key set on the bus, for as long as the block lasts."""
    peer = Peer(broker.endpoint, broker.keys("bench"))
    routes = [{"method": "GET", "path": "/bench/{id}", "scope": "bench:read"}]
    peer.hello("bench/1", endpoints={"url": upstream, "prefixes": ["/bench"], "routes": routes})
    peer.send("PUT", kind="keys", value=keys.key_set(), request="keys")
    peer.expect("RESULT")

    async def ping() -> None:
        while True:
            peer.send("PING")
            await asyncio.sleep(_PING_SECONDS)

    pinging = asyncio.create_task(ping())
    try:
        yield
    finally:
        pinging.cancel()
        peer.bye()


@contextlib.asynccontextmanager
async def _collector() -> AsyncIterator[dict[str, str]]:
    """Takes spans and forgets them, so that sampling costs here what it costs in a system that is watched.

    Yields the variables that a process needs to export there.
    """

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{runner.addresses[0][1]}"}
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _gateway(broker: RealBroker, directory: Path, telemetry: dict[str, str], token: str) -> AsyncIterator[Target]:
    """`python -m atoll_gateway` in its own environment, as it is deployed."""
    python = Path(sys.prefix).parent / "gateway" / "bin" / "python"
    if not python.exists():
        raise RunFailedError("the gateway's environment is missing: run this as `./atoll bench gateway`")
    url = f"http://127.0.0.1:{_free_port()}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ATOLL_", "OTEL_"))}
    environment = kept | telemetry | {
        "ATOLL_SLOT": "gateway/1", "ATOLL_HOST": "127.0.0.1", "ATOLL_PORT": url.rpartition(":")[2],
        "ATOLL_DATA": str(directory / "gateway"), "ATOLL_KEYS": str(broker.keys("gateway")),
        "ATOLL_BUS": broker.endpoint, "ATOLL_MESH": str(directory / "broker" / "mesh.toml"), "ATOLL_LOG_LEVEL": "error",
    }  # fmt: skip
    async with process(python, "-m", "atoll_gateway", env=environment) as started:
        await _until_served(url + PATH, token)
        yield Target(url, started.pid, token)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _until_served(url: str, token: str) -> None:
    """Waits until the gateway knows keys and route; and that it asks for the token at all."""
    last: object = None
    async with aiohttp.ClientSession() as client:
        deadline = time.monotonic() + _READY_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                last = await _status(client, url, {"Authorization": f"Bearer {token}"})
            except aiohttp.ClientConnectionError as error:
                last = error
            if last == 200:
                break
            await asyncio.sleep(0.05)
        else:
            raise RunFailedError(f"the gateway did not serve within {_READY_SECONDS_MAX:g} s: {last}")
        without = await _status(client, url, {})
        if without != 401:
            raise RunFailedError(f"the gateway answered {without} without a token")


async def _status(client: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> int:
    async with client.get(url, headers=headers) as answer:
        return answer.status


# ---- the measurement ---------------------------------------------------------------------------------------------


async def measure(state: Path, runs: int, seconds: float, *, traced: bool) -> None:
    """Everything, printed at the end."""
    print(f"machine   {_report.machine()}; {_report.busy()}", flush=True)
    keys = Keys()
    async with contextlib.AsyncExitStack() as stack:
        directory = stack.enter_context(_report.directory(state))
        broker = await stack.enter_async_context(RealBroker(directory / "broker", _mesh()))
        keys.give_gateway(broker.keys("gateway"))
        upstream = await _served(stack, _serving.Job("upstream"))
        proxy = await _served(stack, _serving.Job("proxy", upstream.url))
        await stack.enter_async_context(_announced(broker, upstream.url, keys))
        telemetry = await stack.enter_async_context(_collector()) if traced else {"OTEL_SDK_DISABLED": "true"}
        gateway = await stack.enter_async_context(_gateway(broker, directory, telemetry, keys.token()))
        targets = {"upstream alone": upstream, "bare aiohttp proxy": proxy, "gateway": gateway}
        figures: dict[str, list[dict[str, Any]]] = {name: [] for name in targets}
        for _ in range(runs):
            for name, target in targets.items():
                figures[name].append(await _loaded(target, seconds))
        spans = await _spans(gateway.url)
    _print(figures, seconds, spans)


async def _served(stack: contextlib.AsyncExitStack, job: _serving.Job) -> Target:
    """A server that is up."""
    server = await stack.enter_async_context(worker("_serving", job))
    return Target(str((await server.says())["url"]), server.pid)


async def _loaded(target: Target, seconds: float) -> dict[str, Any]:
    """One run, and what it cost the server's process."""
    job = _load.Job(target.url + PATH, target.token, _serving.BODY.decode(), CONNECTIONS, seconds)
    before = cpu_seconds(target.pid)
    async with worker("_load", job) as load:
        said = await load.says()
    return said | {"cpu_us": (cpu_seconds(target.pid) - before) * 1e6 / said["answers"]}


async def _spans(gateway: str) -> int:
    """Spans that the gateway has exported."""
    async with aiohttp.ClientSession() as client, client.get(f"{gateway}/metrics") as answer:
        text = await answer.text()
    found = re.search(r'(?m)^atoll_otel_spans_total\{outcome="exported"\} (\S+)', text)
    assert found is not None, "the gateway has no metric atoll_otel_spans_total"
    return int(float(found[1]))


def _print(figures: dict[str, list[dict[str, Any]]], seconds: float, spans: int) -> None:
    print(
        f"settings  {CONNECTIONS} connections, one token, GET of {len(_serving.BODY)} B of JSON, runs of {seconds:g} s"
        f" in turn, loopback, every process on the same cores;\n"
        f"          [gateway] of mesh.toml as it stands, {spans} spans exported meanwhile"
    )
    _report.row("", "median (range)", "of bare", "p50 ms", "p99 ms", "CPU µs")
    bare = [run["per_second"] for run in figures["bare aiohttp proxy"]]
    for name, runs in figures.items():
        values = [run["per_second"] for run in runs]
        cells = (statistics.median(run[key] for run in runs) for key in ("p50_ms", "p99_ms", "cpu_us"))
        of_bare = f"{_report.ratio(values, bare):.2f}"
        _report.row(name, _report.median_and_range(values, "requests/s"), of_bare, *(f"{cell:.1f}" for cell in cells))
    print("CPU: of that one server's process, a request, user and system")
    print("every answer: 200 and the right body; without a token the gateway said 401")


def main() -> int:
    """Parses and runs."""
    parser = argparse.ArgumentParser(prog="atoll bench gateway", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="of each target")
    parser.add_argument("--seconds", type=float, default=3.0, help="a run")
    parser.add_argument("--untraced", action="store_true", help="the gateway with its telemetry switched off")
    _report.add_state(parser)
    asked = parser.parse_args()
    if asked.runs < 1 or asked.seconds <= 0:
        parser.error("expected at least 1 run of more than 0 seconds")
    return run(measure(asked.state, asked.runs, asked.seconds, traced=not asked.untraced))


if __name__ == "__main__":
    sys.exit(main())
