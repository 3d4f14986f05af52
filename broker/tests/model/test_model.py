"""The core against the model: hypothesis looks for a short history in which they differ, the driver makes the number.

./atoll test broker/tests/model                                            # all of it, some minutes
ATOLL_SEED=17 ./atoll test broker/tests/model -k replay                    # one history again
ATOLL_MODEL_STEPS=5000000 ./atoll test broker/tests/model -k million       # more of them
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from . import coverage
from .driver import run_history
from .plants import PLANTS, Plant, StalePlantError, copy_with
from .reporting import say
from .rules import RULES, Rules
from .workers import TESTS, Report, drive, drive_many, environment
from .world import World

T = TypeVar("T")
STEPS_MIN: Final = 1_000_000
STEPS: Final = 2_200_000  # so that the rarest pair has its hundred
PLANT_STEPS_MAX: Final = 400_000  # a few need some ten thousand, and which depends on every change of the rules
CONTROL_STEPS: Final = 100_000
PLANTS_MIN: Final = 20
PLANT_SEED: Final = 7_000


class DrawnChooser:
    """Hypothesis chooses, so that hypothesis can shrink."""

    def __init__(self) -> None:
        self.data: st.DataObject

    def pick(self, options: Sequence[T]) -> T:
        return options[self.data.draw(st.integers(0, len(options) - 1))] if len(options) > 1 else options[0]


class Machine(RuleBasedStateMachine):
    """Its rules are those of `rules.RULES`, one each."""

    @initialize()
    def begin(self) -> None:
        self.chooser = DrawnChooser()
        self.play = Rules(World(), self.chooser)


def _as_rule(do: Callable[[Rules], None]) -> Callable[..., None]:
    def act(self: Machine, data: st.DataObject) -> None:
        self.chooser.data = data
        do(self.play)

    return act


for _name, (_, _do) in RULES.items():
    _act = _as_rule(_do)
    _act.__name__ = _name
    setattr(Machine, _name, rule(data=st.data())(_act))

TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_replay() -> None:
    """One history, from ATOLL_SEED; what another test prints when it fails. Without, a new one."""
    seed = int(os.environ.get("ATOLL_SEED") or random.SystemRandom().randrange(1_000_000_000))
    _, finding = run_history(seed)
    if finding is not None:
        pytest.fail(str(finding), pytrace=False)


def test_a_million_steps_reach_every_state_and_command_and_find_nothing() -> None:
    first_seed = random.SystemRandom().randrange(1_000_000_000)
    report = drive_many(first_seed, int(os.environ.get("ATOLL_MODEL_STEPS") or STEPS))
    if report.finding is not None:
        pytest.fail(report.finding["text"], pytrace=False)
    _say_reached(report, first_seed)
    assert report.steps >= STEPS_MIN
    assert coverage.too_rare(report.reached) == [], "too rare: not tried is not tested"
    assert coverage.unknown(report.reached) == [], "held to be impossible, or in no table"


def _say_reached(report: Report, first_seed: int) -> None:
    pairs = list(coverage.pairs())
    rarest = min(pairs, key=lambda pair: report.reached[pair])
    say(
        f"model: {report.steps:,} steps in {report.histories:,} histories seed {first_seed}, {report.seconds:.0f} s; "
        f"{len(pairs)} pairs of state and command, the rarest ({' | '.join(rarest)}) reached "
        f"{report.reached[rarest]} times (promised: {coverage.REACHED_MIN})"
    )


def test_every_planted_bug_is_found(tmp_path: Path) -> None:
    def hunt(numbered: tuple[int, Plant | None]) -> Report:
        number, plant = numbered
        steps = CONTROL_STEPS if plant is None else PLANT_STEPS_MAX
        return drive(PLANT_SEED, steps, copy_with(plant, tmp_path / str(number)))

    plants: list[Plant | None] = [None, *PLANTS]
    with ThreadPoolExecutor(2) as pool:
        control, *reports = pool.map(hunt, enumerate(plants))
    assert control.finding is None, f"the control has no bug: {control.finding}"
    assert control.steps >= CONTROL_STEPS
    missed = [plant.name for plant, report in zip(PLANTS, reports, strict=True) if report.finding is None]
    longest = max((report.steps, plant.name) for plant, report in zip(PLANTS, reports, strict=True))
    say(
        f"model: {len(PLANTS) - len(missed)} of {len(PLANTS)} planted bugs found, the last ({longest[1]}) after "
        f"{longest[0]:,} steps; the control went {control.steps:,} without a finding"
    )
    assert missed == [], "these bugs were planted, and not found"
    assert len(PLANTS) >= PLANTS_MIN


def test_a_plant_whose_line_is_gone_fails_loudly(tmp_path: Path) -> None:
    gone = Plant("gone", "groups.py", "this line was never there", "pass", "nothing")
    with pytest.raises(StalePlantError, match="has 0 lines"):
        copy_with(gone, tmp_path)


def test_the_command_that_a_finding_prints_replays_it(tmp_path: Path) -> None:
    """Of a planted bug: the same seed, alone, fails at the same step with the same words; without the bug it passes."""
    folder = copy_with(PLANTS[0], tmp_path)
    finding = drive(PLANT_SEED, PLANT_STEPS_MAX, folder).finding
    assert finding is not None
    code, said = _replay(finding["seed"], folder)
    assert code == 1
    assert f"at step {finding['step']};" in said
    assert finding["text"].splitlines()[-2] in said, "the same words"
    assert _replay(finding["seed"], None)[0] == 0
    say(f"model: ATOLL_SEED={finding['seed']} replays a planted bug at its step {finding['step']}")


def _replay(seed: int, package_first: Path | None) -> tuple[int, str]:
    variables = {**environment(package_first), "ATOLL_SEED": str(seed)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/model", "-k", "test_replay"]
    ran = subprocess.run(command, cwd=TESTS.parent, env=variables, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout
