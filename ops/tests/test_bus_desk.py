"""What operators do on the bus: who may, once a key, on the record, and what a refusal of the broker's becomes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]
from controlled import PROJECT, Control, running
from fake_bus import FakeSession

import atoll
from atoll_ops.control.busroutes import BUS
from atoll_ops.control.permissions import Asker

REPLAYED = {"replayed": 1, "held_back": 0, "replay": "1-1"}
FAULT = {"group": "payments", "kind": "delay", "seconds": 5, "reason": "drill"}
#: Each act on the bus: method, path, body, the least role that may, and the verb that reaches the broker.
ACTS: dict[str, tuple[str, str, dict[str, Any] | None, str, str]] = {
    "dlq.replay": ("POST", "/ops/dlq/replay", {"group": "payments", "reason": "r"}, "operator", "dlq.replay"),
    "replay": (
        "POST",
        "/ops/replay",
        {"group": "payments", "first": 1, "last": 2, "reason": "r"},
        "operator",
        "replay",
    ),
    "fault.put": ("POST", "/ops/faults", FAULT, "operator", "fault.put"),
    "fault.stop": ("DELETE", "/ops/faults/1-1?reason=r", None, "operator", "fault.stop"),
    "group.detach": ("POST", "/ops/groups/payments/detach", {"reason": "r"}, "admin", "group.detach"),
    "publish": ("POST", "/ops/publish", {"topic": "a.b.c.v1", "data": {}, "reason": "r"}, "admin", "publish"),
}


class Desk:
    """Control in front of a bus that the test plays."""

    def __init__(self, control: Control, bus: FakeSession) -> None:
        self.control = control
        self.bus = bus

    async def call(
        self, role: str, method: str, path: str, body: Any = None, key: str | None = None
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        headers = self.control.headers(role) | ({"Idempotency-Key": key} if key else {})
        async with self.control.client.request(method, path, json=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None), dict(answer.headers)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with running(tmp_path) as control:
        bus = FakeSession()
        for verb in ("dlq.replay", "replay"):
            bus.answers[verb] = REPLAYED
        bus.answers |= {
            "fault.put": {"id": "1-1"}, "fault.stop": {"stopped": 1}, "group.detach": {"floor": 4, "waiting": 2},
            "publish": {"seq": 9, "event_id": "e"},
        }  # fmt: skip
        app = control.client.app
        assert app is not None
        app[BUS].session = bus
        app[BUS]._observer.bus.session = bus
        await app[BUS]._observer.bus.look()
        yield Desk(control, bus)


@pytest.mark.parametrize("act", ACTS)
async def test_each_act_wants_its_role_and_is_on_the_record_either_way(desk: Desk, act: str) -> None:
    method, path, body, least, verb = ACTS[act]
    below = {"operator": "viewer", "admin": "operator"}[least]
    status, problem, _ = await desk.call(below, method, path, body)
    assert (status, problem["code"]) == (403, "insufficient_scope")
    assert desk.bus.of(verb) == []
    assert (await desk.call(least, method, path, body))[0] == 200
    assert len(desk.bus.of(verb)) == 1
    done, denied = await desk.control.audit()
    assert (denied["act"], denied["who"], denied["result"]) == (act, f"u-{below}", "denied")
    assert (done["act"], done["who"]) == (act, f"u-{least}")
    assert done["result"] not in (None, "denied")


@pytest.mark.parametrize("act", ACTS)
async def test_a_request_that_comes_again_is_answered_and_not_done_again(desk: Desk, act: str) -> None:
    method, path, body, least, verb = ACTS[act]
    first = await desk.call(least, method, path, body, key="k1")
    again = await desk.call(least, method, path, body, key="k1")
    assert (first[0], first[1]) == (again[0], again[1])
    assert again[2]["Idempotency-Replayed"] == "true"
    assert len(desk.bus.of(verb)) == 1
    if body is not None:
        status, problem, _ = await desk.call(least, method, path, body | {"reason": "another"}, key="k1")
        assert (status, problem["code"]) == (422, "idempotency_key_reused")
    assert (await desk.call(least, method, path, body, key="k2"))[0] == 200
    assert len(desk.bus.of(verb)) == 2


@pytest.mark.parametrize("act", ACTS)
async def test_what_failed_is_recorded_and_may_be_tried_again_with_its_key(desk: Desk, act: str) -> None:
    method, path, body, least, verb = ACTS[act]
    works, desk.bus.answers[verb] = desk.bus.answers[verb], atoll.BusUnavailableError("no session with the broker")
    status, problem, headers = await desk.call(least, method, path, body, key="k")
    assert (status, problem["code"], headers["Retry-After"]) == (503, "bus_unavailable", "1")
    desk.bus.answers[verb] = works
    assert (await desk.call(least, method, path, body, key="k"))[0] == 200
    done, failed = await desk.control.audit()
    assert failed["result"] == "failed: no session with the broker"
    assert not done["result"].startswith("failed")


@pytest.mark.parametrize(
    ("error", "status", "code", "field"),
    [
        (atoll.BusRefusedError("VERB", "dlq.replay needs a declared group", "group"), 404, "unknown_group", "group"),
        (atoll.BusRefusedError("VERB", "sales does not take x", "fault.topic"), 422, "bus_refused", "topic"),
        (atoll.BusRefusedError("VERB", "SCHEMA: no", "event.data.total"), 422, "bus_refused", "data.total"),
        (atoll.BusRefusedError("ACL", "may not publish", "event.type"), 422, "bus_refused", "topic"),
        (atoll.BusRefusedError("BUSY", "the disk is full"), 503, "bus_busy", None),
    ],
)
async def test_a_refusal_of_the_brokers_names_the_field_that_the_asker_wrote(
    desk: Desk, error: Exception, status: int, code: str, field: str | None
) -> None:
    desk.bus.answers["dlq.replay"] = error
    answer = await desk.call("operator", "POST", "/ops/dlq/replay", {"group": "lost", "reason": "r"})
    assert (answer[0], answer[1]["code"], answer[1].get("field")) == (status, code, field)
    if code == "unknown_group":
        assert answer[1]["detail"] == "There is no group 'lost' (there are: payments)"


#: Which dead letters a body means, in the broker's words, and in the audit's.
CHOICES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "all": ({}, {"first": 0, "last": 2**53 - 1}, "payments"),
    "a key": ({"subject": "o-1"}, {"subject": "o-1"}, "payments: o-1"),
    "one": ({"seq": 5}, {"seq": 5}, "payments: seq 5"),
    "a range": ({"first": 1, "last": 9}, {"first": 1, "last": 9}, "payments: 1..9"),
    "of a key in a range": (
        {"subject": "o", "first": 1, "last": 9}, {"subject": "o", "first": 1, "last": 9}, "payments: o: 1..9",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("said", "asked", "target"), CHOICES.values(), ids=CHOICES)
async def test_dead_letters_are_chosen(desk: Desk, said: dict[str, Any], asked: dict[str, Any], target: str) -> None:
    body = {"group": "payments", "reason": "r"} | said
    assert (await desk.call("operator", "POST", "/ops/dlq/replay", body))[0] == 200
    common = {"group": "payments", "by": "u-operator", "dry_run": False}
    assert desk.bus.of("dlq.replay") == [common | asked]
    assert (await desk.control.audit())[0]["target"] == target


async def test_a_dry_run_asks_and_leaves_no_record(desk: Desk) -> None:
    desk.bus.answers["replay"] = REPLAYED | {"pending": 3, "replay": None}
    body = {"group": "payments", "first": 1, "last": 9, "reason": "r", "dry_run": True}
    status, answer, _ = await desk.call("operator", "POST", "/ops/replay", body)
    assert (status, answer["pending"]) == (200, 3)
    assert desk.bus.of("replay")[0]["dry_run"] is True
    assert await desk.control.audit() == []
    assert (await desk.call("viewer", "POST", "/ops/replay", body))[0] == 403


#: What a body gets wrong → the field that the problem names.
WRONG: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "no group": ("POST", "/ops/dlq/replay", {"reason": "r"}, "group"),
    "no reason": ("POST", "/ops/dlq/replay", {"group": "payments"}, "reason"),
    "seq and range": ("POST", "/ops/dlq/replay", {"group": "p", "seq": 1, "first": 1, "reason": "r"}, "seq"),
    "no last": ("POST", "/ops/replay", {"group": "p", "first": 1, "reason": "r"}, "last"),
    "a negative seq": ("POST", "/ops/replay", {"group": "p", "first": -1, "last": 2, "reason": "r"}, "first"),
    "unknown kind": ("POST", "/ops/faults", FAULT | {"kind": "lose"}, "kind"),
    "too long": ("POST", "/ops/faults", FAULT | {"seconds": 901}, "seconds"),
    "no share": ("POST", "/ops/faults", FAULT | {"share": 0}, "share"),
    "no delay": ("POST", "/ops/faults", FAULT | {"delay_ms": 0}, "delay_ms"),
    "no data": ("POST", "/ops/publish", {"topic": "a.b.v1", "reason": "r"}, "data"),
    "a word too many": ("POST", "/ops/publish", {"topic": "a.b.v1", "data": 1, "reason": "r", "x": 1}, "x"),
}


@pytest.mark.parametrize(("method", "path", "body", "field"), WRONG.values(), ids=WRONG)
async def test_a_wrong_body_names_its_field_and_reaches_no_broker(
    desk: Desk, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    before = len(desk.bus.asked)
    status, problem, _ = await desk.call("admin", method, path, body)
    assert (status, problem["field"]) == (422, field), problem
    assert [verb for verb, _ in desk.bus.asked[before:] if verb not in desk.bus.answers or "." in verb] == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/ops/dlq", "group"),
        ("/ops/dlq?group=" + "g" * 65, "group"),
        ("/ops/dlq?group=payments&cursor=9007199254740992", "cursor"),
        ("/ops/dlq?group=payments&subject=" + "s" * 257, "subject"),
        ("/ops/replays?id=" + "r" * 65, "id"),
        ("/ops/why/" + "e" * 129, "event_id"),
        ("/ops/events", "topics"),
        ("/ops/events?topics=Orders.*", "topics"),
        ("/ops/events?topics=*.placed", "topics"),
        ("/ops/events?topics=*&after=x", "after"),
        ("/ops/events?topics=" + ",".join(["*"] * 65), "topics"),
    ],
)
async def test_a_word_that_would_end_controls_session_is_refused_before_it_is_sent(
    desk: Desk, path: str, field: str
) -> None:
    status, problem, _ = await desk.call("admin", "GET", path)
    assert (status, problem["field"]) == (422, field)
    assert not desk.bus.tapped


async def test_a_fault_is_in_the_snapshot_with_its_reason_until_it_ends(desk: Desk) -> None:
    await desk.call("operator", "POST", "/ops/faults", FAULT)
    fault = {
        "id": "1-1", "group": "payments", "topic": None, "kind": "delay", "share": 1.0, "delay_ms": 1000,
        "left_ms": 5000, "by": "u-operator", "hits": 3,
    }  # fmt: skip
    desk.bus.answers["fault.list"] = {"faults": [fault]}
    app = desk.control.client.app
    assert app is not None
    await app[BUS]._observer.bus.look()
    app[BUS]._observer.expire()
    (shown,) = (await desk.control.get("viewer", "/ops/snapshot"))[1]["faults"]
    assert (shown["kind"], shown["target"], shown["by"], shown["reason"]) == (
        "delay", "payments", "u-operator", "drill",
    )  # fmt: skip
    contract = yaml.safe_load((PROJECT / "contract" / "http.openapi.yaml").read_text())
    assert set(shown) == set(contract["components"]["schemas"]["Fault"]["properties"])
    desk.bus.answers["fault.list"] = {"faults": [fault | {"left_ms": -1}]}
    await app[BUS]._observer.bus.look()
    app[BUS]._observer.expire()
    assert (await desk.control.get("viewer", "/ops/snapshot"))[1]["faults"] == [], "its time is over"


async def test_a_broker_of_an_earlier_release_costs_the_faults_alone(desk: Desk) -> None:
    desk.bus.answers["fault.list"] = atoll.BusRefusedError("VERB", "unknown verb", "verb")
    app = desk.control.client.app
    assert app is not None
    await app[BUS]._observer.bus.look()
    assert app[BUS]._observer.bus.why is None
    assert app[BUS]._observer.bus.seen["faults"] == []


async def test_an_act_that_control_did_not_live_to_see_the_end_of_is_not_left_open(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        app = control.client.app
        assert app is not None
        await app[BUS]._begin(Asker("amy", frozenset()), "publish", "a.b.v1", "r")
        assert (await control.audit())[0]["result"] is None
    async with running(tmp_path) as control:
        assert (await control.audit())[0]["result"] == "unknown: control ended in the middle of it"


# ---- one event's story -------------------------------------------------------------------------------------------


async def test_an_events_story_has_its_trace_and_how_it_stands_in_each_group(desk: Desk) -> None:
    event = {"seq": 41, "topic": "orders.order.placed.v1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    step = {"at_ms": 1, "group": "payments", "what": "dead", "attempt": 8, "slot": "payments/1", "text": "no money"}
    desk.bus.answers["why"] = {"event": event, "steps": [step], "complete_since_ms": 0}
    status, answer, _ = await desk.call("viewer", "GET", "/ops/why/e%2F1")
    assert (status, answer["trace_id"]) == (200, "a" * 32)
    assert answer["groups"] == {"payments": {"state": "dead", "why": "no money"}}
    assert desk.bus.of("why") == [{"event_id": "e/1"}]
    desk.bus.answers["why"] = {"event": None, "steps": [], "complete_since_ms": 0}
    status, answer, _ = await desk.call("viewer", "GET", "/ops/why/e9")
    assert (status, answer["code"], answer["field"]) == (404, "unknown_event", "event_id")


# ---- taps --------------------------------------------------------------------------------------------------------


async def _read(answer: aiohttp.ClientResponse, count: int) -> list[dict[str, str]]:
    """So many server-sent events: fields by name."""
    found: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    async for line in answer.content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        elif fields:
            found.append(fields)
            fields = {}
        if len(found) == count:
            break
    return found


async def ended(desk: Desk) -> None:
    """Until the newest record has its end."""
    for _ in range(1000):
        if (await desk.control.audit())[0]["result"] is not None:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited for the end of the newest record")


async def test_a_tap_streams_what_comes_and_what_was_lost_and_ends_with_its_reader(desk: Desk) -> None:
    path = "/ops/events?topics=orders.*,payments.*&after=7&reason=look"
    async with asyncio.timeout(10), desk.control.client.get(path, headers=desk.control.headers("operator")) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        (tap,) = desk.bus.taps
        tap.see(8, "o-1")
        tap.queue.put_nowait(atoll.Missed(3, "too slow"))
        event, missed = await _read(answer, 2)
    assert (event["event"], event["id"], json.loads(event["data"])["subject"]) == ("event", "8", "o-1")
    assert (missed["event"], json.loads(missed["data"])) == ("missed", {"events": 3, "why": "too slow"})
    assert desk.bus.tapped == [(["orders.*", "payments.*"], 7)]
    tap.see(9, "o-1")  # the reader is gone: this is when it is found out
    async with asyncio.timeout(10):
        await tap.closed.wait()
        await ended(desk)
    (record,) = await desk.control.audit()
    assert (record["act"], record["target"], record["reason"]) == ("tap", "orders.*, payments.*", "look")
    assert record["result"].endswith("events seen")


async def test_a_tap_of_one_subject_shows_no_other(desk: Desk) -> None:
    path = "/ops/events?topics=*&subject=o-2"
    async with asyncio.timeout(10), desk.control.client.get(path, headers=desk.control.headers("operator")) as answer:
        (tap,) = desk.bus.taps
        tap.see(1, "o-1")
        tap.see(2, "o-2")
        (event,) = await _read(answer, 1)
    assert event["id"] == "2"


async def test_what_the_broker_refuses_is_said_in_the_stream(desk: Desk) -> None:
    headers = desk.control.headers("operator")
    async with asyncio.timeout(10), desk.control.client.get("/ops/events?topics=*", headers=headers) as answer:
        desk.bus.taps[0].queue.put_nowait(atoll.BusRefusedError("ACL", "control may not tap *"))
        (refused,) = await _read(answer, 1)
    assert (refused["event"], json.loads(refused["data"])["text"]) == ("refused", "ACL: control may not tap *")


async def test_a_tap_that_is_open_does_not_hold_control_up_when_it_stops(tmp_path: Path) -> None:
    """Else it would take the five seconds that a connection in use is given."""
    async with running(tmp_path) as control:
        app = control.client.app
        assert app is not None
        app[BUS].session = bus = FakeSession()
        connector = aiohttp.UnixConnector(str(control.run / "control.sock"))
        session = aiohttp.ClientSession(connector=connector)
        answer = await session.get("http://localhost/ops/events?topics=*")
        assert answer.status == 200
        began = time.monotonic()
    seconds = time.monotonic() - began
    assert bus.taps[0].closed.is_set()
    await answer.content.read()  # to its end, which has come
    await session.close()
    assert seconds < 3, f"control took {seconds:.1f} s to stop"


async def test_a_viewer_taps_nothing_and_without_a_bus_nobody_does(desk: Desk) -> None:
    assert (await desk.call("viewer", "GET", "/ops/events?topics=*"))[0] == 403
    desk.bus.full = True
    status, problem, _ = await desk.call("operator", "GET", "/ops/events?topics=*")
    assert (status, problem["code"]) == (503, "taps")
    desk.bus.state = "down: gone"
    status, problem, _ = await desk.call("operator", "GET", "/ops/events?topics=*")
    assert (status, problem["code"]) == (503, "bus_unavailable")
    assert desk.bus.tapped == []
