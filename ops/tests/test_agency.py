"""Many agents as one: what control and the command line see where each part has an agent of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atoll_ops import agency, sockets
from atoll_ops.agency import Agency
from atoll_ops.control.agentwatch import AgentWatch
from atoll_ops.errors import AgentGoneError

PAGE = """
[part.broker]
path = "broker"
port = 20
kind = "core"
[part.control]
path = "ops"
port = 7
kind = "core"
[part.orders]
path = "orders"
port = 22
[part.sales]
path = "sales"
port = 25
"""


class FakeAgent:
    """One part's agent: answers as a real one does, or hangs."""

    def __init__(self, run: Path, name: str) -> None:
        self.name = name
        self.heard: list[dict[str, Any]] = []
        self.hangs = False
        self.nonsense: Any = None
        self.operations: dict[str, dict[str, Any]] = {}
        self._run = run
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._run.mkdir(exist_ok=True, parents=True)
        listening = sockets.listen(self._run / "agent.sock")
        self._server = await asyncio.start_unix_server(self._serve, sock=listening)

    def end(self) -> None:
        if self._server is not None:
            self._server.close()
        (self._run / "agent.sock").unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.readline())
        self.heard.append(request)
        if self.hangs:
            await asyncio.sleep(30)
        with contextlib.suppress(OSError):
            writer.write(json.dumps(self._answer(request)).encode() + b"\n")
            writer.close()

    def _answer(self, request: dict[str, Any]) -> Any:
        if self.nonsense is not None:
            return self.nonsense
        match request["do"]:
            case "snapshot":
                row = {
                    "name": self.name, "instance": 1, "kind": "service", "host": self.name, "pid": 7, "port": 8000,
                    "state": "running", "why": "", "restarts": 3, "exits": [], "wanted": "up", "uptime_seconds": 1.0,
                    "memory_mb": 30.0, "paused_until": None, "paused_by": "", "paused_reason": "", "failures": 0,
                    "operation": None,
                }  # fmt: skip
                return {"system": "atoll", "as_of": 1.0, "agent": {"state": "running", "pid": 1}, "parts": [row]}
            case "operation":
                return {"operation": self.operations.get(request["id"])}
            case "operations":
                return {"operations": list(self.operations.values())}
            case _:
                return {"operation": {"id": "x", "name": self.name}}


@pytest.fixture
async def world() -> AsyncIterator[dict[str, Any]]:
    """Agents of broker, orders and sales beside control's own; `agency` sees them through directories."""
    root = Path(tempfile.mkdtemp(prefix="atoll-agency-"))
    (root / "mesh.toml").write_text(PAGE)
    agents = {name: FakeAgent(root / "agents" / name, name) for name in ("sales", "orders", "broker")}
    agents["control"] = FakeAgent(root / "run", "control")
    for one in agents.values():
        await one.start()
    yield {**agents, "agency": Agency(root / "run", root / "agents", root / "mesh.toml"), "root": root}
    for one in agents.values():
        one.end()
    shutil.rmtree(root)


async def test_all_agents_are_one_snapshot_in_the_pages_order(world: dict[str, Any]) -> None:
    seen = await world["agency"].ask(do="snapshot")
    assert [part["name"] for part in seen["parts"]] == ["broker", "control", "orders", "sales"]
    assert seen["agent"] == {"state": "running", "pid": 1}
    assert seen["system"] == "atoll"


async def test_an_agent_that_is_gone_costs_its_part_alone(world: dict[str, Any]) -> None:
    await world["agency"].ask(do="snapshot")
    world["orders"].end()
    seen = {part["name"]: part for part in (await world["agency"].ask(do="snapshot"))["parts"]}
    assert seen["orders"]["state"] == "unknown"
    assert "agent in orders's container does not answer" in seen["orders"]["why"]
    assert seen["orders"]["pid"] is None
    assert seen["orders"]["restarts"] == 3, "what was known and does not change by itself stays"
    assert {seen[name]["state"] for name in ("broker", "control", "sales")} == {"running"}
    await world["orders"].start()
    again = {part["name"]: part for part in (await world["agency"].ask(do="snapshot"))["parts"]}
    assert again["orders"]["state"] == "running"


@pytest.mark.parametrize("nonsense", [{"error": {"code": "unknown_request"}}, [], 7, "no"])
@pytest.mark.parametrize("who", ["orders", "control"])
async def test_an_agent_that_talks_nonsense_costs_its_part_alone(
    world: dict[str, Any], nonsense: Any, who: str
) -> None:
    world["sales"].operations["a"] = {"id": "a", "steps": [{"at": 1.0}]}
    await world["agency"].ask(do="snapshot")
    world[who].nonsense = nonsense
    seen = {part["name"]: part["state"] for part in (await world["agency"].ask(do="snapshot"))["parts"]}
    assert seen.pop(who) == "unknown"
    assert set(seen.values()) == {"running"}
    assert len(seen) == 3
    assert (await world["agency"].ask(do="operation", id="a"))["operation"]["id"] == "a"
    assert len((await world["agency"].ask(do="operations"))["operations"]) == 1


