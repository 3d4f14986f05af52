"""The relay against answers that a healthy broker rarely gives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from scripted import CREDIT, ScriptedBroker, publish, until

import atoll
from atoll._relay import Relay
from atoll._session import Profile


@pytest.fixture
async def relay(options: atoll.Options, database: atoll.Database, broker: ScriptedBroker) -> AsyncIterator[Relay]:
    relay = Relay(database, "orders")
    session = atoll.Session(options, connector=broker)
    session.profile = Profile(producer=await relay.open())
    session.add(relay)
    task = asyncio.create_task(relay.run())
    await session.start()
    await session.wait_up(2)
    yield relay
    await session.stop()
    task.cancel()
    await asyncio.wait([task])


def _firsts(broker: ScriptedBroker) -> list[tuple[int, int]]:
    return [(header["first"], len(events)) for name, header, events in broker.received if name == "PUB"]


async def test_busy_waits_and_goes_back_to_the_first_unacknowledged(
    relay: Relay, broker: ScriptedBroker, database: atoll.Database
) -> None:
    loop = asyncio.get_running_loop()
    at: list[float] = []

    def busy_once(header: dict[str, Any], events: list[Any]) -> None:
        at.append(loop.time())
        if len(at) == 1:
            broker.say("PUBNACK", producer=header["producer"], code="BUSY", retry_after_ms=100)
        else:
            upto = header["first"] + len(events) - 1
            broker.say("PUBACK", producer=header["producer"], upto=upto, refused=[], credit=CREDIT)

    broker.answers["PUB"] = busy_once
    await publish(database, "a", "b")
    await until("the acks", lambda: relay.counters.acked == 2)
    assert _firsts(broker) == [(1, 2), (1, 2)]
    assert at[1] - at[0] >= 0.1


async def test_expected_goes_back(relay: Relay, broker: ScriptedBroker, database: atoll.Database) -> None:
    def answer(header: dict[str, Any], events: list[Any]) -> None:
        broker.acknowledge_everything()
        broker.say("PUBNACK", producer=header["producer"], code="EXPECTED", expected=2)
        broker.say("PUBACK", producer=header["producer"], upto=1, refused=[], credit=CREDIT)

    broker.answers["PUB"] = answer
    await publish(database, "a", "b", "c")
    await until("the acks", lambda: relay.counters.acked == 3)
    assert _firsts(broker) == [(1, 3), (2, 2)]


async def test_expected_below_the_outbox_stops_loudly(
    relay: Relay, broker: ScriptedBroker, database: atoll.Database
) -> None:
    broker.acknowledge_everything()
    await publish(database, "a")
    await until("the ack", lambda: relay.counters.acked == 1)
    broker.answers["PUB"] = lambda header, _: broker.say(
        "PUBNACK", producer=header["producer"], code="EXPECTED", expected=1
    )
    await publish(database, "b")
    await until("the stop", lambda: relay.stopped)


async def test_credit_bounds_what_is_unacknowledged(
    options: atoll.Options, broker: ScriptedBroker, relay: Relay, database: atoll.Database
) -> None:
    broker.answers["PUB"] = lambda header, events: None
    await publish(database, *map(str, range(1500)))
    await until("the window to fill", lambda: sum(count for _, count in _firsts(broker)) >= 1024)
    await asyncio.sleep(0.05)
    assert sum(count for _, count in _firsts(broker)) == 1024
    assert max(count for _, count in _firsts(broker)) <= 128


async def test_a_new_session_sends_again_what_was_not_acknowledged(
    relay: Relay, broker: ScriptedBroker, database: atoll.Database
) -> None:
    await publish(database, "a", "b")
    await until("the batch", lambda: _firsts(broker) == [(1, 2)])
    broker.acknowledge_everything()
    broker.lose()
    await until("the acks", lambda: relay.counters.acked == 2)
    assert _firsts(broker) == [(1, 2), (1, 2)]
    assert broker.of("HELLO")[1]["resume"] == "s-1"


async def test_an_ack_that_comes_before_the_comparison_is_done_is_no_misfit(
    relay: Relay, broker: ScriptedBroker, database: atoll.Database
) -> None:
    """What was under way when the old session went is acked to the new one, however slow the database is then."""
    await publish(database, "a", "b")
    await until("the batch", lambda: _firsts(broker) == [(1, 2)])
    loop = asyncio.get_running_loop()
    slow: list[asyncio.Task[None]] = []

    def ack_at_once(header: dict[str, Any], _: list[Any]) -> None:
        broker.say("PUBACK", producer=header["producer"], upto=2, refused=[], credit=CREDIT)
        slow.append(loop.create_task(database.read(lambda _: time.sleep(0.2))))

    broker.answers["HELLO"] = ack_at_once
    broker.acknowledge_everything()
    broker.lose()
    await until("the ack", lambda: relay.counters.acked == 2)
    await publish(database, "c")
    await until("the next ack", lambda: relay.stopped or relay.counters.acked == 3)
    assert relay.stopped is None
    assert _firsts(broker) == [(1, 2), (3, 1)]
    assert await relay.flush(2)
    await slow[0]


async def test_refusals_that_were_lost_with_their_socket_come_with_welcome(
    relay: Relay, broker: ScriptedBroker, database: atoll.Database
) -> None:
    await publish(database, "a", "b")
    await until("the batch", lambda: _firsts(broker) == [(1, 2)])
    refusal = {"pseq": 1, "code": "ACL", "field": "type", "text": "not granted"}
    broker.mark = {"mark": 2, "last_id": None, "refused": [refusal]}
    broker.lose()
    await until("the refusal", lambda: relay.refused_rows == 1)
    assert _firsts(broker) == [(1, 2)], "nothing was left to send"
    assert await database.read(
        lambda reader: [tuple(row) for row in reader.all("SELECT pseq, code FROM atoll_outbox")]
    ) == [(1, "ACL")]


@pytest.mark.parametrize(
    ("mark", "why"),
    [
        ({"mark": 9, "last_id": "x"}, "restored from a backup"),
        ({"mark": 0, "last_id": None}, "was its disk replaced"),
        ({"mark": 2, "last_id": "somebody else's"}, "at the broker and"),
    ],
)
async def test_a_mark_that_does_not_fit_stops_the_relay_loudly(
    relay: Relay, broker: ScriptedBroker, database: atoll.Database, mark: dict[str, Any], why: str
) -> None:
    broker.acknowledge_everything()
    await publish(database, "a", "b")
    await until("the acks", lambda: relay.counters.acked == 2)
    assert await relay.flush(2)
    broker.mark, broker.log = mark, "log-2"
    broker.lose()
    await until("the stop", lambda: relay.stopped)
    assert why in str(relay.stopped)
    await publish(database, "c")
    await asyncio.sleep(0.05)
    assert (await relay.counts())[0] == 1


async def test_busy_before_the_comparison_is_no_way_round_it(
    relay: Relay, broker: ScriptedBroker, database: atoll.Database
) -> None:
    """BUSY may come unasked: the broker's disk was full, and what an earlier session sent is not on it."""
    broker.mark = {"mark": 9, "last_id": "x", "refused": []}
    producer = broker.of("HELLO")[0]["producer"]
    broker.answers["HELLO"] = lambda *_: broker.say("PUBNACK", producer=producer, code="BUSY", retry_after_ms=1)
    broker.lose()
    await until("the word", lambda: relay.counters.busy == 1)
    await publish(database, "a")
    await until("the stop", lambda: relay.stopped or _firsts(broker))
    assert "restored from a backup" in str(relay.stopped)
    assert _firsts(broker) == []


async def test_a_broker_that_fits_again_lifts_the_stop(
    relay: Relay, broker: ScriptedBroker, database: atoll.Database
) -> None:
    broker.acknowledge_everything()
    broker.mark = {"mark": 9, "last_id": "x", "refused": []}
    broker.lose()
    await until("the stop", lambda: relay.stopped)
    broker.mark = {"mark": 0, "last_id": None, "refused": []}
    broker.lose()
    await until("the go", lambda: relay.stopped is None)
    await publish(database, "a")
    await until("the ack", lambda: relay.counters.acked == 1)
