"""Five minutes of a real bus under faults, and what its histories say of I1 to I12."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest

from histories import checker, verdict
from histories.index import History
from histories.planted import PLANTED, Planted
from histories.running import Play
from measured import say

#: Faults go on a little after the least time, and longer if too few have hit.
SECONDS, SECONDS_MAX = verdict.SECONDS_MIN + 1, 400.0
SHORT_SECONDS = 14.0


@pytest.fixture(scope="module")
def short(play: Play) -> History:
    """A real run, too short to prove anything of the bus, but long enough to plant violations in."""
    folder = play("short", seconds=SHORT_SECONDS, faults=8, seconds_max=60)
    return verdict.load(folder / "histories")


@pytest.mark.parametrize("planted", PLANTED, ids=lambda one: one.name)
def test_a_violation_planted_in_a_real_history_is_found(short: History, planted: Planted) -> None:
    spoilt = History(short.plan, copy.deepcopy(short.logs))
    planted.plant(spoilt)
    broken = list(checker.INVARIANTS[planted.invariant](History(spoilt.plan, spoilt.logs)))
    assert broken, f"{planted.name} was not found"


def test_the_real_history_was_good_before(short: History) -> None:
    assert checker.check(short) == {}


def test_a_bus_under_faults_keeps_every_invariant(request: pytest.FixtureRequest, seed: str, commit: str) -> None:
    given = request.config.getoption("--history")
    if given:
        folder = Path(given)
    else:
        play: Play = request.getfixturevalue("play")
        folder = play(f"seed-{seed}", seconds=SECONDS, faults=verdict.FAULTS_MIN, seconds_max=SECONDS_MAX) / "histories"
    found = verdict.judge(verdict.load(folder))
    for line in found.lines:
        say(line)
    assert not found.text(), (
        f"{found.text()}\n\ncommit {commit}; check these histories again: "
        f"./atoll test tests/histories -k keeps_every --history {folder}\n"
        f"deal the same faults again: ATOLL_SEED={seed} ./atoll test tests/histories -k keeps_every"
    )
    if not given:
        shutil.rmtree(folder.parent)
