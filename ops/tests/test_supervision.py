"""One instance and its operations, without a command line between."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from system import FAKE_PART

from atoll_ops import instance as supervision
from atoll_ops import mesh, ports, probe, suites
from atoll_ops import operations as operating
from atoll_ops.instance import Instance
from atoll_ops.launch import LOG_BYTES_MAX, Plan
from atoll_ops.operations import ActRefusedError, Operations
from atoll_ops.slots import Slot
from atoll_ops.state import State

Make = Callable[..., Instance]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes an instance of a fake part and keeps it; everything is ended afterwards."""
    state = State(tmp_path / "state")
    state.prepare()
    made: list[tuple[Instance, asyncio.Task[None]]] = []

    def one(**settings: str) -> Instance:
        part = mesh.Part("one", tmp_path, 20, "service", settings, (sys.executable, str(FAKE_PART)))
        page = mesh.Mesh(tmp_path / "mesh.toml", mesh.System(), {"one": part})
        plan = Plan(tmp_path, state, page, ports.choose(page, 0, None))
        instance = Instance(plan, part, Slot("one"), lambda *_, **__: None)
        made.append((instance, asyncio.create_task(instance.run())))
        return instance

    yield one
    for instance, task in made:
        instance.wanted = False
        instance.kill_now()
        await _until("its end", functools.partial(_has_no_process, instance))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _has_no_process(instance: Instance) -> bool:
    return instance.process is None


