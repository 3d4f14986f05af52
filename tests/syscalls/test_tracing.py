"""The tools of this suite: do they see what they count, do they leave nothing behind, do they choose what they say?"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from polling import poll_until
from syscalls import points
from syscalls.ground import MESH
from syscalls.lives import Nurseries
from syscalls.processes import Part, Point, armed, counting
from syscalls.test_broker import Brokers
from syscalls.verdict import log_of


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    """A broker that has served a round."""
    nurseries = Nurseries()
    life = Brokers(nurseries, tmp_path / "life", mesh=MESH)
    try:
        life.round()
        yield life
    finally:
        life.end()
        nurseries.end()


def traced_threads(part: Part) -> list[str]:
    """Its threads that somebody traces."""
    tasks = Path(f"/proc/{part.pid}/task").glob("*/status")
    return [task.parent.name for task in tasks if not re.search(r"TracerPid:\s*0\n", task.read_text())]


def test_a_strace_that_is_killed_leaves_no_tracee(brokers: Brokers, tmp_path: Path) -> None:
    """What it held goes on as if it had not been there: neither stopped nor dead, and the next strace can have it."""
    before = {child.pid for child in psutil.Process().children()}
    with counting(brokers.broker, tmp_path / "trace"):
        assert traced_threads(brokers.broker)
        (tracer,) = [child for child in psutil.Process().children() if child.pid not in before]
        assert tracer.name() == "strace"
        os.kill(tracer.pid, signal.SIGKILL)
        poll_until("nobody to be traced", lambda: traced_threads(brokers.broker), lambda left: not left, seconds=5)
    brokers.round()
    with armed(brokers.broker, Point("writer", "fdatasync", 1), tmp_path / "shot") as shot:
        brokers.broker.signal(signal.SIGCONT)  # not held by anything but strace
    assert not shot.killed()
    brokers.round()


def test_a_kill_comes_before_its_call_and_not_after(brokers: Brokers) -> None:
    """At the first write of a round nothing of it is in the log; at its second fsync there is what the first made sure
    of, and what PUBACKs have told of."""
    gained = []
    for point in (Point("writer", "pwrite64", 1), Point("writer", "fdatasync", 2)):
        before = len(log_of(brokers.ground))
        assert brokers.die(point), f"{point} was not reached"
        gained.append(len(log_of(brokers.ground)) - before)
        brokers.recover()
    assert gained[0] == 0
    assert gained[1] > 0


def test_what_a_nursery_has_started_dies_with_it(tmp_path: Path) -> None:
    nurseries = Nurseries()
    life = Brokers(nurseries, tmp_path / "life")
    life.round()
    nurseries.end()
    assert life.broker.ended_within(5), "a broker has outlived its nursery"
    life.end()


def test_every_call_is_a_point() -> None:
    found = points.chosen({("main", "write"): 3, ("io", "sendto"): 2})
    assert " ".join(map(str, found)) == "io:sendto:1 io:sendto:2 main:write:1 main:write:2 main:write:3"
    assert Point.parse(str(found[0])) == found[0]


def test_a_kind_of_call_that_no_kill_hit_is_missed() -> None:
    tally = points.Tally()
    for number in range(1, 10):
        tally.add(Point("main", "write", number), hit=True)
    tally.assert_enough(("write",))
    tally.add(Point("main", "fdatasync", 1), hit=False)
    with pytest.raises(AssertionError, match=r"no kill hit a .*fdatasync"):
        tally.assert_enough(("write", "fdatasync"))
