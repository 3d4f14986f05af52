"""The agent as PID 1 of a container, and `setup`, which makes the keys that it finds there."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import cryptography.hazmat.primitives.asymmetric.ed25519  # before the fork: see _in_a_fork
import pytest
import zmq
from system import FAKE_PART, System, poll_until

from atoll_ops import container, mesh, reaper, setup
from atoll_ops.errors import MeshError, OperationError
from atoll_ops.launch import variables
from atoll_ops.slots import Slot
from atoll_ops.state import State

assert cryptography
assert zmq
OWNER = 10_001
REPOSITORY = Path(__file__).resolve().parents[2]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="container: only root can make a namespace or give files away")


@pytest.fixture
def inside(tmp_path: Path) -> State:
    """A container's /atoll, with keys for orders and for the broker."""
    state = State(tmp_path / "atoll")
    for folder in (state.run, state.data, state.keys / "orders", state.keys / "broker"):
        folder.mkdir(parents=True)
    for name in ("orders", "broker"):
        (state.keys / name / "curve.secret").write_text("x")
    return state


def _told(state: State, name: str) -> dict[str, str]:
    plan = container.plan(name, state, REPOSITORY / "mesh.toml")
    return variables(plan, plan.mesh.parts[name], Slot(name))


def test_a_part_in_a_container_finds_the_others_by_their_names(inside: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    told = _told(inside, "orders")
    assert (told["ATOLL_HOST"], told["ATOLL_PORT"]) == ("0.0.0.0", "8000")
    assert told["ATOLL_BUS"] == "tcp://broker:8086"
    assert told["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://jaeger:4318"
    assert told["ATOLL_DATA"] == str(inside.data / "orders-1")
    assert told["ATOLL_KEYS"] == str(inside.keys / "orders")
    assert told["ORDERS_SAGA_DEADLINE_SECONDS"] == "300", "settings come from the system page as on a host"
    assert _told(inside, "broker")["ATOLL_BUS"] == "tcp://0.0.0.0:8086", "the broker listens where others connect"


def test_what_is_missing_in_a_container_is_named(inside: State) -> None:
    page = REPOSITORY / "mesh.toml"
    with pytest.raises(MeshError, match=r"no \[part.nobody\]"):
        container.plan("nobody", inside, page)
    with pytest.raises(OperationError, match=r"keys/gateway: expected gateway's keys; .*setup"):
        container.plan("gateway", inside, page)
    inside.run.rmdir()
    with pytest.raises(OperationError, match="expected its run volume, writable"):
        container.plan("orders", inside, page)


def test_the_command_line_leaves_to_the_engine_what_is_the_engines(system: System) -> None:
    for verb, instead in (("up", "docker compose up"), ("down", "docker compose down"), ("reset", "down --volumes")):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "atoll_ops", verb], env=os.environ | {"ATOLL_STATE": str(system.state)},
            text=True, stderr=subprocess.PIPE, check=False, timeout=30,
        )  # fmt: skip
        assert done.returncode == 1
        assert instead in done.stderr


# ---- setup -------------------------------------------------------------------------------------------------------


def _setup(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "atoll_ops", "setup", "--mesh", str(REPOSITORY / "mesh.toml"), *words]
    variables = os.environ | {"ATOLL_STATE": str(root)}
    return subprocess.run(command, env=variables, text=True, capture_output=True, timeout=60, check=False)


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_setup_makes_every_parts_keys_once(tmp_path: Path) -> None:
    root = tmp_path / "atoll"
    root.mkdir()
    assert _setup(root).returncode == 0
    first = _contents(root)
    parts = mesh.read(REPOSITORY / "mesh.toml", REPOSITORY).parts
    for name in ("broker", "auth", "gateway", "control", "orders", "sales"):
        assert name in parts
        assert f"keys/{name}/curve.secret" in first
    known = json.loads(first["credentials.json"])
    assert known["gateway"] == "http://127.0.0.1:8080", "the address that compose publishes"
    again = _setup(root)
    assert again.returncode == 0
    assert "complete" in again.stdout
    assert _contents(root) == first, "a second setup changed something"


