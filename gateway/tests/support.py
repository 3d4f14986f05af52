"""Helpers of the gateway's tests: an issuer, a feed, services and a gateway, all real but the broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

import atoll
from atoll_gateway import policy
from atoll_gateway.parts import PARTS, Parts
from atoll_gateway.serving import Gateway
from atoll_gateway.settings import Settings
from atoll_token import Claims, PublicKey, SigningKey, Verifier, mint, sign_key_set

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Issuer:
    """Auth, as far as a gateway sees it: keys, tokens, revocations."""

    def __init__(self) -> None:
        self.root = SigningKey.generate()
        self.key = SigningKey.generate()
        self.assertion_key = SigningKey.generate()

    def key_set(self, version: int = 1, *keys: PublicKey) -> str:
        return sign_key_set(version, keys or (self.key.public,), self.root)

    def token(self, scope: str = "orders:*", *, key: SigningKey | None = None, **changes: Any) -> str:
        return mint(self.claims(scope, **changes), key or self.key)

    @staticmethod
    def claims(scope: str = "orders:*", **changes: Any) -> Claims:
        now = int(time.time())
        content: dict[str, Any] = {
            "iss": "atoll-auth", "sub": "alice", "aud": "atoll", "scope": scope, "jti": f"token-{time.monotonic_ns()}",
            "iat": now, "nbf": now, "exp": now + 600, "typ": "access",
        }  # fmt: skip
        return Claims(**{**content, **changes})

    @staticmethod
    def revocations(beat: int, **content: dict[str, int]) -> dict[str, Any]:
        return {"boot": "auth-1", "beat": beat, "tokens": {}, "subjects": {}, **content}


class Feed:
    """A broker's session that says what the test tells it to."""

    def __init__(self) -> None:
        self.state = "up"
        self._watchers: dict[str, list[Callable[[Any, bool], None]]] = {}
        self._told: dict[str, list[tuple[Any, bool]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    def watch(self, kind: str, callback: Callable[[Any, bool], None]) -> None:
        self._watchers.setdefault(kind, []).append(callback)
        for value, settled in self._told.get(kind, []):
            callback(value, settled)

    def tell(self, kind: str, value: Any, *, settled: bool = True) -> None:
        self._told.setdefault(kind, []).append((value, settled))
        for callback in self._watchers.get(kind, []):
            callback(value, settled)

    def fall_silent(self) -> None:
        """The broker goes away: whoever watches from now on hears nothing."""
        self.state = "down: test"
        self._told.clear()
        self._watchers.clear()


class Service:
    """A real HTTP server on loopback and what it announces. Records the requests that reach it."""

    def __init__(
        self,
        name: str,
        handler: Handler,
        *,
        routes: list[tuple[str, str, str | None]] | None = None,
        prefixes: list[str] | None = None,
        openapi: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.prefixes = prefixes or [f"/{name}"]
        self.routes = routes if routes is not None else default_routes(name)
        self.openapi = openapi or {}
        self.requests: list[web.BaseRequest] = []
        self.url = ""
        self._handler = handler
        self._runner = web.ServerRunner(web.Server(self._record, auto_decompress=False), shutdown_timeout=0.1)

    async def _record(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        return await self._handler(request)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        await self._runner.cleanup()

    def slot(self, **changes: Any) -> dict[str, Any]:
        routes = [{"method": method, "path": path, "scope": scope} for method, path, scope in self.routes]
        return {
            "url": self.url, "ready": True, "why": "", "version": "1.0.0", "prefixes": self.prefixes, "routes": routes,
            "openapi": self.openapi, **changes,
        }  # fmt: skip


def default_routes(name: str) -> list[tuple[str, str, str | None]]:
    return [
        ("GET", f"/{name}", f"{name}:read"),
        ("GET", f"/{name}/{{id}}", f"{name}:read"),
        ("POST", f"/{name}", f"{name}:write"),
    ]


class Harness:
    """A running gateway and a client of it."""

    def __init__(self, settings: Settings, feed: Feed, issuer: Issuer, client: aiohttp.ClientSession) -> None:
        self.settings = settings
        self.feed = feed
        self.issuer = issuer
        self.client = client
        self.gateway = Gateway(settings, feed)

    async def __aenter__(self) -> Self:
        await self.gateway.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.gateway.__aexit__()

    @property
    def url(self) -> str:
        host, port = self.gateway.address
        return f"http://{host}:{port}"

    @property
    def parts(self) -> Parts:
        return self.gateway.app[PARTS]

    def bearer(self, scope: str = "orders:*", **changes: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.issuer.token(scope, **changes)}"}

    async def call(self, method: str, path: str, *, headers: Any = None, **more: Any) -> Answer:
        """One request, with a good token unless `headers` are given; the path is sent as it is."""
        sent = self.bearer() if headers is None else headers
        url = URL(self.url + path, encoded=True)
        async with self.client.request(method, url, headers=sent, allow_redirects=False, **more) as response:
            return Answer(response.status, response.headers, await response.read())

    async def raw(self, data: bytes, *, seconds: float = 30.0) -> bytes:
        """Sends bytes and reads until the gateway closes."""
        reader, writer = await asyncio.open_connection(*self.gateway.address)
        try:
            writer.write(data)
            await writer.drain()
            async with asyncio.timeout(seconds):
                return await reader.read()
        finally:
            writer.close()

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        answer = await self.call("GET", "/metrics", headers={})
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = [line for line in answer.body.decode().splitlines() if line.startswith((name + "{", name + " "))]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(pair in line for pair in wanted))


class Answer(msgspec.Struct):
    """A response that has been read."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def problem(self, status: int, code: str) -> dict[str, Any]:
        """Asserts that this is a problem of that status and code, in the one shape, and returns it."""
        assert (self.status, self.body and self.json.get("code")) == (status, code), self.body
        assert self.headers["Content-Type"] == "application/problem+json"
        content: dict[str, Any] = self.json
        assert content["status"] == status
        assert content["type"] == "about:blank"
        assert set(content) <= {"type", "title", "status", "detail", "code", "field", "instance"}
        assert content["title"]
        assert content["detail"]
        return content


def make_settings(directory: Path, issuer: Issuer, knobs: dict[str, Any]) -> Settings:
    options = atoll.Options(
        slot="gateway/1", host="127.0.0.1", port=0, data=directory / "data", keys=directory, bus="tcp://127.0.0.1:1"
    )
    return Settings(options, policy.parse({"gateway": knobs}), issuer.root.public, issuer.assertion_key)


def assertion_of(request: web.BaseRequest, issuer: Issuer, service: str) -> Claims:
    """What the gateway told the service, verified as the service would."""
    key = issuer.assertion_key.public
    verifier = Verifier({key.kid: key}.get, issuer="atoll-gateway", audience=service, typ="assertion")
    (value,) = request.headers.getall("Atoll-Assertion")
    return verifier.verify(value)


async def until(what: str, condition: Callable[[], Any], seconds: float = 3.0) -> None:
    """Waits for a named condition; says what it waited for when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        await asyncio.sleep(0.005)


async def echo(request: web.BaseRequest) -> web.Response:
    """Answers with what arrived."""
    body = await request.read()
    told = {"method": request.method, "path": request.raw_path, "body": body.decode("latin-1")}
    return web.json_response({**told, "headers": {name.lower(): value for name, value in request.headers.items()}})


MakeService = Callable[..., Awaitable[Service]]
MakeGateway = Callable[..., Awaitable[Harness]]
