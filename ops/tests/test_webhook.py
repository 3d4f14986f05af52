"""Alarms go to a receiver once each, in order, and a receiver that is bad holds up nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from controlled import part, running

import atoll
from atoll_ops.control import webhook
from atoll_ops.control.alarms import Alarm
from atoll_ops.control.webhook import Webhook

ALARM = Alarm("slow_group", "sales", "3 events wait, the oldest for 12 s", 100.0)


class Receiver:
    """Notes what it is sent; answers as `answers` says, 204 once that is used up; hangs while `hangs`."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.hangs = False

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append(await request.json())
        if self.hangs:
            await asyncio.sleep(60)
        return web.Response(status=self.answers.pop(0) if self.answers else 204)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.add_routes([web.post("/alarms", made.handle)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/alarms"
    yield made
    await runner.cleanup()


@asynccontextmanager
async def sending(hook: Webhook) -> AsyncIterator[Webhook]:
    task = asyncio.create_task(hook.run())
    try:
        yield hook
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(what: str, holds: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        await asyncio.sleep(0.02)


async def test_a_raise_and_a_clear_are_one_post_each_in_order(receiver: Receiver) -> None:
    async with sending(Webhook(receiver.url)) as hook:
        hook.tell(True, ALARM)
        hook.tell(False, ALARM)
        await until("two posts", lambda: hook.outcomes["delivered"] == 2)
    assert [one["event"] for one in receiver.got] == ["raised", "cleared"]
    assert receiver.got[0]["alarm"] == {
        "kind": "slow_group", "target": "sales", "text": "3 events wait, the oldest for 12 s", "since": 100.0,
    }  # fmt: skip


async def test_one_that_is_busy_is_asked_again_and_one_that_refuses_is_not(receiver: Receiver) -> None:
    receiver.answers = [503, 429, 200, 400]
    async with sending(Webhook(receiver.url, (0.01, 0.01))) as hook:
        hook.tell(True, ALARM)
        hook.tell(False, ALARM)
        await until("both ends", lambda: hook.outcomes["delivered"] and hook.outcomes["refused"])
    assert [one["event"] for one in receiver.got] == ["raised", "raised", "raised", "cleared"]


async def test_one_that_hangs_is_given_up_and_the_queue_is_bounded(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "ATTEMPT_SECONDS", 0.1)
    receiver.hangs = True
    async with sending(Webhook(receiver.url, (0.01,))) as hook:
        began = time.monotonic()
        for number in range(webhook.WAITING_MAX + 50):
            hook.tell(True, Alarm("slow_group", str(number), "", 1.0))
        assert time.monotonic() - began < 2.0, "telling waits for nobody"
        assert hook.outcomes["dropped"] == 50
        await until("the first to be given up", lambda: hook.outcomes["failed"])
        receiver.hangs = False
        await until("the next", lambda: hook.outcomes["delivered"])
    assert len(receiver.got) >= 3, "twice the first, then others"


async def test_one_that_is_not_there_costs_the_alarm_and_nothing_else() -> None:
    async with sending(Webhook("http://127.0.0.1:9/", (0.01,))) as hook:
        hook.tell(True, ALARM)
        await until("it to be given up", lambda: hook.outcomes["failed"] == 1)


@pytest.mark.parametrize("url", ["ftp://somewhere/s3cret", "s3cret", "http://", "file:///s3cret", "http://[s3cret"])
def test_what_is_no_address_stops_the_start_with_the_settings_name_and_is_not_told(url: str) -> None:
    with pytest.raises(atoll.ConfigurationError, match="OPS_ALARM_WEBHOOK") as error:
        Webhook(url)
    assert "s3cret" not in str(error.value)


async def test_an_alarm_of_control_reaches_the_receiver_and_a_hung_one_delays_no_snapshot(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.hangs = True
    async with running(tmp_path, {webhook.SETTING: receiver.url}) as control:
        control.agent.parts = [part("sales", None, "down", failures=5)]
        await until("the post", lambda: receiver.got)
        assert receiver.got[0]["alarm"]["kind"] == "crash_loop"
        began = time.monotonic()
        assert (await control.get("viewer", "/ops/snapshot"))[1]["alarms"][0]["kind"] == "crash_loop"
        assert time.monotonic() - began < 0.5
        began = time.monotonic()
    assert time.monotonic() - began < 3, "control ends while its receiver hangs"
