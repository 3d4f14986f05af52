"""What the pages say of the fleet: staleness, absences, who may do what, what an act would cost."""

from __future__ import annotations

from typing import Any

import pytest

from atoll_dashboard import fleetview, progress, snapshot, states
from atoll_dashboard.fleetview import Absence, View
from atoll_dashboard.pages import overview
from atoll_dashboard.snapshot import Part, Snapshot, SnapshotError

NOW = 1_000_000.0
OPERATOR = frozenset({"ops:read", "ops:operate"})
ADMIN = OPERATOR | {"ops:admin"}


def fleet(*parts: dict[str, Any], **more: Any) -> Snapshot:
    """A snapshot with these parts."""
    whole = [{"instance": 1, "kind": "service", "state": "running", "pid": 7, **part} for part in parts]
    return snapshot.read({"system": "atoll", "as_of": NOW, "parts": whole, **more})


def part(name: str = "payments", **fields: Any) -> Part:
    """One part."""
    return fleet({"name": name, **fields}).parts[0]


def view(of: Snapshot | None, age: float = 0.0, **more: Any) -> View:
    """A look at a snapshot of that age."""
    if of is None:
        return View(None, None, NOW, float("inf"), float("inf"), **more)
    return View(of, NOW - age, NOW, age, age, **more)


# ---- the snapshot ------------------------------------------------------------------------------------------------


def test_what_an_older_control_leaves_out_is_not_known_and_what_a_younger_adds_is_ignored() -> None:
    read = part(weather="mild")
    assert (read.lag, read.rates, read.version) == (None, None, None)
    assert fleet({"name": "a"}).figures.dead_letters is None


def test_what_is_not_understood_is_named() -> None:
    with pytest.raises(SnapshotError, match=r"parts\[0\]\.restarts"):
        fleet({"name": "a", "restarts": "many"})


# ---- stale is not green ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "state", "dimmed"), [(0, "running", False), (5.1, "running", True), (15.1, "unknown", True)]
)
def test_stale_is_not_green(age: float, state: str, dimmed: bool) -> None:
    seen = view(fleet({"name": "payments"}), age)
    assert seen.state(seen.by_name()[0]) == state
    assert seen.stale is dimmed
    word, _ = fleetview.fleet_word(seen)
    assert (word == "unknown") is (state == "unknown")
    assert (word == "running") is (not dimmed), "an old fleet is not green"


def test_without_any_snapshot_nothing_is_known() -> None:
    assert fleetview.fleet_word(view(None))[0] == "unknown"
    assert fleetview.total_up(view(None)) == "–"
    assert fleetview.freshness(view(None), None) == "Nothing received yet"


def test_the_strip_says_how_old_and_that_it_is_held() -> None:
    of = fleet({"name": "a"})
    assert fleetview.freshness(view(of), None).endswith("every 2 s")
    assert fleetview.freshness(view(of, 7.2), None).endswith("7 s old")
    assert fleetview.freshness(view(of, held=True), None).endswith("held")


def test_all_faults_are_stopped_as_far_as_one_may() -> None:
    paused = [{"name": name, "state": "paused"} for name in ("broker", "payments", "sales")]
    faults = [{"kind": "pause", "target": f"{one['name']}/1"} for one in paused[:2]]
    of = fleet(*paused, {"name": "orders"}, faults=faults)

    def names(scopes: frozenset[str]) -> list[str]:
        return [one.name for one in fleetview.held(of, scopes)]

    assert names(ADMIN) == ["broker", "payments"], "sales is no fault's"
    assert names(OPERATOR) == ["payments"]
    assert names(frozenset({"ops:read"})) == []
    assert fleetview.held(fleet({"name": "payments"}), ADMIN) == []


def test_where_nothing_alarms_it_says_so_or_who_is_on_the_way_back() -> None:
    def said(state: str, up: int = 2, age: float = 0.0) -> str:
        of = fleet({"name": "a"}, {"name": "payments", "state": state}, figures={"up": up, "of": 2})
        return fleetview.quiet(view(of, age))

    assert said("running") == said("absent") == "Nothing is gone, and nothing alarms."
    assert said("starting", up=1) == "Not running yet: payments (starting)"
    assert said("running", up=1) == "", "a part that is not up, and nobody to name: no word of comfort"
    assert said("running", age=6) == fleetview.quiet(view(None)) == ""


def test_a_state_that_this_dashboard_does_not_know_is_unknown() -> None:
    assert states.shown("levitating", 0) == "unknown"