async def test_what_breaks_while_looking_is_said_and_nothing_stays_fresh(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = AgentWatch(world["agency"])
    before = await watch.look()
    assert (watch.lost, before is None) == (None, False)

    async def broken(*_: Any, **__: Any) -> dict[str, Any]:
        raise KeyError("a bug of ours")

    monkeypatch.setattr(world["agency"], "ask", broken)
    watch.expire()
    assert await watch.look() == before
    assert watch.lost


async def test_a_part_that_was_never_seen_is_shown_too(world: dict[str, Any]) -> None:
    world["orders"].end()
    world["broker"].end()
    seen = {part["name"]: part for part in (await world["agency"].ask(do="snapshot"))["parts"]}
    assert (seen["orders"]["state"], seen["orders"]["kind"]) == ("unknown", "service")
    assert (seen["broker"]["state"], seen["broker"]["kind"]) == ("unknown", "core"), "the page knows what it is"
    assert set(seen["orders"]) == set(seen["sales"]), "every row has every field"


async def test_agents_that_hang_do_not_hold_up_the_snapshot(world: dict[str, Any]) -> None:
    for name in ("orders", "sales", "broker"):
        world[name].hangs = True
    began = time.monotonic()
    seen = {part["name"]: part["state"] for part in (await world["agency"].ask(do="snapshot"))["parts"]}
    assert seen == {"broker": "unknown", "control": "running", "orders": "unknown", "sales": "unknown"}
    assert time.monotonic() - began < 2.9, "three that hang cost three times one"


async def test_a_looker_sees_the_others_as_they_are_while_one_agent_hangs(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look has half a second for all of them together."""
    monkeypatch.setattr(agency, "_LATE_SECONDS", 1.5)
    watch = AgentWatch(world["agency"])
    assert await watch.look() is not None
    world["sales"].hangs = True
    seen: list[dict[str, str]] = []
    lost = []
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (not seen or seen[-1]["sales"] != "unknown"):
        watch.expire()
        looked = await watch.look()
        assert looked is not None
        lost.append(watch.lost)
        seen.append({part["name"]: part["state"] for part in looked["parts"]})
    assert lost.count(None) > len(lost) / 2, "one hung agent made them all look lost"  # a stall of ours may, once
    assert seen[0]["sales"] == "running", "late is not gone"
    assert seen[-1].pop("sales") == "unknown"
    assert set(seen[-1].values()) == {"running"}
    world["orders"].end()
    watch.expire()
    looked = await watch.look()
    assert looked is not None
    states = {part["name"]: part["state"] for part in looked["parts"]}
    assert states["orders"] == "unknown", "nobody listens there: that is known at once"


async def test_an_act_goes_to_the_agent_of_its_part_and_to_no_other(world: dict[str, Any]) -> None:
    for name in ("orders", "control"):
        answer = await world["agency"].ask(do="act", act="kill", name=name, instance=1)
        assert answer["operation"]["name"] == name
    names = ("orders", "control", "sales", "broker")
    acts = {name: sum(one["do"] == "act" for one in world[name].heard) for name in names}
    assert acts == {"orders": 1, "control": 1, "sales": 0, "broker": 0}
    world["sales"].end()
    with pytest.raises(AgentGoneError, match="sales's container"):
        await world["agency"].ask(do="act", act="kill", name="sales", instance=1)


async def test_an_operation_is_found_with_whichever_agent_carries_it_out(world: dict[str, Any]) -> None:
    for name, at in (("sales", 2.0), ("orders", 1.0)):
        world[name].operations[name] = {"id": name, "name": name, "steps": [{"at": at}]}
    assert (await world["agency"].ask(do="operation", id="sales"))["operation"]["name"] == "sales"
    assert (await world["agency"].ask(do="operation", id="nobody's")) == {"operation": None}
    assert [one["id"] for one in (await world["agency"].ask(do="operations"))["operations"]] == ["orders", "sales"]
    world["orders"].end()
    with pytest.raises(AgentGoneError):  # the one that is gone may be the one that knows: nobody says "there is none"
        await world["agency"].ask(do="operation", id="orders")


async def test_a_host_has_one_agent_and_is_asked_as_before(world: dict[str, Any]) -> None:
    alone = Agency(world["root"] / "run", world["root"] / "nothing")
    assert [part["name"] for part in (await alone.ask(do="snapshot"))["parts"]] == ["control"]
    world["control"].end()
    with pytest.raises(AgentGoneError, match="atoll up"):
        await alone.ask(do="snapshot")
