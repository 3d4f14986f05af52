"""The promises of operating: one process a slot, adoption, restarts, and nothing left behind."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
from system import System, poll_until

from atoll_ops import mesh, ports, sockets
from atoll_ops.slots import Slot, SlotFiles
from atoll_ops.state import State


def test_up_starts_every_part_and_says_so(system: System) -> None:
    said = system.up().output
    assert "one            ready" in said
    assert "two            ready" in said
    assert "jaeger         not started; spans go to http://127.0.0.1:" in said
    assert {part["state"] for part in system.snapshot()["parts"]} == {"running"}
    assert "2 of 2 running; agent pid" in system.run("status").output


def test_down_leaves_no_process_and_no_port(system: System) -> None:
    system.up()
    used = [part["port"] for part in system.snapshot()["parts"]]
    said = system.run("down").output
    assert "drained" in said
    assert system.processes() == []
    assert all(ports.can_bind(port) for port in used)
    assert "nothing runs" in system.run("status").output


def test_ctrl_c_drains_in_reverse_order(system: System) -> None:
    front = system.in_front()
    poll_until("the system to be up", lambda: "2 of 2 running" in system.run("status").output)
    front.send_signal(signal.SIGINT)
    said, _ = front.communicate(timeout=30)
    assert front.returncode == 0, said
    drained = [line.split()[0] for line in said.splitlines() if "drained" in line]
    assert drained == ["one", "two"]  # the service first, then the core
    assert system.processes() == []


def test_ctrl_c_while_it_comes_up_leaves_nothing(system: System) -> None:
    system.write_mesh(FAKE_START_SECONDS="30")
    front = system.in_front()
    poll_until("a part to be started", lambda: any(map(_fills_a_slot, system.processes())))
    front.send_signal(signal.SIGINT)
    front.communicate(timeout=30)
    assert system.processes() == []


def _fills_a_slot(process: psutil.Process) -> bool:
    try:
        return "ATOLL_SLOT" in process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended since it was listed
        return False


def test_a_killed_part_is_started_again_at_once(system: System) -> None:
    system.up()
    old = system.part("one")["pid"]
    killed = time.time()
    os.killpg(old, signal.SIGKILL)
    part = system.wait_running("one", not_pid=old)
    # By the new process's own beginning: each look at the system is a process too, which takes its time.
    assert psutil.Process(part["pid"]).create_time() - killed < 3
    assert part["restarts"] == 1
    assert part["exits"][-1]["meaning"] == "killed"


def test_a_second_up_touches_nothing(system: System) -> None:
    system.up()
    before = {part["name"]: part["pid"] for part in system.snapshot()["parts"]}
    second = system.up(check=False)
    assert second.code == 1
    assert second.output.count("\n") == 1
    assert "already up" in second.output
    assert {part["name"]: part["pid"] for part in system.snapshot()["parts"]} == before


def test_parts_outlive_a_killed_agent_and_are_adopted(system: System) -> None:
    system.up()
    before = {part["name"]: part["pid"] for part in system.snapshot()["parts"]}
    system.kill_agent()
    gone = system.run("status")
    assert "agent gone, 2 running; ./atoll up adopts them" in gone.output
    said = system.up().output
    assert "cleaned up" in said
    after = {part["name"]: part["pid"] for part in system.snapshot()["parts"]}
    assert after == before
    assert len([one for one in system.processes() if "fake_part" in " ".join(one.cmdline())]) == 2


def test_an_adopted_part_is_supervised_like_any_other(system: System) -> None:
    system.up()
    system.kill_agent()
    system.up()
    old = system.part("one")["pid"]
    os.killpg(old, signal.SIGKILL)
    system.wait_running("one", not_pid=old)


def test_a_part_that_died_without_an_agent_is_started_by_the_next(system: System) -> None:
    system.up()
    system.kill_agent()
    old = system.part("one")["pid"]
    os.killpg(old, signal.SIGKILL)
    poll_until("its lock to be free", lambda: system.part("one")["pid"] is None)
    said = system.up().output
    assert "1 records of ended processes" in said
    assert system.part("one")["state"] == "running"


def test_a_lost_record_does_not_make_a_second_process(system: System) -> None:
    system.up()
    old = system.part("one")["pid"]
    system.kill_agent()
    (system.state / "run" / "one-1.json").unlink()
    assert system.part("one")["state"] == "unknown"
    system.up()
    assert system.part("one")["pid"] != old  # nobody can vouch for it: it is ended, and another one started
    assert not psutil.pid_exists(old) or psutil.Process(old).status() == psutil.STATUS_ZOMBIE


def test_down_works_without_an_agent(system: System) -> None:
    system.up()
    system.kill_agent()
    assert "ending 2 parts" in system.run("down").output
    assert system.processes() == []


def test_a_taken_port_is_named_and_nothing_is_left(system: System) -> None:
    # Not one of the kernel's: it gives those to connections, and the part's neighbours would be taken too.
    base = ports.choose(mesh.read(system.root / "mesh.toml", system.root), 0, None).base
    number = base + 20
    with socket.create_server((ports.HOST, number)):
        refused = system.run("up", "--detach", "--ports", str(base), check=False)
    assert refused.code == 1
    assert f"port {number} (one) is taken by pid {os.getpid()}" in refused.output
    assert "--ports" in refused.output
    assert system.processes() == []
    assert ports.can_bind(number + 1)


def test_a_part_that_refuses_its_configuration_fails_the_start_at_once(system: System) -> None:
    system.write_mesh(FAKE_EXIT="64")
    failed = system.up(check=False)
    assert failed.code == 1
    assert "one did not come up: exited 64 (configuration error)" in failed.output
    assert "fake: this was asked for" in failed.output
    assert "one-1.log" in failed.output
    assert system.processes() == []


def test_a_failed_start_lets_go_of_what_ran_before(system: System) -> None:
    system.up("--only", "two")
    two = system.part("two")["pid"]
    system.kill_agent()
    system.write_mesh(FAKE_EXIT="64")
    assert system.up(check=False).code == 1
    assert system.part("two")["pid"] == two


def test_a_failed_start_leaves_no_next_try_behind(system: System) -> None:
    """The part that failed is tried again at once, and once more while the others drain: that one must end too."""
    system.write_mesh(FAKE_EXIT="64", FAKE_EXIT_TIMES="2", FAKE_EXIT_AFTER="0.5")
    with (system.root / "mesh.toml").open("a") as page:
        page.write('\n[part.two.settings]\nFAKE_DRAIN_SECONDS = "2"\n')
    assert system.up(check=False).code == 1
    assert system.processes() == []


def test_a_restart_under_way_starts_nothing_that_has_drained(system: System) -> None:
    system.write_mesh(FAKE_DRAIN_SECONDS="6")
    system.up()
    restart = subprocess.Popen(system.command("restart", "one"), env=system.variables)
    poll_until("its drain", lambda: system.part("one")["why"], lambda why: why == "draining")
    system.run("down")
    assert system.processes() == []
    restart.wait(10)


def test_a_paused_control_can_be_operated(tmp_path: Path) -> None:
    system = System(tmp_path, tmp_path / "state")
    page = (tmp_path / "mesh.toml").read_text().replace("part.one", "part.control")
    (tmp_path / "mesh.toml").write_text(page)
    system.up()
    listener = sockets.listen(State(system.state).control_socket)  # it takes what comes, and answers nothing
    try:
        os.kill(system.part("control")["pid"], signal.SIGSTOP)
        poll_until("it to show as paused", lambda: system.part("control")["state"], lambda state: state == "paused")
        assert "resumed" in system.run("resume", "control").output
    finally:
        listener.close()
        system.run("down")


def test_only_starts_what_it_names(system: System) -> None:
    system.up("--only", "two")
    assert [part["name"] for part in system.snapshot()["parts"]] == ["two"]
    assert len([one for one in system.processes() if "fake_part" in " ".join(one.cmdline())]) == 1


def test_stopped_stays_stopped_also_under_the_next_agent(system: System) -> None:
    system.up()
    system.run("stop", "one")
    assert system.part("one")["state"] == "stopped"
    system.kill_agent()
    assert "`./atoll start one`" in system.up().output
    assert system.part("one")["state"] == "stopped"
    system.run("start", "one")
    assert system.part("one")["state"] == "running"


def test_kill_is_a_fault_and_restart_a_wish(system: System) -> None:
    system.up()
    first = system.part("one")["pid"]
    assert "killed" in system.run("kill", "one/1").output
    second = system.part("one")["pid"]
    assert second != first
    assert "stopped (drained)" in system.run("restart", "one").output
    third = system.part("one")
    assert third["pid"] != second
    assert third["restarts"] == 2


def test_a_paused_part_is_left_alone_and_goes_on(system: System) -> None:
    system.up()
    pid = system.part("one")["pid"]
    system.run("pause", "one")
    assert psutil.Process(pid).status() == psutil.STATUS_STOPPED
    assert system.part("one")["state"] == "paused"
    system.run("resume", "one")
    assert system.wait_running("one")["pid"] == pid


def test_a_pause_ends_by_itself_even_if_its_agent_does_not_see_it(system: System) -> None:
    system.up()
    pid = system.part("one")["pid"]
    system.run("pause", "one", "--seconds", "6")
    system.kill_agent()
    part = system.part("one")
    assert part["state"] == "paused"
    poll_until("the pause to run out with nobody there to see it", lambda: time.time() > part["paused_until"])
    system.up()
    assert system.wait_running("one")["pid"] == pid


def test_a_stop_by_a_foreign_signal_is_shown_as_a_pause(system: System) -> None:
    system.up()
    pid = system.part("one")["pid"]
    os.killpg(pid, signal.SIGSTOP)
    poll_until("it to show as paused", lambda: system.part("one")["state"], lambda state: state == "paused")
    system.run("resume", "one")
    assert system.wait_running("one")["pid"] == pid


def test_a_paused_part_can_be_stopped(system: System) -> None:
    system.up()
    system.run("pause", "one")
    assert "stopped (drained)" in system.run("stop", "one").output


def test_acts_that_make_no_sense_are_refused(system: System) -> None:
    system.up()
    assert "there is no three/1" in system.run("kill", "three", check=False).output
    assert "expected NAME or NAME/N" in system.run("kill", "one/x", check=False).output
    system.run("stop", "one")
    refused = system.run("pause", "one", check=False)
    assert refused.code == 1
    assert "has no process to pause" in refused.output


def test_a_deep_state_directory_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60) / "with space"
    system = System(tmp_path, deep)
    assert len(str(deep / "run" / "agent.sock")) > 108
    system.up()
    try:
        assert system.part("one")["state"] == "running"
        system.run("restart", "one")
    finally:
        system.run("down")


def test_reset_refuses_while_anything_runs_and_asks_before(system: System) -> None:
    system.up()
    assert "down` first" in system.run("reset", "--yes", check=False).output
    system.kill_agent()
    assert "still run" in system.run("reset", "--yes", check=False).output
    system.run("down")
    (system.state / "env").mkdir()  # as in the default state directory, where environments live too
    assert "nothing was removed" in _reset_at_a_terminal(system, "no\n")
    assert (system.state / "keys").is_dir()
    system.run("reset")  # no terminal, nobody to ask
    assert [path.name for path in system.state.iterdir()] == ["env"]


def _reset_at_a_terminal(system: System, typed: str) -> str:
    terminal, child = pty.openpty()
    done = subprocess.Popen(
        system.command("reset"), env=system.variables, stdin=child, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    os.write(terminal, typed.encode())
    said, _ = done.communicate(timeout=20)
    os.close(child)
    os.close(terminal)
    return said


def test_ports_once_chosen_are_kept(system: System) -> None:
    system.up()
    first = {part["name"]: part["port"] for part in system.snapshot()["parts"]}
    system.run("down")
    system.up()
    assert {part["name"]: part["port"] for part in system.snapshot()["parts"]} == first


def test_other_ports_are_refused_while_parts_run(system: System) -> None:
    system.up()
    system.kill_agent()
    refused = system.run("up", "--detach", "--ports", "23000", check=False)
    assert refused.code == 1
    assert "still run with ports from" in refused.output


def test_logs_are_readable(system: System) -> None:
    system.up()
    assert "fake is up" in system.run("logs", "one").output
    assert "no logs of nobody" in system.run("logs", "nobody", check=False).output


def test_the_lock_lives_as_long_as_the_process(system: System) -> None:
    system.up()
    files = SlotFiles(State(system.state), Slot("one"))
    assert files.filled()
    assert files.acquire() is None
    record = files.living()
    assert record is not None
    assert files.holders() == [record.pid]
    system.run("stop", "one")
    assert not files.filled()


def test_up_waits_for_no_tool_and_ends_it_last(system: System) -> None:
    system.write_mesh(tool={"FAKE_READY": "no"})
    said = system.up().output
    assert "two            ready" in said
    assert system.part("tool")["kind"] == "tool"
    poll_until("the tool to answer", lambda: system.part("tool")["why"] == "waiting for: a wonder")
    drained = [line.split()[0] for line in system.run("down").output.splitlines() if "drained" in line]
    assert drained == ["one", "two", "tool"]


def test_up_without_a_part_leaves_it_out(system: System) -> None:
    system.write_mesh(tool={})
    system.up("--without", "tool")
    assert [part["name"] for part in system.snapshot()["parts"]] == ["one", "two"]
    system.run("down")
    refused = system.up("--without", "tol", check=False)
    assert refused.code == 2
    assert "--without: mesh.toml has no part 'tol' (it has: one, two, tool)" in refused.output