def test_the_fleet_is_green_only_when_all_is_up_and_nothing_alarms() -> None:
    def word(up: int, alarms: int) -> str:
        told = [{"kind": "slow_group", "target": "sales", "text": "slow", "since": NOW}] * alarms
        return fleetview.fleet_word(view(fleet({"name": "a"}, figures={"up": up, "of": 2}, alarms=told)))[0]

    assert [word(2, 0), word(2, 1), word(1, 0), word(1, 1)] == ["running", "degraded", "down", "down"]


# ---- what is gone ------------------------------------------------------------------------------------------------


def test_each_thing_that_is_gone_is_named_once() -> None:
    of = fleet(
        {"name": "auth", "state": "down", "why": "exited -9"}, {"name": "sales", "state": "stopped", "why": "by amy"}
    )
    named = fleetview.absences(of, 1, (Absence("auth", "auth is gone: no token"),))
    assert [one.text for one in named] == ["auth is gone: no token", "sales is stopped: by amy"]


def test_an_old_snapshot_accuses_nobody() -> None:
    of = fleet({"name": "sales", "state": "down"})
    assert fleetview.absences(of, 16, (Absence("gateway", "gateway is gone"),)) == (
        Absence("gateway", "gateway is gone"),
    )


def test_what_is_paused_starting_or_absent_is_not_gone() -> None:
    of = fleet(
        {"name": "a", "state": "paused"}, {"name": "b", "state": "starting"}, {"name": "jaeger", "state": "absent"}
    )
    assert fleetview.absences(of, 0, ()) == ()


def test_a_reason_is_not_said_twice() -> None:
    assert fleetview.sentence(part(state="stopped", why="stopped by amy: drill")) == "payments is stopped by amy: drill"
    assert fleetview.sentence(part(state="down", why="exited -9")) == "payments is down: exited -9"


def test_what_the_broker_said_last_is_kept_while_it_is_gone() -> None:
    before = fleet({"name": "a", "lag": 7}, bus={"available": True}, figures={"up": 1, "of": 1, "dead_letters": 3})
    now = fleet({"name": "a", "lag": None}, bus={"available": False}, figures={"up": 0, "of": 1})
    seen = view(now, whole=before)
    assert (seen.without_bus, seen.lag(now.parts[0]), seen.bus_figures.dead_letters) == (True, 7, 3)
    assert fleetview.total_up(seen) == "0 of 1"  # who is up is not the broker's to say
    again = view(before, whole=before)
    assert (again.without_bus, again.lag(before.parts[0])) == (False, 7)


def test_with_the_agent_gone_the_last_states_stand_for_a_while_and_nobody_says_how_many_are_up() -> None:
    told = {"state": "unknown", "why": "when last heard of: running", "last_state": "running"}
    of = fleet(
        {"name": "payments", **told}, {"name": "sales", **told, "last_state": "down"},
        agent={"state": "unknown", "why": "the agent is gone"}, figures={"up": None, "of": 2},
    )  # fmt: skip
    for since, payments, sales in ((3, "running", "down"), (16, "unknown", "unknown")):
        seen = View(of, NOW, NOW, 0.5, since)
        assert [seen.state(one) for one in seen.by_name()] == [payments, sales]
        assert (seen.parts_stale, seen.stale) == (True, False), "what others tell is fresh"
        assert fleetview.fleet_word(seen) == ("unknown", "the fleet's state is unknown")
        assert fleetview.total_up(seen) == "–"
        assert fleetview.quiet(seen) == ""
    gone = (Absence("agent", "agent is gone"),)
    assert fleetview.absences(of, 0.5, gone) == gone, "one absence, not one a part"


def test_a_control_of_before_that_counts_none_up_without_an_agent_is_not_believed() -> None:
    seen = view(fleet({"name": "a", "state": "unknown"}, agent={"state": "unknown"}, figures={"up": 0, "of": 1}))
    assert (fleetview.fleet_word(seen)[0], fleetview.total_up(seen)) == ("unknown", "–")


def test_dead_letters_name_the_command_that_shows_them() -> None:
    def said(dead: int | None) -> str:
        return overview._figures(view(fleet({"name": "a"}, bus={"available": True}, figures={"dead_letters": dead})))

    assert [">see ./atoll dlq list<" in said(dead) for dead in (3, 0, None)] == [True, False, False]


# ---- acts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "acts"),
    [
        ({}, ["Kill", "Stop", "Restart", "Pause"]),
        ({"state": "paused"}, ["Resume", "Kill", "Stop"]),
        ({"state": "stopped", "pid": None, "wanted": "stopped"}, ["Start"]),
        ({"state": "down", "pid": None}, ["Start", "Stop"]),
        ({"state": "absent", "pid": None}, ["Start"]),
    ],
)
def test_only_what_makes_sense_is_offered(fields: dict[str, Any], acts: list[str]) -> None:
    assert fleetview.acts_for(part(**fields), OPERATOR) == acts


