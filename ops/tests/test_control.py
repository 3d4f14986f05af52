"""Control: who may do what, that nothing is done without a record, and that it works when everything else is down."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from controlled import Control, part, running

import atoll
from atoll_ops import sockets
from atoll_ops.control import denials


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    """Control without a bus, in front of a fake agent."""
    async with running(tmp_path) as made:
        yield made


async def _audited(control: Control, count: int) -> list[dict[str, Any]]:
    """The records, once so many of them have ended."""
    for _ in range(200):
        records = await control.audit()
        if len([record for record in records if record["result"]]) >= count:
            return records
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited for {count} ended records, have {records}")


# ---- who may -----------------------------------------------------------------------------------------------------


async def test_nobody_gets_in_without_the_gateways_word(control: Control) -> None:
    for method, path in (("GET", "/ops/snapshot"), ("POST", "/ops/instances/orders/1/kill"), ("GET", "/ops/audit")):
        async with control.client.request(method, path, json={"reason": "x"}) as answer:
            assert answer.status == 401
    foreign = control.headers("admin", aud="orders")
    async with control.client.get("/ops/snapshot", headers=foreign) as answer:
        assert answer.status == 401
    assert control.agent.acts == []


async def test_a_viewer_sees_and_does_nothing(control: Control) -> None:
    assert (await control.get("viewer", "/ops/snapshot"))[0] == 200
    status, problem = await control.act("viewer", "orders/1/kill")
    assert (status, problem["code"]) == (403, "insufficient_scope")
    assert control.agent.acts == []


async def test_an_operator_acts_on_services_and_only_an_admin_on_auth(control: Control) -> None:
    assert (await control.act("operator", "orders/1/kill"))[0] == 202
    status, problem = await control.act("operator", "auth/1/kill")
    assert (status, problem["code"]) == (403, "insufficient_scope")
    assert (await control.act("admin", "auth/1/kill"))[0] == 202
    assert [(act["name"], act["by"]) for act in control.agent.acts] == [("orders", "u-operator"), ("auth", "u-admin")]
    denied = [record for record in await control.audit() if record["result"] == "denied"]
    assert [(record["who"], record["target"]) for record in denied] == [("u-operator", "auth/1")]


# ---- what is done ------------------------------------------------------------------------------------------------


async def test_an_act_is_recorded_followed_and_its_end_recorded(control: Control) -> None:
    status, operation = await control.act("operator", "orders/1/restart")
    assert status == 202
    assert operation["state"] == "requested"
    assert (await control.get("viewer", f"/ops/operations/{operation['id']}"))[1]["state"] == "started"
    (record,) = await _audited(control, 1)
    assert (record["who"], record["act"], record["target"], record["reason"]) == (
        "u-operator", "restart", "orders/1", "drill",
    )  # fmt: skip
    assert record["result"] == "started: pid 8"
    assert record["operation_id"] == operation["id"]


async def test_the_same_key_acts_once(control: Control) -> None:
    first = await control.act("operator", "orders/1/kill", key="k1")
    again = await control.act("operator", "orders/1/kill", key="k1")
    assert first == again
    assert len(control.agent.acts) == 1
    assert (await control.act("operator", "orders/1/stop", key="k1"))[0] == 422


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("nobody/1/kill", {}, (404, "unknown_instance")),
        ("orders/2/kill", {}, (404, "unknown_instance")),
        ("orders/1/explode", {}, (404, "unknown_act")),
        ("orders/x/kill", {}, (422, "validation")),
        ("sales/1/kill", {}, (409, "no_process")),
        ("orders/1/kill", {"reason": ""}, (422, "validation")),
        ("orders/1/kill", {"reason": "  "}, (422, "validation")),
        ("orders/1/kill", {"force": True}, (422, "validation")),
        ("orders/1/pause", {"seconds": 10_000}, (422, "validation")),
    ],
)
async def test_what_makes_no_sense_is_refused(
    control: Control, path: str, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    status, problem = await control.act("operator", path, **body)
    assert (status, problem["code"]) == expected
    assert control.agent.acts == []


async def test_without_an_agent_nothing_is_done_and_it_says_so(control: Control) -> None:
    await control.agent.stop()
    status, problem = await control.act("operator", "orders/1/kill")
    assert (status, problem["code"]) == (503, "agent_gone")
    assert await control.audit() == []


async def test_what_cannot_be_recorded_is_not_done(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise atoll.StorageError("the disk is gone")

    monkeypatch.setattr(atoll.Database, "write", broken)
    assert (await control.act("operator", "orders/1/kill"))[0] == 503
    assert control.agent.acts == []


# ---- without the rest --------------------------------------------------------------------------------------------


async def test_without_a_bus_the_snapshot_says_what_is_missing(control: Control) -> None:
    status, seen = await control.get("viewer", "/ops/snapshot")
    assert status == 200
    assert [part["name"] for part in seen["parts"]] == ["orders", "auth", "sales"]
    assert seen["bus"]["available"] is False
    status, problem = await control.get("viewer", "/ops/groups")
    assert (status, problem["code"]) == (503, "bus_unavailable")
    async with control.client.get("/ready") as ready:
        assert ready.status == 200


async def test_the_local_socket_needs_no_token_and_is_audited_by_uid(control: Control) -> None:
    path = control.run / "control.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    connector = aiohttp.UnixConnector(str(path))
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.post("http://local/ops/instances/auth/1/kill", json={"reason": "night"}) as answer:
            assert answer.status == 202
        async with session.get("http://local/ops/nothing") as answer:
            assert answer.status == 404
    records = await _audited(control, 1)
    assert (records[0]["who"], records[0]["target"]) == (f"local:{os.geteuid()}", "auth/1")


async def test_the_local_socket_refuses_another_user(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "peer_uid", lambda _: 4711)
    connector = aiohttp.UnixConnector(str(control.run / "control.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://local/ops/snapshot") as answer,
    ):
        assert answer.status == 403


async def test_a_failed_replay_is_recorded_as_such(control: Control) -> None:
    headers = control.headers("operator")
    sent = {"group": "orders", "reason": "r"}
    async with control.client.post("/ops/dlq/replay", json=sent, headers=headers) as answer:
        assert answer.status == 503
    records = await _audited(control, 1)
    assert records[0]["act"] == "dlq.replay"
    assert records[0]["result"].startswith("failed: ")


async def test_what_the_agent_was_asked_past_control_is_in_the_audit_too(control: Control) -> None:
    steps = [{"state": "requested", "at": 1000.5, "text": ""}, {"state": "started", "at": 1001.0, "text": "pid 9"}]
    control.agent.past_control.append(
        {
            "id": "past", "act": "kill", "name": "control", "instance": 1, "reason": "it hung", "by": "local:7",
            "steps": steps, "done": True, "ok": True, "state": "started", "text": "pid 9",
        }
    )  # fmt: skip
    for _ in range(2):  # entered once
        (record,) = await control.audit()
    told = {name: record[name] for name in ("at", "who", "act", "target", "reason", "result")}
    assert told == {
        "at": 1000.5, "who": "local:7", "act": "kill", "target": "control/1", "reason": "it hung",
        "result": "started: pid 9",
    }  # fmt: skip


# ---- denied ------------------------------------------------------------------------------------------------------


async def test_a_viewers_attempt_is_refused_and_recorded_with_his_reason_and_trace(control: Control) -> None:
    trace = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    status, problem = await control.act("viewer", "orders/1/kill", headers=trace)
    assert (status, problem["code"]) == (403, "insufficient_scope")
    (record,) = await control.audit()
    told = {name: record[name] for name in ("who", "act", "target", "reason", "result", "trace_id")}
    assert told == {
        "who": "u-viewer", "act": "kill", "target": "orders/1", "reason": "drill", "result": "denied",
        "trace_id": "ab" * 16,
    }  # fmt: skip
    assert control.agent.acts == []


async def test_a_viewers_attempt_without_a_reason_is_recorded_too(control: Control) -> None:
    async with control.client.post("/ops/instances/orders/1/kill", headers=control.headers("viewer")) as answer:
        assert answer.status == 403
    async with control.client.post(
        "/ops/dlq/replay", json={"group": "orders", "reason": "r"}, headers=control.headers("viewer")
    ) as answer:
        assert answer.status == 403
    assert [(one["act"], one["target"], one["reason"], one["result"]) for one in await control.audit()] == [
        ("dlq.replay", "orders", "r", "denied"), ("kill", "orders/1", "", "denied"),
    ]  # fmt: skip


async def test_a_flood_of_denied_attempts_does_not_fill_the_audit(control: Control) -> None:
    for _ in range(40):
        assert (await control.act("viewer", "orders/1/kill"))[0] == 403
    records = await control.audit()
    assert denials.BURST <= len(records) <= denials.BURST + 2


def test_what_was_not_written_is_counted_in_the_next_record() -> None:
    bucket = denials.Denials()
    assert [bucket.admit("eve", 0.0) for _ in range(denials.BURST + 3)] == [0] * denials.BURST + [None] * 3
    assert bucket.admit("amy", 0.0) == 0
    assert bucket.admit("eve", denials.SECONDS_EACH) == 3
    assert bucket.admit("eve", denials.SECONDS_EACH) is None


# ---- the audit ---------------------------------------------------------------------------------------------------


async def test_the_audit_is_found_by_who_act_and_target_exactly_and_in_pages(control: Control) -> None:
    for act in ("kill", "restart", "kill", "kill"):
        assert (await control.act("operator", f"orders/1/{act}"))[0] == 202
    await control.act("admin", "auth/1/kill")
    await _audited(control, 5)

    async def found(query: str) -> list[tuple[str, str, str]]:
        status, page = await control.get("viewer", f"/ops/audit?{query}")
        assert status == 200
        return [(one["who"], one["act"], one["target"]) for one in page["items"]]

    assert await found("act=restart") == [("u-operator", "restart", "orders/1")]
    assert await found("who=u-admin") == [("u-admin", "kill", "auth/1")]
    assert len(await found("act=kill&target=orders/1")) == 3
    assert await found("who=u-oper") == []
    assert await found("target=orders/1' OR 1=1 --") == []
    seen, cursor = [], ""
    for _ in range(2):
        page = (await control.get("viewer", f"/ops/audit?act=kill&limit=2{cursor}"))[1]
        seen += [one["id"] for one in page["items"]]
        cursor = f"&cursor={page['next']}"
    assert len(set(seen)) == 4
    assert seen == sorted(seen, reverse=True)
    for limit in (0, 201):
        assert (await control.get("viewer", f"/ops/audit?limit={limit}"))[0] == 422


# ---- one at a time -----------------------------------------------------------------------------------------------


async def test_a_second_act_meanwhile_is_a_conflict_that_names_the_first(control: Control) -> None:
    going_on = {"id": "op1", "act": "kill", "by": "amy", "state": "stopped", "awaits_start": True}
    control.agent.parts = [part("orders", 7, operation=going_on), part("sales", None, "stopped")]
    status, problem = await control.act("operator", "orders/1/restart")
    assert (status, problem["code"]) == (409, "busy")
    assert problem["detail"] == "orders/1: kill, asked for by amy, goes on"
    body, headers = {"reason": "drill"}, control.headers("operator")
    async with control.client.post("/ops/instances/orders/1/kill", json=body, headers=headers) as answer:
        assert (answer.status, answer.headers["Location"]) == (409, "/ops/operations/op1")
    assert (await control.act("operator", "orders/1/stop"))[0] == 202, "a stop ends what only waits"
    first = await control.act("operator", "sales/1/start", key="k1")
    control.agent.parts = [part("sales", 7, operation=going_on), part("orders", 7)]
    assert first == await control.act("operator", "sales/1/start", key="k1"), "a repeated request is no second act"
    control.agent.parts = [part("orders", 7, operation=going_on | {"awaits_start": False})]
    assert (await control.act("operator", "orders/1/stop"))[0] == 409