async def _until(what: str, holds: Callable[[], Any], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        await asyncio.sleep(0.01)


async def test_failures_are_tried_again_ever_later_and_named_a_crash_loop(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "BACKOFF_SECONDS", (0.0, 0.02, 0.04, 0.08, 30.0))
    failing = make(FAKE_EXIT="3")
    await _until("a crash loop", lambda: failing.failures >= 5)
    await _until("the wait", lambda: "next try in" in failing.why())
    state, why = failing.state()
    assert state == "down"
    assert why.startswith("crash loop, 5 times: exited 3 (crashed); next try in ")
    assert len(failing.exits) == 5


async def test_start_cuts_a_wait_short(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "BACKOFF_SECONDS", (30.0,))
    failing = make(FAKE_EXIT="3")
    await _until("the first failure", lambda: len(failing.exits) == 1)
    failing.start()
    await _until("another try", lambda: len(failing.exits) == 2)


async def test_a_part_that_is_not_ready_is_starting_and_says_why(make: Make) -> None:
    waiting = make(FAKE_READY="no")
    await _until("an answer", lambda: waiting.state() == ("starting", "waiting for: a wonder"))


async def test_a_part_that_hangs_is_killed_and_replaced(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "LIVENESS_SECONDS", 0.3)
    monkeypatch.setattr(supervision, "PROBE_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(supervision, "_PROBE_EVERY", 0.05)
    hanging = make(FAKE_HANG_AFTER="3")
    await _until("readiness", lambda: hanging.is_ready)
    first = hanging.process
    await _until("a successor", lambda: hanging.process not in (None, first))
    assert hanging.exits[0].meaning == "killed"


async def test_what_does_not_drain_is_killed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "DRAIN_SECONDS", 0.2)
    monkeypatch.setattr(supervision, "INSIST_SECONDS", 0.2)
    stubborn = make(FAKE_DRAIN="never")
    await _until("readiness", lambda: stubborn.is_ready)
    assert await stubborn.stop("for the test") == "killed: it did not drain in time"
    await _until("its end to be noted", lambda: stubborn.state() == ("stopped", "for the test"))


async def test_a_second_ctrl_c_is_not_the_parts_fault(make: Make) -> None:
    stubborn = make(FAKE_DRAIN="never")
    await _until("readiness", lambda: stubborn.is_ready)
    stubborn.wanted = False
    at_once = asyncio.Event()
    at_once.set()
    assert await stubborn.end_process(at_once=at_once) == "killed: nobody would wait"


async def test_a_part_that_cannot_be_started_says_why(make: Make) -> None:
    broken = make()
    broken.part = mesh.Part("one", broken.part.folder, 20, "service", {}, ("/no/such/program",))
    await _until("the reason", lambda: "cannot be started" in broken.why() and "/no/such/program" in broken.why())


async def test_a_large_log_is_put_aside_at_the_next_start(make: Make, tmp_path: Path) -> None:
    log = tmp_path / "state" / "logs" / "one-1.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        file.truncate(LOG_BYTES_MAX + 1)
    one = make()
    await _until("readiness", lambda: one.is_ready)
    assert log.stat().st_size < 1000
    assert log.with_suffix(".log.1").stat().st_size == LOG_BYTES_MAX + 1


async def test_a_log_stays_bounded_while_its_process_goes_on(make: Make, tmp_path: Path) -> None:
    one = make()
    await _until("readiness", lambda: one.is_ready)
    log = tmp_path / "state" / "logs" / "one-1.log"
    with log.open("ab") as file:
        file.truncate(LOG_BYTES_MAX + 1)
    await _until("the log to be put aside", lambda: log.stat().st_size < 1000)
    assert log.with_suffix(".log.1").stat().st_size == LOG_BYTES_MAX + 1


async def test_one_who_only_looks_at_a_lock_is_not_evicted(make: Make) -> None:
    one = make()
    await _until("readiness", lambda: one.is_ready)
    assert one.process is not None
    with one.files.lock.open() as looker:
        watching = await asyncio.create_subprocess_exec("sleep", "60", stdin=looker)
    try:
        assert one.files.holders() == [one.process.pid]
    finally:
        watching.kill()
        await watching.wait()


async def test_a_lost_lock_directory_ends_nobodys_supervision(make: Make, tmp_path: Path) -> None:
    one = make()
    await _until("readiness", lambda: one.is_ready)
    shutil.rmtree(tmp_path / "state" / "run")
    one.kill_now()
    await _until("the reason", lambda: "its lock cannot be taken" in one.why())
    (tmp_path / "state" / "run").mkdir()
    await _until("a successor", lambda: one.is_ready)


async def test_who_slept_himself_calls_nobody_silent(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make()
    await _until("readiness", lambda: one.is_ready)
    process = one.process

    async def asleep(*_: object) -> None:  # as after Ctrl-Z and fg in the middle of a probe
        time.sleep(0.5)  # noqa: ASYNC251 - the whole loop stands still, that is the point

    monkeypatch.setattr(supervision, "LIVENESS_SECONDS", 0.3)
    monkeypatch.setattr(supervision, "ASLEEP_SECONDS", 0.1)
    monkeypatch.setattr(supervision, "PROBE_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(probe, "health", asleep)
    assert process is not None
    await one._look(process)
    assert not await process.wait(0.2)


# ---- operations --------------------------------------------------------------------------------------------------


async def test_operations_go_through_their_states(make: Make) -> None:
    one = make()
    await _until("readiness", lambda: one.is_ready)
    tasks: list[asyncio.Task[None]] = []
    operations = Operations({one.slot: one}, lambda work: tasks.append(asyncio.create_task(work)), lambda: None)

    async def carried_out(act: str) -> list[str]:
        operation = operations.request(act, one.slot, "because", "amy")
        await _until(f"{act} to end", lambda: operation.done)
        assert operation.ok
        return [step.state for step in operation.steps]

    assert await carried_out("kill") == ["requested", "stopped", "started"]
    assert await carried_out("restart") == ["requested", "stopping", "stopped", "started"]
    assert await carried_out("pause") == ["requested", "paused"]
    assert await carried_out("resume") == ["requested", "resumed"]
    assert await carried_out("stop") == ["requested", "stopping", "stopped"]
    assert one.state() == ("stopped", "stopped by amy: because")
    assert await carried_out("start") == ["requested", "started"]


async def test_the_same_operation_is_begun_once(make: Make) -> None:
    one = make()
    await _until("readiness", lambda: one.is_ready)
    begun: list[Any] = []
    operations = Operations({one.slot: one}, begun.append, lambda: None)
    first = operations.request("kill", one.slot, "r", "amy", operation_id="x")
    assert operations.request("kill", one.slot, "r", "amy", operation_id="x") is first
    assert len(begun) == 1
    begun[0].close()


def _operating(one: Instance) -> tuple[Operations, list[asyncio.Task[None]]]:
    tasks: list[asyncio.Task[None]] = []
    return Operations({one.slot: one}, lambda work: tasks.append(asyncio.create_task(work)), lambda: None), tasks


async def test_one_operation_at_a_time_and_another_is_told_which(make: Make) -> None:
    one = make(FAKE_DRAIN_SECONDS="0.5")
    await _until("readiness", lambda: one.is_ready)
    operations, _ = _operating(one)
    restart = operations.request("restart", one.slot, "r", "amy")
    await _until("the drain", lambda: restart.state == "stopping")
    for act in ("kill", "stop", "pause"):
        with pytest.raises(ActRefusedError, match="restart, asked for by amy, goes on") as refused:
            operations.request(act, one.slot, "r", "bob")
        assert refused.value.refusal == "busy"
    current = operations.current(one.slot)
    assert current is restart
    await _until("its end", lambda: restart.done)
    assert restart.ok
    assert operations.current(one.slot) is None
    kill = operations.request("kill", one.slot, "r", "bob")
    await _until("its end", lambda: kill.done)
    assert kill.ok


async def test_a_stop_ends_an_operation_that_only_waits_for_readiness(make: Make) -> None:
    one = make(FAKE_READY="no")
    await _until("a process", lambda: one.process)
    operations, _ = _operating(one)
    kill = operations.request("kill", one.slot, "r", "amy")
    await _until("the wait", lambda: kill.awaits_start)
    with pytest.raises(ActRefusedError):
        operations.request("restart", one.slot, "r", "bob")
    stop = operations.request("stop", one.slot, "enough", "bob")
    await _until("both ends", lambda: kill.done and stop.done)
    assert (kill.state, kill.ok) == ("failed", False)
    assert (stop.state, stop.ok) == ("stopped", True)
    assert one.state()[0] == "stopped"


async def test_a_part_that_never_gets_ready_times_the_operation_out(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operating, "READY_SECONDS_MAX", 5.0)  # the fake needs time to say what it waits for
    one = make(FAKE_READY="no")
    await _until("a process", lambda: one.process)
    operations, _ = _operating(one)
    kill = operations.request("kill", one.slot, "r", "amy")
    await _until("its end", lambda: kill.done)
    assert [step.state for step in kill.steps] == ["requested", "stopped", "timed out"]
    assert "waiting for: a wonder" in kill.steps[-1].text


async def test_a_pause_says_who_asked_and_why_and_forgets_it_after(make: Make) -> None:
    one = make()
    await _until("readiness", lambda: one.is_ready)
    operations, _ = _operating(one)
    operations.request("pause", one.slot, "drill", "amy", 30.0)
    await _until("the pause", lambda: one.paused_until)
    told = one.describe()
    assert (told["state"], told["paused_by"], told["paused_reason"]) == ("paused", "amy", "drill")
    operations.request("resume", one.slot, "r", "amy")
    await _until("the end", lambda: one.paused_until is None)
    assert one.describe()["paused_by"] == ""


async def test_an_unknown_act_or_limit_is_refused(make: Make) -> None:
    one = make()
    await _until("readiness", lambda: one.is_ready)
    operations = Operations({one.slot: one}, lambda _: None, lambda: None)
    for act, slot, seconds in (("explode", one.slot, None), ("pause", one.slot, 0.0), ("kill", Slot("two"), None)):
        with pytest.raises(ActRefusedError):
            operations.request(act, slot, "r", "amy", seconds)


# ---- counting suites ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "code", "said"),
    [
        ('tests="5" failures="1" errors="1" skipped="1"', 1, "2 passed, 2 failed, 1 skipped"),
        ('tests="3" failures="0" errors="0" skipped="0"', 0, "3 passed, 0 failed"),
        ('tests="3" failures="0" errors="0" skipped="0"', 3, "3 passed, 1 failed"),
        (None, 4, "0 passed, 1 failed"),
    ],
)
def test_a_suites_tests_are_counted(tmp_path: Path, numbers: str | None, code: int, said: str) -> None:
    junit = tmp_path / "junit.xml"
    if numbers is not None:
        junit.write_text(f"<testsuites><testsuite {numbers}/></testsuites>")
    assert str(suites.counted(suites.Suite("x", (), tmp_path, junit), code)) == said


def test_a_lint_step_counts_as_one(tmp_path: Path) -> None:
    assert str(suites.counted(suites.Suite("lint", (), tmp_path), 0)) == "1 passed, 0 failed"
    assert str(suites.counted(suites.Suite("lint", (), tmp_path), 1)) == "0 passed, 1 failed"
