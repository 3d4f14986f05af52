"""Five minutes of a real bus under faults, and what its histories say of I1 to I12."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from histories import checker, verdict
from histories.index import History
from histories.plan import Least
from histories.planted import PLANTED, Planted
from histories.running import Play
from measured import say

#: Faults go on a little after the least time, and longer if too little has been done.
FULL = Least(verdict.SECONDS_MIN + 1, verdict.FAULTS_MIN, 45_000, 20, seconds_max=420)
SHORT = Least(seconds=8, faults=8, events=1_800, boots=4, seconds_max=120)
#: With a planted fault publishers may stop for good, and some backlog never goes away: nobody waits for either.
PLANTED_SHORT = replace(SHORT, seconds_max=30, drain_seconds_max=8)
HERE = Path(__file__).parent
#: Part -> folder of planted faults; what the checker must find in a short run with them.
CARELESS = {"broker": HERE / "planted_brokers" / "careless"}
HASTY = {"broker": HERE / "planted_brokers" / "hasty", "island": HERE.parent / "chaos" / "planted" / "inbox_off"}


@pytest.fixture(scope="module")
def short(play: Play) -> History:
    """A real run, too short to prove anything of the bus, but long enough to plant violations in."""
    return verdict.load(play("short", SHORT) / "histories")


@pytest.fixture(scope="module")
def packed(short: History) -> bytes:
    """Its logs, to take copies from: a tenth of what a deep copy costs."""
    return pickle.dumps(short.logs)


@pytest.mark.parametrize("planted", PLANTED, ids=lambda one: one.name)
def test_a_violation_planted_in_a_real_history_is_found(short: History, packed: bytes, planted: Planted) -> None:
    spoilt = History(short.plan, pickle.loads(packed))
    planted.plant(spoilt)
    broken = list(checker.INVARIANTS[planted.invariant](History(spoilt.plan, spoilt.logs)))
    assert broken, f"{planted.name} was not found"


def test_the_real_history_was_good_before(short: History) -> None:
    assert checker.check(short) == {}


@pytest.mark.parametrize(
    ("planted", "invariants"),
    [(CARELESS, {"I1", "I3", "I7", "I9", "I10", "I11"}), (HASTY, {"I5", "I8"})],
    ids=["careless", "hasty"],
)
def test_a_bus_that_breaks_its_word_is_found_out(
    play: Play, planted: dict[str, Path], invariants: set[str], request: pytest.FixtureRequest
) -> None:
    """The same run as the short one, but real processes have faults planted in them."""
    name = f"planted-{request.node.callspec.id}"
    history = verdict.load(play(name, PLANTED_SHORT, planted) / "histories")
    found = checker.check(history)
    say(f"histories: planted {request.node.callspec.id}: broken {', '.join(found)}")
    assert invariants <= set(found), found


def test_a_bus_under_faults_keeps_every_invariant(request: pytest.FixtureRequest, seed: str, commit: str) -> None:
    given = request.config.getoption("--history")
    if given:
        folder = Path(given)
    else:
        play: Play = request.getfixturevalue("play")
        folder = play(f"seed-{seed}", FULL) / "histories"
    found = verdict.judge(verdict.load(folder))
    for line in found.lines:
        say(line)
    assert not found.text(), (
        f"{found.text()}\n\ncommit {commit}; check these histories again: "
        f"./atoll test tests/histories -k keeps_every --history {folder}\n"
        f"deal the same faults again: ATOLL_SEED={seed} ./atoll test tests/histories -k keeps_every"
    )
