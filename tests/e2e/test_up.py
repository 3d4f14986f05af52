"""`./atoll up` and what refuses it: one clear line each, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from fleet import LAUNCHER, REPOSITORY, Fleet, fleet, http, processes_of
from measured import say
from polling import poll_until
from topology import PARTS

UP_SECONDS = 10
PROMISES = 3  # a promise in seconds fails at three times the promise


def test_a_second_up_of_an_installed_system_is_quick(state: Path) -> None:
    with fleet(state) as first:
        first.atoll("down")
        ran = first.up()
        say(f"second `./atoll up` (all installed): ready in {ran.seconds:.1f} s (promise {UP_SECONDS} s)")
        assert ran.seconds < UP_SECONDS * PROMISES
        for name in PARTS:
            assert name in ran.output, f"no line for {name}:\n{ran.output}"


def test_up_while_it_runs_is_one_clear_line(state: Path) -> None:
    with fleet(state) as running:
        before = {name: part["pid"] for name, part in running.status().items()}
        assert all(before.values())
        ran = running.atoll("up", "--detach", "--ports", "0", check=False)
        assert ran.code == 1
        assert "already" in ran.output
        assert len(ran.output.strip().splitlines()) == 1, ran.output
        assert {name: part["pid"] for name, part in running.status().items()} == before


def test_a_taken_port_is_named_with_its_flag_and_nothing_is_left(state: Path) -> None:
    base = _free_base()
    with socket.create_server(("127.0.0.1", base)):
        running = Fleet(state, REPOSITORY / "mesh.toml")
        ran = running.atoll("up", "--detach", "--ports", str(base), check=False)
        assert ran.code != 0
        assert str(base) in ran.output
        assert "--ports" in ran.output
        assert len(ran.output.strip().splitlines()) == 1, ran.output
        assert processes_of(state) == []
    for offset in (0, 6, 7, 20, 21, 22, 23, 24, 25, 26, 27):
        with socket.create_server(("127.0.0.1", base + offset)):
            pass


def test_ports_are_where_the_base_says(state: Path) -> None:
    base = _free_base()
    with fleet(state) as running:
        running.atoll("down")
        running.atoll("up", "--detach", "--ports", str(base))
        assert running.gateway == f"http://127.0.0.1:{base}"
        assert http("GET", f"http://127.0.0.1:{base}/readyz").status == 200
        assert running.seen()["control"]["port"] == base + 7
        assert http("GET", f"http://127.0.0.1:{base + 7}/ready").status == 200


def test_a_part_that_cannot_start_is_named_and_everything_stops_again(state: Path, tmp_path: Path) -> None:
    from fleet import write_mesh

    mesh = write_mesh(tmp_path / "mesh.toml", settings={"orders": {"ORDERS_SAGA_DEADLINE_SECONDS": "soon"}})
    running = Fleet(state, mesh)
    ran = running.atoll("up", "--detach", "--ports", "0", "--mesh", str(mesh), check=False)
    assert ran.code == 1
    assert "orders" in ran.output
    assert "ORDERS_SAGA_DEADLINE_SECONDS" in ran.output, ran.output
    assert processes_of(state) == []


def test_only_starts_only_these(state: Path) -> None:
    running = Fleet(state, REPOSITORY / "mesh.toml")
    try:
        running.up("--only", "broker,sales")
        up = {name for name, part in running.status().items() if part["pid"]}
        assert up - {"agent", "control"} == {"broker", "sales"}
    finally:
        running.atoll("down")
    assert processes_of(state) == []


def test_a_killed_agent_leaves_the_parts_running_and_the_next_up_adopts_them(state: Path) -> None:
    with fleet(state) as running:
        before = {name: part["pid"] for name, part in running.status().items() if name in PARTS}
        os.kill(running.pid("agent"), signal.SIGKILL)
        order_id = running.place("no-agent")
        running.wait_order(order_id, "confirmed")
        status = running.atoll("status")
        assert "agent" in status.output
        assert "./atoll up" in status.output, "status must say how to adopt"
        running.up()
        assert {name: part["pid"] for name, part in running.status().items() if name in PARTS} == before
        victim = running.signal("sales", signal.SIGKILL)
        running.wait_back("sales", victim)  # the new agent watches what it adopted
        assert {n: p["pid"] for n, p in running.status().items() if n in PARTS and n != "sales"} == {
            name: pid for name, pid in before.items() if name != "sales"
        }


def test_a_slot_is_never_filled_twice(state: Path) -> None:
    with fleet(state) as running:
        os.kill(running.pid("agent"), signal.SIGKILL)
        ups = [
            subprocess.Popen(
                [str(LAUNCHER), "up", "--detach", "--ports", "0", "--state", str(state)],
                cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for _ in range(3)
        ]  # fmt: skip
        outputs = [up.communicate(timeout=120)[0] for up in ups]
        assert [up.returncode for up in ups].count(0) == 1, outputs
        for name in PARTS:
            module = "atoll_ops" if name == "control" else f"atoll_{name}"
            mains = [
                process
                for process in running.processes()
                if module in process.cmdline() and (name != "control" or "control" in process.cmdline())
            ]
            assert len(mains) == 1, f"{name}: {mains}"


def test_a_stale_lock_and_socket_are_no_obstacle(state: Path) -> None:
    with fleet(state) as running:
        for name in [*PARTS, "agent"]:
            os.kill(running.pid(name), signal.SIGSTOP)  # none may restart another while all die
        for process in running.processes():
            process.kill()
        poll_until("all to be gone", lambda: processes_of(state), lambda left: not left, seconds=10)
        assert list((state / "run").iterdir()), "the dead left nothing in run/: this test proves nothing"
        running.up()
        assert http("GET", f"{running.gateway}/readyz").status == 200


def test_ctrl_c_drains_everything(state: Path) -> None:
    with subprocess.Popen(
        [str(LAUNCHER), "up", "--ports", "0", "--state", str(state)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as up:  # fmt: skip
        running = Fleet(state, REPOSITORY / "mesh.toml")
        try:
            # The gateway may be ready before auth is up and before orders has announced itself.
            poll_until("an order to be taken", lambda: running.place("before-ctrl-c"), seconds=90, every=0.2)
            ports = [part["port"] for part in running.status().values() if part["port"]]
            os.killpg(up.pid, signal.SIGINT)  # what a terminal does
            output, _ = up.communicate(timeout=60)
        finally:
            for process in processes_of(state):
                process.kill()
    assert up.returncode in (0, 130), output
    assert "stopped" in output, output
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_ctrl_c_while_starting_leaves_nothing(state: Path) -> None:
    with subprocess.Popen(
        [str(LAUNCHER), "up", "--ports", "0", "--state", str(state)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as up:  # fmt: skip
        poll_until("the first parts", lambda: len(processes_of(state)), lambda found: found >= 4, seconds=60)
        os.killpg(up.pid, signal.SIGINT)
        output, _ = up.communicate(timeout=60)
    left = processes_of(state)
    for process in left:
        process.kill()
    assert left == [], output


def test_reset_refuses_while_it_runs_and_then_removes_the_state(state: Path) -> None:
    with fleet(state) as running:
        ran = running.atoll("reset", "--yes", check=False)
        assert ran.code != 0
        assert "down" in ran.output
        running.atoll("down")
        running.atoll("reset", "--yes")
        assert not (state / "credentials.json").exists()
        assert not (state / "data").exists()


@pytest.mark.parametrize("verb", ["kill", "restart"])
def test_kill_and_restart_bring_another_process(shop: Fleet, verb: str) -> None:
    old = shop.pid("sales")
    began = time.monotonic()
    shop.atoll(verb, "sales")
    shop.wait_back("sales", old)
    say(f"{verb} sales: back after {time.monotonic() - began:.1f} s")


def test_stop_stays_down_until_start(shop: Fleet) -> None:
    shop.atoll("stop", "sales")
    part = shop.status()["sales"]
    assert (part["state"], part["pid"]) == ("stopped", None)
    shop.atoll("start", "sales")
    poll_until("sales to run", lambda: shop.status()["sales"]["state"], lambda state: state == "running", seconds=15)


def test_pause_holds_and_resume_lets_go(shop: Fleet) -> None:
    pid = shop.pid("payments")
    shop.atoll("pause", "payments")
    assert shop.status()["payments"]["state"] == "paused"
    order_id = shop.place("while-paused")
    assert shop.order_status(order_id) == "placed"
    shop.atoll("resume", "payments")
    shop.wait_order(order_id, "confirmed")
    assert shop.pid("payments") == pid, "a paused part must not be restarted by the liveness check"


def test_an_unknown_part_is_named_with_the_known_ones(shop: Fleet) -> None:
    ran = shop.atoll("kill", "paymnets", check=False)
    assert ran.code != 0
    assert "paymnets" in ran.output
    assert "payments" in ran.output


def test_logs_are_of_the_part_asked_for(shop: Fleet) -> None:
    ran = shop.atoll("logs", "orders")
    assert ran.output.strip()
    assert "orders" in ran.output


def _free_base() -> int:
    """A base port whose offsets are free, below the ephemeral range."""
    for base in range(21000, 32000, 100):
        try:
            for offset in range(30):
                socket.create_server(("127.0.0.1", base + offset)).close()
        except OSError:
            continue
        return base
    raise AssertionError("no free base port")