def test_a_viewer_is_offered_nothing_and_broker_and_auth_are_the_admins() -> None:
    assert fleetview.acts_for(part(), frozenset({"ops:read"})) == []
    for name in ("broker", "auth"):
        assert fleetview.acts_for(part(name), OPERATOR) == []
        assert "Kill" in fleetview.acts_for(part(name), ADMIN)


@pytest.mark.parametrize(
    ("act", "name", "dialog", "typed"),
    [
        ("Kill", "payments", True, True), ("Stop", "payments", True, False), ("Restart", "payments", True, False),
        ("Pause", "payments", True, False), ("Start", "payments", False, False), ("Resume", "payments", False, False),
        ("Restart", "broker", True, True), ("Start", "auth", True, True),
    ],
)  # fmt: skip
def test_friction_grows_with_damage(act: str, name: str, dialog: bool, typed: bool) -> None:
    assert (fleetview.needs_dialog(act, part(name)), fleetview.needs_name(act, part(name))) == (dialog, typed)


def test_every_act_says_what_it_does() -> None:
    for act in ("Kill", "Stop", "Restart", "Pause", "Start", "Resume"):
        assert "payments" in fleetview.consequence(act, "payments")


def test_the_blast_radius_names_who_is_without_it() -> None:
    of = fleet(
        {"name": "payments", "in_flight": 132, "topics": {"publishes": ["p.a.v1", "p.b.v1"], "consumes": []}},
        {"name": "orders", "topics": {"publishes": [], "consumes": ["p.a.v1"]}},
        {"name": "journal", "topics": {"publishes": [], "consumes": ["p.b.v1"]}},
    )
    assert fleetview.blast_radius(of, of.parts[0]) == (
        "0 healthy instances left · publishes to 2 topics that journal and orders listen to · 132 in flight"
    )


def test_the_blast_radius_counts_healthy_siblings_alone() -> None:
    of = fleet({"name": "a"}, {"name": "a", "instance": 2}, {"name": "a", "instance": 3, "state": "down"})
    assert fleetview.blast_radius(of, of.parts[0]) == "1 healthy instance left"


# ---- operations --------------------------------------------------------------------------------------------------


def operation(
    *steps: tuple[str, float, str], act: str = "kill", done: bool = False, ok: bool = False
) -> dict[str, Any]:
    """An operation as the API describes it."""
    told = [{"state": state, "at": at, "text": text} for state, at, text in steps]
    return {"id": "1", "act": act, "name": "payments", "instance": 1, "steps": told, "done": done, "ok": ok}


def test_an_operation_is_told_in_states() -> None:
    steps = (("requested", 10.0, ""), ("stopped", 10.1, "killed"), ("started", 12.2, "pid 7"))
    assert progress.line(operation(*steps[:1])) == "payments: requested → …"
    assert progress.line(operation(*steps[:2])) == "payments: requested → stopped (killed, 0.1 s) → …"
    assert (
        progress.line(operation(*steps, done=True, ok=True))
        == "payments: requested → stopped (killed, 0.1 s) → started (2.1 s)"
    )


def test_the_end_of_an_act_is_told_without_its_pid() -> None:
    told = {"started: pid 8": "started", "stopped": "stopped", "failed: no such file: x": "failed: no such file: x"}
    assert {result: progress.ended(result) for result in told} == told


def test_an_operation_that_failed_stays_to_be_read() -> None:
    late = operation(("requested", 1, ""), ("timed out", 61, "not ready after 60 s"), done=True)
    assert progress.ended_badly(late)
    assert "timed out (not ready after 60 s, 60.0 s)" in progress.line(late)


def test_what_an_operation_knows_holds_until_a_younger_snapshot() -> None:
    going = operation(("requested", 10, ""), ("stopped", 11, "killed"))
    assert progress.ahead(going, snapshot_as_of=99) == "down"
    ended = operation(("requested", 10, ""), ("stopped", 11, ""), ("started", 12, ""), done=True, ok=True)
    assert progress.ahead(ended, snapshot_as_of=11.5) == "starting"
    assert progress.ahead(ended, snapshot_as_of=12.5) is None
    stopped = operation(("requested", 10, ""), ("stopped", 11, ""), act="stop", done=True, ok=True)
    assert progress.ahead(stopped, snapshot_as_of=10.5) == "stopped"
    assert progress.ahead(operation(("requested", 10, "")), snapshot_as_of=9) is None


def test_an_operation_never_turns_a_badge_green_nor_a_stale_one_alive() -> None:
    of = fleet({"name": "payments"})
    assert view(of, 1, ahead={"payments/1": "down"}).state(of.parts[0]) == "down"
    assert view(of, 16, ahead={"payments/1": "down"}).state(of.parts[0]) == "unknown"
