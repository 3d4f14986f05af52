"""What the poller keeps: the last that was understood, and the last that the broker said."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from atoll_dashboard import fleetview, health
from atoll_dashboard.fleetview import View
from atoll_dashboard.gateway import Trouble
from atoll_dashboard.poller import Poller, Seen

PAYMENTS = {"name": "payments", "instance": 1, "kind": "service", "state": "running"}


class Source:
    """Says what it is told to; a Trouble is raised."""

    def __init__(self) -> None:
        self.says: dict[str, Any] | Trouble = answer()

    def snapshot(self) -> dict[str, Any]:
        if isinstance(self.says, Trouble):
            raise self.says
        return self.says


def answer(**fields: Any) -> dict[str, Any]:
    return {"system": "atoll", "as_of": 1.0, "parts": [], "bus": {"available": True}} | fields


def test_what_is_not_understood_takes_nothing_away_and_is_named() -> None:
    source = Source()
    poller = Poller(source)
    poller.look()
    before = poller.seen()
    assert before.snapshot is not None
    source.says = answer(parts="many")
    poller.look()
    after = poller.seen()
    assert (after.snapshot, after.at) == (before.snapshot, before.at)
    assert [one.part for one in after.gone] == ["control"]
    assert "parts" in after.gone[0].text
    source.says = answer()
    poller.look()
    assert poller.seen().gone == ()


def test_what_is_old_stays_old_when_the_clock_is_set_back() -> None:
    source, wall, monotonic = Source(), [1_000_000.0], [50.0]
    poller = Poller(source, wall=lambda: wall[0], monotonic=lambda: monotonic[0])
    source.says = answer(parts=[PAYMENTS])

    def view() -> View:
        return fleetview.view_of(poller.seen(), wall[0], monotonic[0], {}, held=False)

    assert view().age_seconds == float("inf")
    poller.look()
    (payments,) = view().by_name()
    assert view().state(payments) == "running"
    source.says = Trouble("control", "gone")
    for passed, stale, state in ((4, False, "running"), (2, True, "running"), (14, True, "unknown")):
        wall[0] -= 3600
        monotonic[0] += passed
        poller.look()
        assert (view().stale, view().state(payments)) == (stale, state)
    assert view().at == 1_000_000.0


def test_so_it_is_in_the_metrics() -> None:
    seen = Seen(at=time.time() + 3600, came=time.monotonic() - 20)
    here: Any = SimpleNamespace(
        poller=SimpleNamespace(seen=lambda: seen, failures={}), options=SimpleNamespace(version="1"), sessions=[],
        gateway=SimpleNamespace(acts={}),
    )  # fmt: skip
    ages = [one for family in health._Numbers(here).collect() for one in family.samples if "age" in one.name]
    assert [20 <= one.value < 30 for one in ages] == [True]


def test_an_agent_that_control_does_not_hear_is_gone_and_the_states_are_as_old_as_its_last_word() -> None:
    source, monotonic = Source(), [50.0]
    poller = Poller(source, wall=lambda: monotonic[0], monotonic=lambda: monotonic[0])
    poller.look()
    lost = "the agent is gone; ./atoll up starts one, which adopts what runs"
    for source.says in (answer(agent={"state": "unknown", "why": lost}), Trouble("control", "gone")):
        monotonic[0] += 10
        poller.look()
        if not isinstance(source.says, Trouble):
            (gone,) = fleetview.view_of(poller.seen(), 0.0, monotonic[0], {}, held=False).absences
            assert (gone.part, gone.since) == ("agent", 60.0)
            assert gone.text == (
                "agent is gone: nobody starts parts again or carries out acts; "
                "./atoll up starts one, which adopts what runs"
            )
    seen = poller.seen()
    assert (seen.age_seconds(monotonic[0]), seen.states_age_seconds(monotonic[0])) == (10.0, 20.0)
    source.says = answer()
    poller.look()
    assert (poller.seen().gone, poller.seen().states_age_seconds(monotonic[0])) == ((), 0.0)


def test_the_last_that_the_broker_said_is_kept_through_everything() -> None:
    source = Source()
    poller = Poller(source)
    source.says = answer(figures={"dead_letters": 3})
    poller.look()
    whole = poller.seen().whole
    assert whole is not None
    for says in (answer(bus={"available": False, "why": "gone"}), Trouble("gateway", "gone"), answer(parts=7)):
        source.says = says
        poller.look()
        assert poller.seen().whole is whole
    source.says = answer(figures={"dead_letters": 4})
    poller.look()
    assert poller.seen().whole is poller.seen().snapshot


def test_whoever_the_gateway_waits_for_stays_named_with_it() -> None:
    """After 15 s without auth's word it lets nobody in: then it is not the gateway that is gone."""
    source = Source()
    poller = Poller(source)
    stopped = {"name": "auth", "instance": 1, "kind": "core", "state": "stopped", "why": "stopped by amy: a drill"}
    source.says = answer(parts=[PAYMENTS, stopped], bus={"available": False, "why": "no answer in time"})
    poller.look()
    source.says = Trouble("gateway", "waiting for: revocations", waits=True)
    poller.look()
    poller.look()
    assert {one.part: one.waits for one in poller.seen().gone} == {"gateway": True, "auth": False, "broker": False}
    said = [one.text for one in fleetview.view_of(poller.seen(), 1.0, time.monotonic(), {}, held=False).absences]
    assert said == [
        "gateway lets no operator in: waiting for: revocations of auth, which come over the broker",
        "auth is gone: when last heard of: stopped by amy: a drill",
        "broker is gone: no answer in time",
    ]
    source.says = Trouble("gateway", "no answer in time")
    poller.look()
    assert [one.part for one in poller.seen().gone] == ["gateway"], "it is not there itself: of others nothing is known"
    source.says = answer(parts=[PAYMENTS])
    poller.look()
    assert poller.seen().gone == ()


def test_a_gateway_that_waits_accuses_nobody_who_was_there() -> None:
    source = Source()
    poller = Poller(source)
    source.says = answer(parts=[{"name": "auth", "instance": 1, "kind": "core", "state": "running"}])
    poller.look()
    source.says = Trouble("gateway", "waiting for: revocations", waits=True)
    poller.look()
    assert [one.part for one in poller.seen().gone] == ["gateway"]


def test_a_broker_that_hangs_is_named_again_when_the_gateway_waits() -> None:
    """One look that got no answer in between is not the end of what was known."""
    source = Source()
    poller = Poller(source)
    paused = {"name": "broker", "instance": 1, "kind": "core", "state": "paused"}
    source.says = answer(parts=[paused], bus={"available": False, "why": "no answer in time"})
    poller.look()
    for says in (Trouble("gateway", "no answer in time"), Trouble("gateway", "waiting for: revocations", waits=True)):
        source.says = says
        poller.look()
    assert {one.part: one.text for one in poller.seen().gone} == {
        "gateway": "waiting for: revocations", "broker": "when last heard of: no answer in time",
    }  # fmt: skip