@AS_ROOT
def test_setup_gives_the_volumes_to_the_parts_user_and_works_as_that_user() -> None:
    root = Path("/tmp") / f"atoll-setup-{os.getpid()}"  # tmp_path lies in a folder that only root may enter
    try:
        (root / "keys" / "orders").mkdir(parents=True)  # as an engine makes mount points: root's, open to all
        assert _in_a_fork(root) == 0
        for path in (root, *root.rglob("*")):
            assert path.stat().st_uid == OWNER, path
            if path not in (root, root / "keys"):
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        before = _contents(root)
        assert _in_a_fork(root) == 0
        assert _contents(root) == before
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _in_a_fork(root: Path) -> int | None:
    """`setup --owner` in a process that may lose its rights; forked, since this Python may lie in root's own home."""
    child = multiprocessing.get_context("fork").Process(
        target=lambda: sys.exit(setup.run(State(root), REPOSITORY / "mesh.toml", OWNER))
    )
    child.start()
    child.join(60)
    return child.exitcode


# ---- PID 1 -------------------------------------------------------------------------------------------------------


def test_the_reaper_leaves_our_own_children_to_whoever_started_them() -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    poll_until("the child to be a zombie", lambda: Path(f"/proc/{child.pid}/stat").read_text().split()[2] == "Z")
    assert child.pid not in reaper.reap(lambda: [child.pid])
    assert child.wait() == 7
    other = os.fork()
    if other == 0:
        os._exit(0)
    poll_until("the orphan to be reaped", lambda: other in reaper.reap(list))
    assert not Path(f"/proc/{other}").exists()


#: A part that leaves an orphan behind every 20 ms, and says when it drains.
RESTLESS = """
import os, signal, subprocess, sys, threading, time
def litter():
    while True:
        subprocess.run(["sh", "-c", "sleep 0.01 & exit 0"])   # its child outlives it, and becomes PID 1's
        time.sleep(0.02)
threading.Thread(target=litter, daemon=True).start()
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import fake_part
fake_part.main()
"""


@AS_ROOT
@pytest.mark.skipif(shutil.which("unshare") is None, reason="container: no unshare (util-linux)")
def test_as_pid_1_the_agent_reaps_orphans_drains_on_sigterm_and_exits_0(tmp_path: Path) -> None:
    command = json.dumps([sys.executable, "-c", RESTLESS, str(FAKE_PART)])
    page = tmp_path / "mesh.toml"
    page.write_text(f'[part.one]\npath = "."\nport = 20\ncommand = {command}\n')
    agent = f"{sys.executable} -P -m atoll_ops agent --state {tmp_path / 'state'} --mesh {page}"
    watch = f"ip link set lo up; exec {agent}"  # a network of its own: the default ports are free there
    outer = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "sh", "-c", watch],
        env=os.environ | {"ATOLL_ROOT": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        pid = _child_of(outer.pid)
        log = tmp_path / "state" / "logs" / "agent.log"
        poll_until("the part to be ready", lambda: log.exists() and '"event": "up"' in log.read_text(), seconds=20)
        seen: list[int] = []

        def latest() -> int:
            seen.append(_zombies(pid))
            return _latest_pid(pid)

        poll_until("hundreds of processes to have come and gone", latest, lambda number: number > 300, seconds=30)
        assert max(seen) < 100, f"zombies pile up: {max(seen)} at once"
        os.kill(pid, signal.SIGTERM)
        assert outer.wait(20) == 0
        events = [json.loads(line) for line in log.read_text().splitlines()]
        assert [one["how"] for one in events if one["event"] == "stopped"] == ["drained"]
    finally:
        outer.kill()  # --kill-child: whatever is in the namespace ends with it
        outer.wait()


def _child_of(pid: int) -> int:
    def children() -> list[str]:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    return int(poll_until("unshare to fork", children)[0])


def _zombies(parent: int) -> int:
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                found += fields[0] == "Z" and int(fields[1]) == parent
    return found


def _latest_pid(pid: int) -> int:
    """The last pid that was given out in the namespace of `pid`: /proc/loadavg as seen from inside."""
    return int(Path("/proc", str(pid), "root", "proc", "loadavg").read_text().split()[-1])
