"""Publish and consume through a broker: nothing lost, one effect, in order, whatever dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from rigs import PLACED, Member, MemoryRig, RealRig, Rig, keeping
from scripted import Notes, until

import atoll
from atoll import _consumer
from atoll._database import Outcome


@pytest.fixture(params=["memory", "real"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    made: Rig = MemoryRig() if request.param == "memory" else RealRig(tmp_path)
    async with made.running():
        yield made


@pytest.fixture
async def orders(rig: Rig, tmp_path: Path) -> AsyncIterator[Member]:
    async with Member(rig, "orders", tmp_path, publishes=[PLACED]) as member:
        yield member


@pytest.fixture
def payments(rig: Rig, tmp_path: Path) -> Member:
    return Member(rig, "payments", tmp_path)


async def _dead_letters(rig: Rig, folder: Path) -> list[dict[str, object]]:
    options = atoll.Options(slot="control/1", host="", port=0, data=folder, keys=folder, bus="tcp://127.0.0.1:1")
    async with rig.session(options) as session:
        await session.wait_up(5)
        answer = await session.admin("dlq.list", group="payments")
    letters: list[dict[str, object]] = answer["letters"]
    return letters


async def test_what_is_published_is_handled_once_and_in_order(orders: Member, payments: Member) -> None:
    keeping(payments)
    async with payments:
        for i in range(50):
            await orders.publish(*(f"{i}-{j}" for j in range(10)))
        notes = await payments.until_notes(500)
        assert notes == [f"{i}-{j}" for i in range(50) for j in range(10)]
        assert await orders.relay.flush(5), "every acknowledged row leaves the outbox"
        assert payments.consumer is not None
        assert payments.consumer.counters.handled == 500


async def test_a_failing_handler_sees_the_event_again_and_its_failed_effects_never_show(
    orders: Member, payments: Member
) -> None:
    attempts: list[int] = []

    @payments.events.on(PLACED, Notes)
    def flaky(event: atoll.Event[Notes], tx: atoll.Transaction) -> None:
        attempts.append(event.attempt)
        tx.execute("INSERT INTO note VALUES (?)", f"attempt {event.attempt}")
        if event.attempt < 3:
            raise RuntimeError("not yet")

    async with payments:
        await orders.publish("a")
        assert await payments.until_notes(1) == ["attempt 3"]
    assert attempts == [1, 2, 3]


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize("error", [UnspeakableError(), RuntimeError("\udcff in a file name"), atoll.Reject("\udcff")])
async def test_an_error_that_can_not_be_told_is_a_verdict_all_the_same(
    orders: Member, payments: Member, error: Exception
) -> None:
    @payments.events.on(PLACED, Notes)
    def fail(event: atoll.Event[Notes], tx: atoll.Transaction) -> None:
        if event.data.text == "bad" and event.attempt == 1:
            raise error
        tx.execute("INSERT INTO note VALUES (?)", event.data.text)

    async with payments:
        await orders.publish("bad")
        await orders.publish("good", subject="o-2")
        retried = not isinstance(error, atoll.Reject)
        assert sorted(await payments.until_notes(1 + retried)) == (["bad", "good"] if retried else ["good"])
        consumer = payments.consumer
        assert consumer is not None
        await until("the verdict", lambda: consumer.counters.rejected + consumer.counters.retried == 1)


async def test_retry_comes_back_after_its_delay(orders: Member, payments: Member) -> None:
    seen: list[float] = []

    @payments.events.on(PLACED, Notes)
    def later(event: atoll.Event[Notes], tx: atoll.Transaction) -> None:
        seen.append(asyncio.run_coroutine_threadsafe(_now(), loop).result(5))
        if event.attempt == 1:
            raise atoll.Retry(0.3)
        tx.execute("INSERT INTO note VALUES ('x')")

    loop = asyncio.get_running_loop()
    async with payments:
        await orders.publish("a")
        await payments.until_notes(1)
    assert seen[1] - seen[0] >= 0.29


async def _now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_rejected_event_is_a_dead_letter_at_once(
    rig: Rig, orders: Member, payments: Member, tmp_path: Path
) -> None:
    @payments.events.on(PLACED, Notes)
    def reject(event: atoll.Event[Notes], tx: atoll.Transaction) -> None:
        raise atoll.Reject("no such currency", "data.total")

    async with payments:
        await orders.publish("a")
        assert payments.consumer is not None
        await until("the rejection", lambda: payments.consumer and payments.consumer.counters.rejected == 1)
        letters = await _dead_letters(rig, tmp_path)
    assert [(one["cause"], one["attempts"]) for one in letters] == [("REJECTED", 1)]
    assert "no such currency (data.total)" in str(letters[0]["error"])


async def test_data_that_cannot_be_decoded_is_a_dead_letter_that_names_the_field(
    rig: Rig, orders: Member, payments: Member, tmp_path: Path
) -> None:
    class Other(atoll_struct):  # type: ignore[misc, valid-type]
        text: int

    @payments.events.on(PLACED, Other)
    def never(event: object, tx: object) -> None:
        raise AssertionError("not called")

    async with payments:
        await orders.publish("a")
        await until("the rejection", lambda: payments.consumer and payments.consumer.counters.rejected == 1)
        letters = await _dead_letters(rig, tmp_path)
    assert "(text)" in str(letters[0]["error"])


atoll_struct = type(Notes("")).__mro__[1]


async def test_an_ack_that_was_lost_gives_no_second_effect(rig: Rig, orders: Member, payments: Member) -> None:
    keeping(payments)
    async with payments:
        assert payments.consumer is not None
        payments.consumer._answer = lambda *_: None  # type: ignore[method-assign] # the ACK never leaves
        await orders.publish("a", "b")
        await payments.until_notes(1)
        await payments.session.stop()
    again = Member(rig, "payments", payments.options.data.parent)
    keeping(again)
    async with again:
        await again.until_notes(2)
        await until("the duplicate", lambda: again.consumer and again.consumer.counters.duplicate >= 1)
        assert await again.notes() == ["a", "b"]


async def test_a_killed_broker_loses_nothing_and_order_holds(rig: Rig, orders: Member, payments: Member) -> None:
    keeping(payments)
    async with payments:
        writer = asyncio.create_task(_publish_steadily(orders, 300))
        for _ in range(2):
            await asyncio.sleep(0.2)
            await rig.kill()
            await asyncio.sleep(0.1)
            await rig.start()
        await writer
        notes = await payments.until_notes(600, seconds=20)
        assert notes == [str(i) for i in range(600)], "each once, in the order of commits"
        assert await orders.relay.flush(5)
        assert orders.session.sessions >= 2


async def _publish_steadily(member: Member, times: int) -> None:
    for i in range(times):
        await member.publish(str(2 * i), str(2 * i + 1))
        await asyncio.sleep(0.002)


async def test_the_outbox_fills_while_the_broker_is_down_and_the_business_goes_on(rig: Rig, orders: Member) -> None:
    await orders.session.wait_up(5)
    await rig.kill()
    await until("the loss", lambda: orders.session.state.startswith("down: "))
    await orders.publish("a", "b")
    assert (await orders.relay.counts())[0] == 2
    await rig.start()
    await orders.session.wait_up(5)
    await until("the acks", lambda: orders.relay.counters.acked == 2)


async def test_a_refused_event_stays_with_its_reason_and_the_others_go_on(orders: Member) -> None:
    await orders.publish("fine", "x" * 2000, "fine too")
    await until("the verdicts", lambda: orders.relay.counters.refused == 1 and orders.relay.counters.acked == 3)
    row = await orders.database.read(lambda reader: reader.one("SELECT pseq, code, field FROM atoll_outbox"))
    assert row is not None
    assert tuple(row) == (2, "SCHEMA", "data.text")
    assert orders.relay.refused_rows == 1


async def test_a_disk_that_was_full_used_up_no_attempt(
    rig: Rig, orders: Member, payments: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_consumer, "_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(_consumer, "AWAY_SECONDS", (0.05, 0.1))
    write, full = payments.database._run_group, True

    def maybe(*args: Any) -> Any:
        nothing = [Outcome(None, atoll.StorageError("payments.db: database or disk is full"))] * len(args[1])
        return (nothing, False) if full else write(*args)

    attempts: list[int] = []

    @payments.events.on(PLACED, Notes)
    def keep(event: atoll.Event[Notes], tx: atoll.Transaction) -> None:
        attempts.append(event.attempt)
        tx.execute("INSERT INTO note VALUES (?)", event.data.text)

    async with payments:
        monkeypatch.setattr(payments.database, "_run_group", maybe)
        await orders.publish("a", "b")
        await orders.publish("c", subject="o-2")
        await until("the next session", lambda: payments.session.sessions == 2)
        assert payments.consumer is not None
        assert payments.consumer.away is not None
        full = False
        assert sorted(await payments.until_notes(3)) == ["a", "b", "c"]
        assert attempts == [1, 1, 1]
        assert await _dead_letters(rig, tmp_path) == []


async def test_draining_finishes_what_is_here_and_hands_back_the_rest(
    rig: Rig, orders: Member, payments: Member, tmp_path: Path
) -> None:
    keeping(payments)
    async with payments:
        await orders.publish(*map(str, range(20)))
        await payments.until_notes(1)
        assert payments.consumer is not None
        await payments.consumer.drain(2)
        assert payments.consumer.in_flight == 0
    again = Member(rig, "payments", tmp_path)
    keeping(again)
    async with again:
        assert await again.until_notes(20) == list(map(str, range(20)))


async def test_a_stopped_broker_is_noticed_and_come_back_to(tmp_path: Path) -> None:
    rig = RealRig(tmp_path)
    async with rig.running(), Member(rig, "orders", tmp_path, publishes=[PLACED]) as orders:
        await orders.session.wait_up(5)
        rig.broker.pause()
        try:
            await orders.publish("a")
            await until("the silence to be noticed", lambda: orders.session.state.startswith("down: "), seconds=5)
        finally:
            rig.broker.resume()
        await until("the ack", lambda: orders.relay.counters.acked == 1, seconds=10)


async def test_a_put_reaches_every_watcher(rig: Rig, tmp_path: Path) -> None:
    def options(name: str) -> atoll.Options:
        return atoll.Options(slot=f"{name}/1", host="", port=0, data=tmp_path, keys=tmp_path, bus="tcp://127.0.0.1:1")

    seen: list[tuple[object, bool]] = []
    async with rig.session(options("control")) as control, rig.session(options("auth")) as auth:
        control.watch("keys", lambda value, settled: seen.append((value, settled)))
        await auth.wait_up(5)
        await auth.put("keys", {"document": "v1"})
        await until("the key set", lambda: ({"document": "v1"}, True) in seen)
        with pytest.raises(atoll.BusRefusedError, match="ACL"):
            await auth.admin("groups")
        with pytest.raises(atoll.BusRefusedError, match="VERB"):
            await control.admin("dance")
        assert "payments" in (await control.admin("groups"))["groups"]
        await rig.kill()
        await until("the loss", lambda: control.state.startswith("down"))
        with pytest.raises(atoll.BusUnavailableError):
            await control.admin("groups")
        await rig.start()
        await control.wait_up(5)
        await until("the key set again", lambda: seen.count(({"document": "v1"}, True)) >= 2)


async def test_a_broker_with_another_log_stops_the_relay_loudly(orders: Member, tmp_path: Path) -> None:
    await orders.publish("a", "b")
    await until("the acks", lambda: orders.relay.counters.acked == 2)
    assert await orders.relay.flush(5)
    other: Rig = MemoryRig()
    async with other.running():
        await orders.session.stop()
        orders.session = other.session(orders.options)
        orders.session.profile.producer = await orders.relay.open()
        orders.session.profile.contracts.publishes[PLACED] = {"type": "object"}
        orders.session.add(orders.relay)
        await orders.session.start()
        await until("the stop", lambda: orders.relay.stopped)
        assert "was its disk replaced?" in str(orders.relay.stopped)
        await orders.publish("c")
        assert (await orders.relay.counts())[0] == 1, "what cannot be sent stays"
