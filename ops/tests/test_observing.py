"""What the snapshot says while parts are well, dead, hung or talking nonsense, and that it never waits for any."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]
from aiohttp import web
from controlled import PROJECT, Control, part, running

from atoll_ops.control import alarms, denials
from atoll_ops.control.alarms import Alarm

#: A few ms in truth; the machine may be busy. The shortest thing that it could wait for, the agent, has half a second.
SNAPSHOT_SECONDS_MAX = 0.45


@asynccontextmanager
async def metrics_of(text: Callable[[], str]) -> AsyncIterator[int]:
    """A part that shows `text()`; its port."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(text=text())

    app = web.Application()
    app.add_routes([web.get("/metrics", handle)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw(serve: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """A part that does `serve` with each connection; its port."""

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(writer)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def hang(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def babble(writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x16\x03\x01 I am no HTTP\r\n\r\n")
    await writer.drain()


async def never_end(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        writer.write(b"atoll_http_requests_total 1\n" * 4096)
        await writer.drain()


async def seen_until(
    control: Control, what: str, holds: Callable[[dict[str, Any]], object], seconds: float = 10
) -> dict[str, Any]:
    """The first snapshot that holds, each answered at once."""
    deadline, slow = time.monotonic() + seconds, 0
    while True:
        asked = time.monotonic()
        status, seen = await control.get("viewer", "/ops/snapshot")
        assert status == 200
        slow = slow + 1 if time.monotonic() - asked >= SNAPSHOT_SECONDS_MAX else 0
        assert slow < 3, "snapshots wait for something"  # who waits does so each time; a busy machine does not
        if holds(seen) and not slow:
            return dict(seen)
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}; last: {json.dumps(seen)[:2000]}"
        await asyncio.sleep(0.05)


def named(seen: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in seen["parts"] if one["name"] == name)


async def test_a_part_that_works_has_rates_and_no_neighbour_spoils_them(tmp_path: Path) -> None:
    began = time.monotonic()

    def growing() -> str:
        count = int((time.monotonic() - began) * 100)
        return (
            f'atoll_build_info{{version="9.8.7"}} 1\natoll_http_requests_total{{status="200"}} {count}\n'
            f'atoll_http_request_seconds_bucket{{le="0.1"}} {count}\n'
            f'atoll_http_request_seconds_bucket{{le="+Inf"}} {count}\n'
        )

    async with (
        metrics_of(growing) as well, raw(hang) as hung, raw(babble) as mad, raw(never_end) as endless,
        running(tmp_path) as control,
    ):  # fmt: skip
        ports = {"orders": well, "hung": hung, "mad": mad, "endless": endless, "dead": 9}
        control.agent.parts = [part(name, 7, port=port) for name, port in ports.items()]
        seen = await seen_until(control, "orders to have rates", lambda seen: named(seen, "orders")["rates"])
        found = named(seen, "orders")
        assert 50 <= found["rates"]["requests"] <= 150
        assert 90 <= found["rates"]["p95_ms"] <= 100
        assert found["version"] == "9.8.7"
        for name in ("hung", "mad", "endless", "dead"):
            assert named(seen, name)["rates"] is None
            assert named(seen, name)["version"] is None
        assert seen["figures"]["up"] == seen["figures"]["of"] == 5


async def test_a_restart_is_no_negative_rate(tmp_path: Path) -> None:
    shown = [1000]
    text = 'atoll_http_requests_total{status="200"} '
    async with metrics_of(lambda: f"{text}{shown[0]}\n") as port, running(tmp_path) as control:
        control.agent.parts = [part("orders", 7, port=port)]
        await seen_until(control, "rates", lambda seen: named(seen, "orders")["rates"])
        shown[0] = 10
        control.agent.parts = [part("orders", 8, port=port)]
        seen = await seen_until(
            control, "the new process's ten requests",
            lambda seen: (rates := named(seen, "orders")["rates"]) and rates["requests"] > 0,
        )  # fmt: skip
        assert named(seen, "orders")["rates"]["requests"] < 10


async def test_what_is_paused_stopped_or_a_tool_is_not_asked(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(name: str) -> Callable[[], str]:
        def page() -> str:
            asked.append(name)
            return ""

        return page

    async with (
        metrics_of(ask("paused")) as one, metrics_of(ask("tool")) as two, metrics_of(ask("well")) as three,
        running(tmp_path) as control,
    ):  # fmt: skip
        control.agent.parts = [
            part(
                "paused", 7, "paused", port=one, paused_until=time.time() + 60, paused_by="amy", paused_reason="drill"
            ),
            part("jaeger", 8, kind="tool", port=two),
            part("well", 9, port=three),
        ]
        seen = await seen_until(control, "two rounds", lambda _: asked.count("well") >= 2, seconds=20)
        assert set(asked) == {"well"}
        assert seen["figures"] | {"worst_lag": 0} == {
            "up": 1, "of": 2, "events_per_second": None, "worst_lag": 0, "dead_letters": None,
        }  # fmt: skip
        (fault,) = seen["faults"]
        assert (fault["kind"], fault["target"], fault["by"], fault["reason"]) == ("pause", "paused/1", "amy", "drill")


async def test_without_a_bus_its_numbers_are_not_known_rather_than_nought(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        seen = await seen_until(control, "the bus to be asked", lambda seen: not seen["bus"]["available"])
        assert seen["bus"]["why"]
        orders = named(seen, "orders")
        for name in ("lag", "dead_letters", "in_flight", "oldest_unacked_seconds"):
            assert orders[name] is None
        assert seen["figures"]["worst_lag"] is None
        assert orders["topics"] == {"publishes": [], "consumes": []}


async def test_when_the_agent_goes_the_parts_are_unknown_and_the_last_view_stays(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await seen_until(control, "a snapshot", bool)
        await control.agent.stop()
        seen = await seen_until(control, "the agent to be missed", lambda seen: seen["agent"]["state"] == "unknown")
        assert {one["state"] for one in seen["parts"]} == {"unknown"}
        assert {one["name"]: one["last_state"] for one in seen["parts"]} == {
            "orders": "running", "auth": "running", "sales": "stopped",
        }  # fmt: skip
        assert named(seen, "orders")["why"] == "when last heard of: running"
        assert "./atoll up" in seen["agent"]["why"], "said once, with the agent"
        assert (seen["figures"]["up"], seen["figures"]["of"]) == (None, 3), "nobody knows, which is not none"


async def test_an_agent_that_hangs_costs_a_looker_half_a_second_once(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await seen_until(control, "a snapshot", bool)
        control.agent.hangs = True
        await asyncio.sleep(0.3)
        began = time.monotonic()
        answers = await asyncio.gather(*(control.get("viewer", "/ops/snapshot") for _ in range(20)))
        assert time.monotonic() - began < 1.5
        assert {seen["agent"]["state"] for _, seen in answers} == {"unknown"}
        began = time.monotonic()
        await control.get("viewer", "/ops/snapshot")
        assert time.monotonic() - began < SNAPSHOT_SECONDS_MAX


async def test_alone_tells_whether_another_instance_does_the_work(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        control.agent.parts = [
            part("orders", 7), part("orders", 8, "degraded", instance=2), part("sales", 9),
            part("sales", None, "down", instance=2),
        ]  # fmt: skip
        seen = await seen_until(control, "four parts", lambda seen: len(seen["parts"]) == 4)
        alone = {(one["name"], one["instance"]): one["alone"] for one in seen["parts"]}
        assert alone == {("orders", 1): False, ("orders", 2): False, ("sales", 1): True, ("sales", 2): False}


async def test_the_last_act_on_each_is_shown_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await seen_until(control, "a snapshot", bool)
        await control.act("operator", "orders/1/kill")
        seen = await seen_until(
            control, "its end", lambda seen: (act := named(seen, "orders")["last_act"]) and act["result"], seconds=3
        )
        act = named(seen, "orders")["last_act"]
        assert (act["who"], act["act"], act["reason"], act["result"]) == (
            "u-operator", "kill", "drill", "started: pid 8",
        )  # fmt: skip
        assert named(seen, "sales")["last_act"] is None


async def test_a_refused_attempt_is_nobodys_last_act_however_many_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as control:
        await control.act("operator", "orders/1/kill")
        for _ in range(denials.BURST + 3):
            await control.act("viewer", "orders/1/kill")
        monkeypatch.setattr(denials, "SECONDS_EACH", 1e-6)  # the time for one more record is over
        await control.act("viewer", "orders/1/kill")
        assert (await control.audit())[0]["result"].startswith("denied, as were ")
        await control.act("operator", "sales/1/start")  # with an act the last acts are read anew
        seen = await seen_until(control, "the last act on sales", lambda seen: named(seen, "sales")["last_act"])
        assert named(seen, "orders")["last_act"]["who"] == "u-operator"


async def test_the_snapshot_has_the_fields_that_the_contract_names_and_no_other(tmp_path: Path) -> None:
    document = yaml.safe_load((PROJECT / "contract" / "http.openapi.yaml").read_text())
    schemas = {name: set(schema["properties"]) for name, schema in document["components"]["schemas"].items()}
    numbers = document["components"]["schemas"]["Part"]["properties"]["rates"]["properties"]
    count = iter(range(1000))
    async with metrics_of(lambda: f"atoll_publish_acks_total {next(count)}\n") as port, running(tmp_path) as control:
        control.agent.parts = [
            part("orders", 7, port=port),
            part("sales", 8, "paused", paused_until=time.time() + 60),
            part("auth", None, "down", failures=4),
        ]
        seen = await seen_until(
            control, "rates and an alarm", lambda seen: named(seen, "orders")["rates"] and seen["alarms"]
        )
        assert set(seen) == schemas["Snapshot"]
        assert set(named(seen, "orders")) == schemas["Part"]
        assert set(named(seen, "orders")["rates"]) == set(numbers)
        assert set(seen["faults"][0]) == schemas["Fault"]
        assert set(seen["alarms"][0]) == schemas["Alarm"]
        await control.act("operator", "orders/1/kill")
        assert set((await control.audit())[0]) == schemas["Record"]


# ---- alarms ----------------------------------------------------------------------------------------------------------


async def test_a_crash_loop_and_a_refused_row_are_raised_and_cleared(tmp_path: Path) -> None:
    refused = [2]
    async with metrics_of(lambda: f"atoll_outbox_refused {refused[0]}\n") as port, running(tmp_path) as control:
        exits = [{"at": 1.0, "code": 1, "meaning": "failed", "after_seconds": 0.1}]
        looping = part("sales", None, "down", failures=5, exits=exits, uptime_seconds=None)
        control.agent.parts = [part("orders", 7, port=port), looping]
        seen = await seen_until(control, "two alarms", lambda seen: len(seen["alarms"]) == 2)
        found = {(alarm["kind"], alarm["target"]): alarm for alarm in seen["alarms"]}
        assert set(found) == {("crash_loop", "sales/1"), ("refused_outbox_row", "orders/1")}
        assert all(abs(alarm["since"] - time.time()) < 10 for alarm in found.values())
        async with control.client.get("/metrics") as answer:
            assert 'atoll_ops_alarms{kind="crash_loop"} 1.0' in await answer.text()
        refused[0] = 0
        control.agent.parts = [part("orders", 7, port=port), part("sales", 8, failures=5)]
        await seen_until(control, "no alarm", lambda seen: not seen["alarms"])


def test_an_alarm_has_two_thresholds_and_keeps_its_since() -> None:
    book = alarms.Book()

    def look(age_ms: int | None, now: float) -> list[tuple[bool, Alarm]]:
        groups = {"sales": {"lag": 3, "oldest_age_ms": age_ms}}
        return book.enter(alarms.of_bus(groups, (), book, now), lambda _: True)

    assert look(9_999, 100.0) == []
    ((raised, alarm),) = look(10_000, 101.0)
    assert raised
    assert (alarm.kind, alarm.target, alarm.since) == ("slow_group", "sales", 101.0)
    assert look(6_000, 102.0) == []
    (still,) = book.listed()
    assert (still.since, "for 6 s" in still.text) == (101.0, True)
    ((raised, _),) = look(4_000, 103.0)
    assert not raised
    assert book.listed() == []


def test_silence_clears_no_alarm() -> None:
    book = alarms.Book()
    book.enter([Alarm("slow_group", "sales", "", 1.0), Alarm("crash_loop", "a/1", "", 1.0)], lambda _: True)
    assert book.enter([], lambda kind: kind != "slow_group") == [(False, Alarm("crash_loop", "a/1", "", 1.0))]
    assert [alarm.kind for alarm in book.listed()] == ["slow_group"]


def test_a_disk_is_one_alarm_however_many_write_to_it() -> None:
    gib = 1024.0**3
    small = {"atoll_disk_bytes": 15 * gib, "atoll_disk_free_bytes": 6 * gib}
    roomy = {"atoll_disk_bytes": 500 * gib, "atoll_disk_free_bytes": 100 * gib}
    empty = {"atoll_disk_bytes": 5 * gib, "atoll_disk_free_bytes": 4 * gib}
    found = alarms.of_gauges({"a/1": small, "b/1": small, "c/1": roomy, "d/1": empty}, 1.0)
    assert [(alarm.kind, alarm.target) for alarm in found] == [("disk_half_full", "a/1")]
    assert "b/1" in found[0].text


def test_the_brokers_own_alarms_keep_their_names_and_their_age() -> None:
    own = [{"name": "group_stalled", "subject": "sales", "text": "has no member, 3 events wait", "for_ms": 40_000}]
    (alarm,) = alarms.of_bus({}, own, alarms.Book(), 100.0)
    assert (alarm.kind, alarm.target, alarm.since) == ("group_stalled", "sales", 60.0)
