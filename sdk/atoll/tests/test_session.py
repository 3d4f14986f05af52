"""One socket, kept while it lives; each end has its reason in `state`."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
import structlog.testing
from scripted import ScriptedBroker, event, until

import atoll
from atoll import _consumer, _session
from atoll._consumer import Consumer


async def test_silence_after_hello_is_said_in_plain_words(
    options: atoll.Options, broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_session, "HELLO_SECONDS", 0.05)
    broker.welcome = None
    async with atoll.Session(options, connector=broker) as session:
        await until("the time-out", lambda: session.state.startswith("down"))
        assert "no answer to HELLO within 0.05 s: broker down, or key not in its allow-list" in session.state
        broker.welcome = {}
        await session.wait_up(3)
        assert session.state == "up"


async def test_a_real_socket_finds_a_refused_connection_at_once(options: atoll.Options) -> None:
    import msgspec
    import zmq

    with socket.socket() as unused:  # bound and not listening: it refuses, and nobody else gets the port
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        public, secret = zmq.curve_keypair()
        for name, key in (("curve.public", public), ("curve.secret", secret), ("broker.public", public)):
            (options.keys / name).write_bytes(key + b"\n")
        async with atoll.Session(msgspec.structs.replace(options, bus=address)) as session:
            await until("the refusal", lambda: session.state.startswith("down"))
            assert "refuses connections" in session.state


async def test_a_missing_key_stops_the_start_and_is_named(options: atoll.Options) -> None:
    with pytest.raises(atoll.ConfigurationError, match=r"ATOLL_KEYS: .*curve\.secret"):
        await atoll.Session(options).start()


async def test_a_silent_broker_is_left(options: atoll.Options, broker: ScriptedBroker) -> None:
    broker.welcome = {"heartbeat_ms": 20}
    async with atoll.Session(options, connector=broker) as session:
        await until("another connection", lambda: broker.connections >= 2)
        assert session.sessions >= 1
    assert broker.of("PING")


async def test_a_broker_that_answers_pings_is_kept(options: atoll.Options, broker: ScriptedBroker) -> None:
    broker.welcome = {"heartbeat_ms": 20}
    broker.answers["PING"] = lambda *_: broker.say("PONG")
    async with atoll.Session(options, connector=broker):
        await asyncio.sleep(0.4)
    assert broker.connections == 1


async def test_a_refused_hello_is_not_repeated_in_haste(options: atoll.Options, broker: ScriptedBroker) -> None:
    broker.welcome = None
    broker.answers["HELLO"] = lambda *_: broker.say(
        "ERR",
        code="ACL",
        text="orders may not announce /stock",
        field="endpoints.prefixes[0]",
        closes=True,
        request=None,
    )
    async with atoll.Session(options, connector=broker) as session:
        await until("the refusal", lambda: session.state.startswith("down"))
        assert "ACL: orders may not announce /stock" in session.state
        assert session._refused


async def test_a_broker_that_was_away_for_hours_is_come_back_to(
    options: atoll.Options, broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More failures in a row than a float has powers of two."""
    monkeypatch.setattr(_session, "BACKOFF_SECONDS", (0.0, 0.0))
    broker.welcome = None
    broker.answers["HELLO"] = lambda *_: broker.lose("refused")
    async with atoll.Session(options, connector=broker) as session:
        await until("1,100 failures", lambda: broker.connections > 1100)
        broker.answers.clear()
        broker.welcome = {}
        await session.wait_up(3)


