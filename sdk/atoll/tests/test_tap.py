"""A tap sees what is committed, says what it missed, and goes on after the loss of its session."""

from __future__ import annotations

import asyncio
import json

import pytest
from scripted import ScriptedBroker, event, until

import atoll
from atoll import _tap


def taps_answered(broker: ScriptedBroker) -> None:
    """A broker that takes every TAP."""
    broker.answers["TAP"] = lambda header, _: broker.say("SUBOK", group=header["tap"], lease_ms=0)


def say(broker: ScriptedBroker, *seqs: int, tap: str = "~t1", lost: int = 0) -> None:
    events = [event(f"e-{seq}", {"seq": seq}) for seq in seqs]
    broker.say("MSG", events, group=tap, messages=[[seq, 0, 0, 0] for seq in seqs], lost=lost)


async def test_events_come_as_they_were_published_and_their_credit_goes_back(
    options: atoll.Options, broker: ScriptedBroker
) -> None:
    taps_answered(broker)
    async with atoll.Session(options, connector=broker) as session:
        await session.wait_up(2)
        async with session.tap(["payments.*"], after=40) as tap:
            await until("the credit", lambda: broker.of("CREDIT"))
            assert broker.of("TAP") == [{"tap": "~t1", "topics": ["payments.*"], "after": 40}]
            say(broker, 41)
            seen = await anext(tap)
            assert isinstance(seen, atoll.Tapped)
            assert (seen.seq, json.loads(seen.event)["id"]) == (41, "e-41")
            first, again = broker.of("CREDIT")
            assert first == {"group": "~t1", "events": _tap.CREDIT_EVENTS, "bytes": _tap.CREDIT_BYTES}
            assert again == {"group": "~t1", "events": 1, "bytes": len(seen.event)}
        assert broker.of("TAP")[-1] == {"tap": "~t1", "topics": [], "after": None}
        say(broker, 42)  # it was under way: nobody is there to be disturbed by it
        await session.wait_up(2)


async def test_what_it_lost_comes_before_what_it_has(options: atoll.Options, broker: ScriptedBroker) -> None:
    taps_answered(broker)
    async with atoll.Session(options, connector=broker) as session, session.tap(["*"]) as tap:
        await until("the tap", lambda: broker.of("TAP"))
        say(broker, 9, lost=3)
        for _ in range(2):  # the same gap may be said again
            broker.say("GAP", group="~t1", gaps=[{"first": 1, "last": 4, "why": "retention", "at_ms": 1}])
        say(broker, 10)
        assert await anext(tap) == atoll.Missed(3, "this tap was too slow")
        assert (await anext(tap))[0] == 9
        assert await anext(tap) == atoll.Missed(None, "seq 1 to 4: retention")
        assert (await anext(tap))[0] == 10


async def test_after_a_loss_it_goes_on_behind_the_last_seq(options: atoll.Options, broker: ScriptedBroker) -> None:
    taps_answered(broker)
    async with atoll.Session(options, connector=broker) as session, session.tap(["*"]) as tap:
        await until("the tap", lambda: broker.of("TAP"))
        broker.lose()
        missed = await anext(tap)
        assert isinstance(missed, atoll.Missed), "what was committed meanwhile is not known by seq"
        await until("the tap again", lambda: len(broker.of("TAP")) == 2)
        say(broker, 7)
        await anext(tap)
        broker.lose()
        await until("the tap once more", lambda: len(broker.of("TAP")) == 3)
        assert [one["after"] for one in broker.of("TAP")] == [None, None, 7]
        say(broker, 8)
        assert (await anext(tap))[0] == 8


async def test_a_refusal_ends_the_tap_that_it_answers_and_no_other(
    options: atoll.Options, broker: ScriptedBroker
) -> None:
    def answer(header: dict[str, object], _: list[object]) -> None:
        if header["topics"] == ["auth.*"]:
            broker.say("ERR", code="ACL", text="control may not tap auth.*", field="topics[0]", closes=False)
        else:
            broker.say("SUBOK", group=header["tap"], lease_ms=0)

    broker.answers["TAP"] = answer
    async with atoll.Session(options, connector=broker) as session:
        await session.wait_up(2)
        async with session.tap(["orders.*"]) as good, session.tap(["auth.*"]) as bad:
            with pytest.raises(atoll.BusRefusedError, match=r"ACL: control may not tap auth\.\*"):
                await anext(bad)
            say(broker, 1, tap=good.name)
            assert (await anext(good))[0] == 1
        assert session.state == "up"


async def test_taps_are_bounded(options: atoll.Options, broker: ScriptedBroker) -> None:
    session = atoll.Session(options, connector=broker)
    taps = [session.tap(["*"]) for _ in range(_tap.TAPS_MAX)]
    with pytest.raises(atoll.OverloadedError):
        session.tap(["*"])
    async with taps[0]:
        pass
    session.tap(["*"])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(taps[1])
