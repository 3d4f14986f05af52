"""Every injector does what it says, and only while it should; one that hits nothing says so."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet import processes_of
from histories import running
from histories.nemesis import BrokerLane, ClientLane, NetworkLane
from polling import poll_until


def rehearse(name: str, folder: Path) -> Any:
    """What `histories.rehearsal` saw."""
    done = running.run_apart("histories.rehearsal", name, str(folder), seconds=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def network(apart: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The rehearsal of cuts and resets."""
    return rehearse("network", tmp_path_factory.mktemp("network"))


@pytest.mark.parametrize(
    ("direction", "during"), [("to the broker", [True, False]), ("from the broker", [False, False])]
)
def test_a_cut_holds_one_way_alone_and_heals(network: Any, direction: str, during: list[bool]) -> None:
    """A word goes out and its answer comes back. Where the words are cut there is none to answer."""
    seen = network[direction]
    assert seen["before"] == [True, True]
    assert seen["during"] == during
    assert seen["after"] == [True, True], "what was cut does not work after the heal"
    assert seen["dropped"] > 0


def test_a_reset_tears_what_is_connected(network: Any) -> None:
    assert network["reset"] == {"before": [True, True], "torn": 1, "ended": True}


def test_a_fault_of_the_network_that_hits_nothing_says_so(network: Any) -> None:
    assert network["idle cut"] == 0
    assert network["idle reset"] == 0


def test_the_wall_clock_moves_alone_and_only_where_it_is_steered(apart: None, tmp_path: Path) -> None:
    seen = rehearse("wall_clock", tmp_path)
    for shifted, (wall, monotonic, answered) in zip((0, 3600, -3600, 0), seen["steered"], strict=True):
        assert abs(wall - shifted) < 5
        assert abs(monotonic) < 5
        assert answered > 0
    for wall, monotonic, answered in seen["control"]:
        assert abs(wall) < 5
        assert abs(monotonic) < 5
        assert answered == 0, "it counts what it did not shift"


def test_a_stop_holds_a_kill_kills_and_an_end_is_told_from_it(apart: None, tmp_path: Path) -> None:
    seen = rehearse("signals", tmp_path)
    assert seen["stop"].startswith("stopped for")
    assert not seen["worked while stopped"]
    assert seen["goes on"]
    assert seen["kill"]
    assert "ended by itself with 3" in seen["ended by itself"]


@pytest.mark.parametrize("lane", [BrokerLane, ClientLane, NetworkLane])
def test_the_same_seed_deals_the_same_faults(lane: Any) -> None:
    def dealt(seed: str) -> list[str]:
        one = lane.__new__(lane)
        one.random, one._left = random.Random(seed), []
        return [one.draw() for _ in range(60)]

    assert dealt("a") == dealt("a") != dealt("b")
    decks = sum(card.count for card in lane.deck)
    assert {card.kind for card in lane.deck} == set(dealt("a")[:decks]), "a deck deals every kind"


def test_each_kind_of_fault_hits_every_actor_before_any_again() -> None:
    actors = [f"actor-{number}" for number in range(10)]
    one: Any = ClientLane.__new__(ClientLane)
    one.random, one._actors, one._next = random.Random("a"), actors, {}
    hit: dict[str, list[str]] = {"kill": [], "stop": []}
    for kind in ("kill", "stop", "kill") * 10:
        hit[kind].append(one.draw_actor(kind))
    assert sorted(hit["stop"]) == sorted(hit["kill"][:10]) == sorted(hit["kill"][10:]) == sorted(actors)
    assert hit["kill"][:10] != hit["kill"][10:], "shuffled once for all"


_STARTER = """
import sys, time
from pathlib import Path
from histories.plan import Least
from histories.running import Run
Run(Path(sys.argv[1]), Path(sys.argv[2]), seed="gone", least=Least(60, 1, 1, 1, 60))
time.sleep(120)
"""


def test_nothing_outlives_a_test_that_is_killed(python: Path, tmp_path: Path) -> None:
    """SIGKILL to whoever started a stage: no process of it is left, and with them its namespaces are gone."""
    folder = tmp_path / "run"
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTER, str(folder), str(python)], env=running.variables(), stdin=subprocess.DEVNULL
    )
    try:
        poll_until("a whole stage", lambda: len(processes_of(folder)), lambda count: count >= 10, seconds=60)
    finally:
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    poll_until("its processes to be gone", lambda: processes_of(folder), lambda left: not left, seconds=10)
