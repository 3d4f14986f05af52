"""Control for its tests: the real application, its real local socket, in front of an agent that the test plays."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

import atoll
from atoll_ops import keys, sockets
from atoll_ops.control.app import make_app
from atoll_ops.state import State
from atoll_token import Claims, SigningKey, mint

PROJECT = Path(__file__).resolve().parents[1]
SCOPES = {"viewer": "ops:read", "operator": "ops:read ops:operate", "admin": "ops:*"}


class FakeAgent:
    """An agent that notes what it is asked, and ends every operation at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = [part("orders", 7), part("auth", 8), part("sales", None, "stopped")]
        self.acts: list[dict[str, Any]] = []
        self.told: dict[str, dict[str, Any]] = {}  # what it answers to `log` and `configuration`
        self.asked: list[dict[str, Any]] = []
        self.hangs = False
        self.past_control: list[dict[str, Any]] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, sock=sockets.listen(self.path))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.readline())
        if self.hangs:
            await asyncio.sleep(30)
        writer.write(json.dumps(self._answer(request)).encode() + b"\n")
        await writer.drain()
        writer.close()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        if request["do"] in ("log", "configuration"):
            return self.told.get(request["do"], {"error": {"code": "unknown_request", "text": request["do"]}})
        if request["do"] == "snapshot":
            agent = {"state": "running", "pid": 1}
            return {"system": "atoll", "agent": agent, "as_of": time.time(), "parts": self.parts}
        if request["do"] == "act":
            self.acts.append(request)
            return {"operation": request}
        if request["do"] == "operations":
            return {"operations": self.past_control}
        known = next((act for act in self.acts if act["id"] == request["id"]), None)
        done = {"done": True, "ok": True, "state": "started", "text": "pid 8"}
        return {"operation": known | done if known else None}


def part(name: str, pid: int | None, state: str = "running", **changes: Any) -> dict[str, Any]:
    """A part as the agent describes it."""
    return {
        "name": name, "instance": 1, "kind": "service", "pid": pid, "state": state, "why": "", "host": "127.0.0.1",
        "port": 9, "restarts": 0, "exits": [], "failures": 0, "wanted": "up", "uptime_seconds": 60.0, "memory_mb": 1.0,
        "paused_until": None, "paused_by": "", "paused_reason": "", "operation": None,
    } | changes  # fmt: skip


class Control:
    """A running control, and the two ways into it."""

    def __init__(self, client: TestClient[Any, Any], agent: FakeAgent, key: SigningKey, run: Path) -> None:
        self.client = client
        self.agent = agent
        self.key = key
        self.run = run

    def headers(self, role: str, **changes: Any) -> dict[str, str]:
        """An assertion as the gateway makes it."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": "atoll-gateway", "sub": f"u-{role}", "aud": "control", "scope": SCOPES[role],
            "jti": os.urandom(8).hex(), "iat": now, "nbf": now, "exp": now + 30, "typ": "assertion", "client_id": None,
        }  # fmt: skip
        return {"Atoll-Assertion": mint(Claims(**claims | changes), self.key)}

    async def act(
        self, role: str, path: str, key: str | None = None, headers: dict[str, str] | None = None, **body: Any
    ) -> tuple[int, Any]:
        """POST an act through the front."""
        headers = self.headers(role) | (headers or {}) | ({"Idempotency-Key": key} if key else {})
        sent = {"reason": "drill"} | body
        async with self.client.post(f"/ops/instances/{path}", json=sent, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, role: str, path: str) -> tuple[int, Any]:
        """GET through the front."""
        async with self.client.get(path, headers=self.headers(role)) as answer:
            return answer.status, await answer.json(content_type=None)

    async def audit(self) -> list[dict[str, Any]]:
        """All records, newest first."""
        items: list[dict[str, Any]] = (await self.get("viewer", "/ops/audit"))[1]["items"]
        return items


@asynccontextmanager
async def running(
    root: Path, settings: Mapping[str, str] | None = None, bus: str = "tcp://127.0.0.1:9"
) -> AsyncIterator[Control]:
    """Control in a directory of its own, in front of a fake agent; without a bus unless one is named."""
    state = State(root / "state")
    state.prepare()
    keys.ensure(state, ["control"])
    options = atoll.Options(
        slot="control/1", host="127.0.0.1", port=0, data=state.private("control", 1), keys=state.keys / "control",
        bus=bus, contract=PROJECT / "contract", migrations=PROJECT / "migrations",
    )  # fmt: skip
    options.data.mkdir(mode=0o700, exist_ok=True)
    agent = FakeAgent(state.agent_socket)
    await agent.start()
    key = SigningKey.from_pem((state.keys / "gateway" / "assertion.key").read_bytes())
    async with TestClient(TestServer(make_app(options, state.run, settings or {}))) as client:
        yield Control(client, agent, key, state.run)
    await agent.stop()
