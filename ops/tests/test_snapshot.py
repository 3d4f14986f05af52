"""The snapshot is put together from what is known: pure, so that any two moments can be laid side by side."""

from __future__ import annotations

from typing import Any

import pytest
from controlled import part

from atoll_ops.control import snapshot

BUS = {"as_of": 100.0, "topics": {}, "groups": {}, "sessions": [], "alarms": [], "faults": []}


def known(state: str, agent_lost: str | None = None, bus_why: str | None = None) -> snapshot.Known:
    agent = {"system": "atoll", "agent": {"state": "running", "pid": 1}, "parts": [part("broker", None, state)]}
    return snapshot.Known(agent, agent_lost, {}, BUS, bus_why, {}, {}, [])


def bus_of(made: snapshot.Known) -> dict[str, Any]:
    return dict(snapshot.compose(made, monotonic=0.0, wall=100.5)["bus"])


@pytest.mark.parametrize("state", ["down", "stopped"])
def test_a_broker_whose_process_has_ended_is_gone_before_the_next_look_at_the_bus(state: str) -> None:
    """Else there were a second in which the bus seems to be there, and its rates are not."""
    seen = bus_of(known(state))
    assert (seen["available"], seen["why"], seen["as_of"]) == (False, "the broker has no process", 100.0)
    assert bus_of(known(state, bus_why="no answer in time"))["why"] == "no answer in time"


def test_a_broker_that_runs_or_of_which_the_agent_says_nothing_is_judged_by_the_bus() -> None:
    assert bus_of(known("running"))["available"]
    assert bus_of(known("down", agent_lost="it does not answer"))["available"]
    assert not bus_of(known("running", bus_why="no answer in time"))["available"]
