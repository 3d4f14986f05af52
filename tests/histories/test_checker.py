"""The checker itself: it lets good histories pass, and finds every planted violation."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest

from histories import checker, synthetic
from histories.index import History
from histories.planted import PLANTED, Planted
from histories.records import DamagedHistoryError, Recorder, read


def good() -> History:
    """A history in which nothing is wrong."""
    return History(*synthetic.good())


def test_a_good_history_passes() -> None:
    history = good()
    assert checker.check(history) == {}
    assert 0 not in checker.evidence(history).values(), "a history that lacks something cannot show that it is right"


@pytest.mark.parametrize("planted", PLANTED, ids=lambda one: one.name)
def test_a_planted_violation_is_found(planted: Planted) -> None:
    history = good()
    planted.plant(history)
    found = checker.check(History(history.plan, history.logs))
    assert planted.invariant in found, f"found only {found}"


def test_every_invariant_has_several_plants() -> None:
    count = {name: sum(one.invariant == name for one in PLANTED) for name in checker.INVARIANTS}
    assert min(count.values()) >= 2, count
    assert sorted(count) == sorted(f"I{number}" for number in range(1, 13))


def test_the_order_in_which_roles_are_read_changes_nothing() -> None:
    """There is no order between processes but the causal one."""
    for number in range(5):
        history = good()
        PLANTED[number * 7].plant(history)
        roles = list(history.logs.items())
        random.Random(number).shuffle(roles)
        turned = checker.check(History(history.plan, dict(roles)))
        assert set(turned) == set(checker.check(History(history.plan, history.logs)))


@pytest.mark.parametrize("delivered", [True, False], ids=["it came", "it did not come"])
def test_a_time_out_may_be_either(delivered: bool) -> None:
    """The last event of a publisher was sent and never answered."""
    plan, logs = synthetic.good()
    pub = [r for r in logs["publisher-depot"] if r["op"] == "pub"][-1]
    for record in logs["publisher-depot"]:
        if record["op"] == "puback" and record["upto"] >= pub["pseq"]:
            record["upto"] = pub["pseq"] - 1
    if not delivered:
        for _, record in History(plan, logs).each("deliver"):
            record["messages"] = [message for message in record["messages"] if message[3] != pub["id"]]
    history = History(plan, logs)
    assert history.outcome(history.published[pub["id"]]) == "unknown"
    for name in ("I1", "I2", "I4"):
        assert list(checker.INVARIANTS[name](history)) == []


def test_a_weak_run_is_told_what_it_lacks() -> None:
    history = good()
    asked = {"faults_min": 100, "acks_min": 100_000, "seconds_min": 300.0}
    found = "\n".join(checker.weaknesses(history, **asked))  # type: ignore[arg-type]
    assert "3 faults hit, of at least 100" in found
    assert "acknowledgements, of at least 100000" in found
    assert "of `restart storm`, of at least" in found
    next(r for _, r in history.each("healed"))["seconds"] = 12
    assert "12 s under faults, of at least 300 s" in "\n".join(checker.weaknesses(history, **asked))  # type: ignore[arg-type]


def test_a_fault_without_evidence_does_not_count() -> None:
    history = good()
    before = checker.faults(history).total()
    next(r for _, r in history.each("fault"))["evidence"] = ""
    assert checker.faults(history).total() == before - 1


def test_who_ended_by_himself_makes_the_run_worthless() -> None:
    plan, logs = synthetic.good()
    logs["stage"].append({"op": "exit", "role": "broker", "code": 74})
    found = checker.weaknesses(History(plan, logs), faults_min=0, acks_min=0, seconds_min=0)
    assert "broker ended with 74" in found


def test_half_a_line_at_the_end_of_a_life_is_left_out(tmp_path: Path) -> None:
    Recorder(tmp_path, "role", 1).say("first", n=1)
    with (tmp_path / "role.0001.jsonl").open("a") as file:
        file.write('{"op":"sec')
    Recorder(tmp_path, "role", 2).say("third", n=3)
    assert read(tmp_path) == {"role": [{"op": "first", "n": 1}, {"op": "third", "n": 3}]}


def test_a_damaged_line_is_no_history(tmp_path: Path) -> None:
    (tmp_path / "role.0001.jsonl").write_text('{"op":"first"}\n{"op":\n{"op":"third"}\n')
    with pytest.raises(DamagedHistoryError, match=r"role\.0001"):
        read(tmp_path)


def test_planting_spoils_a_copy_alone() -> None:
    """The plants change logs in place; who plants into histories that he needs copies them first."""
    history = good()
    before = copy.deepcopy(history.logs)
    assert checker.check(history) == {}
    assert history.logs == before