async def test_a_bug_in_the_session_is_logged_and_stopping_still_works(
    options: atoll.Options, broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(why: str) -> None:
        raise RuntimeError("a bug")

    async with atoll.Session(options, connector=broker) as session:
        await session.wait_up(2)
        monkeypatch.setattr(session, "_note_down", fail)
        with structlog.testing.capture_logs() as lines:
            broker.lose()
            await until("the word about it", lambda: [line for line in lines if "RuntimeError" in str(line)])
        assert session.state.startswith("down: RuntimeError")


async def test_stopping_says_bye_and_does_not_hang_without_a_broker(
    options: atoll.Options, broker: ScriptedBroker
) -> None:
    async with atoll.Session(options, connector=broker) as session:
        await session.wait_up(2)
    assert broker.of("BYE")
    broker.welcome = None
    async with asyncio.timeout(1):
        async with atoll.Session(options, connector=broker):
            await asyncio.sleep(0)


async def test_garbage_from_the_broker_ends_the_session_and_nothing_else(
    options: atoll.Options, broker: ScriptedBroker
) -> None:
    async with atoll.Session(options, connector=broker) as session:
        await session.wait_up(2)
        broker.say("STATE", kind=7)
        await until("another connection", lambda: broker.connections == 2)
        await session.wait_up(3)


async def test_a_watcher_that_fails_harms_nobody_else(options: atoll.Options, broker: ScriptedBroker) -> None:
    seen: list[object] = []

    def fail(value: object, settled: bool) -> None:
        raise RuntimeError

    async with atoll.Session(options, connector=broker) as session:
        session.watch("keys", fail)
        session.watch("keys", lambda value, settled: seen.append((value, settled)))
        await session.wait_up(2)
        broker.say("STATE", kind="keys", version=[1, 1], settled=False, state={"a": 1})
        await until("the value", lambda: seen == [({"a": 1}, False)])
        session.watch("keys", lambda value, settled: seen.append("late"))
        assert seen[-1] == "late", "who comes later gets the present value at once"
    assert len(broker.of("WATCH")) == 1


async def test_leases_are_extended_while_a_handler_takes_long(
    options: atoll.Options, broker: ScriptedBroker, database: atoll.Database
) -> None:
    import threading

    from scripted import Notes

    table, release = atoll.SubscriptionTable(), threading.Event()

    @table.on("payments.payment.captured.v1", Notes)
    def slow(event: atoll.Event[Notes], tx: atoll.Transaction) -> None:
        release.wait(5)

    consumer = Consumer("orders", table, database)
    broker.answers["SUB"] = lambda header, _: broker.say("SUBOK", group=header["group"], lease_ms=60)
    session = atoll.Session(options, connector=broker)
    session.add(consumer)
    task = asyncio.create_task(consumer.run())
    async with session:
        await until("credit", lambda: broker.of("CREDIT"))
        broker.deliver(event("e-1", {"text": "a"}))
        await until("an extension", lambda: broker.of("WIP"))
        assert broker.of("WIP")[0]["messages"] == [[1, 4_294_967_297]]
        assert consumer.in_flight == 1
        release.set()
        await until("the ack", lambda: broker.of("ACK"))
        assert broker.of("ACK") == [{"group": "orders", "done": [[1, 4_294_967_297]], "duplicate": []}]
        await until("credit back", lambda: len(broker.of("CREDIT")) == 2)
        broker.say("STALE", group="orders", messages=[[1, 4_294_967_297]])
        await until("the count", lambda: consumer.counters.stale == 1)
    task.cancel()
    await asyncio.wait([task])


async def test_what_will_never_come_is_counted_once_however_often_it_is_said(
    options: atoll.Options, broker: ScriptedBroker, database: atoll.Database
) -> None:
    consumer = Consumer("orders", atoll.SubscriptionTable(), database)
    session = atoll.Session(options, connector=broker)
    session.add(consumer)
    async with session:
        await until("a session", lambda: session.state == "up")
        gap = {"first": 5, "last": 9, "why": "retention passed it while it was detached by amy", "at_ms": 1}
        for gaps in ([gap], [gap], [{**gap, "last": 11}]):
            broker.say("GAP", group="orders", gaps=gaps)
        broker.say("GAP", group="sales", gaps=[{**gap, "first": 1}])
        await until("the gap", lambda: consumer.gaps == {5: 11})


async def test_a_slow_handler_is_acknowledged_as_it_goes_on(
    options: atoll.Options, broker: ScriptedBroker, database: atoll.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One commit for all that waits would be one sign of progress after all of it, as if it hung."""
    from scripted import Notes

    monkeypatch.setattr(_consumer, "BATCH_SECONDS", 0.05)
    table = atoll.SubscriptionTable()

    @table.on("payments.payment.captured.v1", Notes)
    def slow(event: atoll.Event[Notes], tx: atoll.Transaction) -> None:
        time.sleep(0.04)

    consumer = Consumer("orders", table, database)
    broker.answers["SUB"] = lambda header, _: broker.say("SUBOK", group=header["group"], lease_ms=1000)
    session = atoll.Session(options, connector=broker)
    session.add(consumer)
    task = asyncio.create_task(consumer.run())
    async with session:
        await until("credit", lambda: broker.of("CREDIT"))
        broker.deliver(event("e-1", {"text": "a"}))
        await until("the first ack", lambda: broker.of("ACK"))
        broker.deliver(*[event(f"e-{n}", {"text": "a"}, subject=f"o-{n}") for n in range(2, 7)], seq=2)
        await until("all of them", lambda: sum(len(ack["done"]) for ack in broker.of("ACK")) == 6)
        assert [len(ack["done"]) for ack in broker.of("ACK")] == [1] * 6
    task.cancel()
    await asyncio.wait([task])


async def test_a_topic_has_one_handler_and_it_is_synchronous() -> None:
    from scripted import Notes

    table = atoll.SubscriptionTable()
    table.on("a.b.v1", Notes)(lambda event, tx: None)
    with pytest.raises(ValueError, match="has a handler already"):
        table.on("a.b.v1", Notes)(lambda event, tx: None)

    async def asynchronous(event: object, tx: object) -> None: ...

    with pytest.raises(TypeError, match="synchronous"):
        table.on("a.c.v1", Notes)(asynchronous)
