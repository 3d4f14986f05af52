"""The command line as its user meets it: wrong words, closed terminals, odd names, lines from strangers."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from system import System, poll_until

from atoll_ops import acts, buscli, console, logview, prepare, status
from atoll_ops.errors import OperationError
from atoll_ops.state import State, write_private


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("explode",), 'Unknown command "explode"'),
        (("up", "--bogus"), "--bogus"),
        (("up", "--ports", "x"), '--ports: unable to convert "x" into int'),
        (("kill",), "TARGET"),
        (("status", "extra"), "extra"),
        (("dlq", "show"), "./atoll dlq show --help"),
    ],
)
def test_wrong_usage_is_one_line_and_its_own_code(system: System, words: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "atoll_ops", *words], env=system.variables, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("atoll: ")
    assert said in done.stderr


def test_ctrl_c_while_the_command_line_loads_is_no_traceback(system: System) -> None:
    for delay in (0.05, 0.1, 0.2, 0.3):
        started = subprocess.Popen(
            system.command("status"), env=system.variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        time.sleep(delay)  # there is no condition to wait for: any moment must do
        started.send_signal(signal.SIGINT)
        _, errors = started.communicate(timeout=10)
        assert "/atoll_ops/" not in errors, errors  # a file of ours; before the first of them it is Python's own affair


def test_a_closed_terminal_drains_everything(system: System) -> None:
    terminal, child = pty.openpty()
    front = subprocess.Popen(
        system.command("up", "--ports", "0"), env=system.variables, start_new_session=True,
        stdin=child, stdout=child, stderr=child,
    )  # fmt: skip
    os.close(child)
    try:
        poll_until("the system to be up", lambda: "2 of 2 running" in system.run("status").output)
    finally:
        os.close(terminal)
        front.send_signal(signal.SIGHUP)
    front.wait(30)
    assert system.processes() == []


def test_a_reader_that_had_enough_leaves_no_part_behind(system: System) -> None:
    front = system.in_front()
    assert front.stdout is not None
    front.stdout.close()
    poll_until("the system to be up", lambda: "2 of 2 running" in system.run("status").output)
    front.send_signal(signal.SIGINT)
    front.wait(30)
    assert system.processes() == []


def test_under_nohup_a_closed_terminal_is_no_reason_to_end(system: System) -> None:
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *system.command("up", "--ports", "0")]
    front = subprocess.Popen(command, env=system.variables, start_new_session=True, stdout=subprocess.DEVNULL)
    poll_until("the system to be up", lambda: "2 of 2 running" in system.run("status").output)
    front.send_signal(signal.SIGHUP)
    assert "2 of 2 running" in system.run("status").output
    front.send_signal(signal.SIGTERM)
    assert front.wait(30) == 0


def test_after_down_the_status_is_one_line_and_not_a_list_of_failures(system: System) -> None:
    system.up()
    system.run("down")
    assert system.run("status").output == "nothing runs; ./atoll up starts it\n"


def test_a_refusal_names_its_field() -> None:
    answer = {"title": "Unprocessable", "detail": "Expected `float` <= 900.0", "field": "seconds"}
    assert acts._refusal(answer) == "seconds: Expected `float` <= 900.0"


def test_logs_of_a_part_are_not_those_of_one_whose_name_begins_alike(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.prepare()
    for name in ("order-1", "order-history-1"):
        (state.logs / f"{name}.log").write_text("")
    assert [path.stem for path in logview._paths(state, "order")] == ["order-1"]


def test_a_logged_word_cannot_command_the_terminal() -> None:
    line = json.dumps({"time": "2026-01-01T00:00:00.000Z", "event": "placed", "customer": "\x1b[2Jx"})
    assert "\x1b" not in logview.readable(line, "orders-1")[1]
    assert "\x1b" not in logview.readable("no json \x1b]0;x\x07", "orders-1")[1]


def test_the_tail_of_a_failed_part_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    line = json.dumps({"time": "2026-01-01T10:11:12.345Z", "level": "error", "event": "no disk"})
    console.event({"event": "failed", "name": "orders", "why": "x", "tail": [line], "log": "/l"})
    assert "10:11:12.345" in (said := capsys.readouterr().err)
    assert "{" not in said


def test_a_write_that_fails_leaves_no_secret_behind(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").mkdir()  # a folder cannot be replaced by a file
    with pytest.raises(OSError, match="credentials"):
        write_private(tmp_path / "credentials.json", b"secret")
    assert [path.name for path in tmp_path.iterdir()] == ["credentials.json"]


def test_a_moments_look_at_the_agents_lock_is_not_taken_for_an_agent(system: System) -> None:
    State(system.state).prepare()
    (system.state / "run" / "agent.lock").touch()
    with (system.state / "run" / "agent.lock").open() as looker:
        fcntl.flock(looker, fcntl.LOCK_SH)
        threading.Timer(0.2, fcntl.flock, (looker, fcntl.LOCK_UN)).start()
        os.close(prepare.own(State(system.state)))


def test_a_state_directory_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    system = System(tmp_path, tmp_path / "file")
    refused = system.up(check=False)
    assert refused.code == 1
    assert refused.output.startswith("atoll: Not a directory: ")
    assert refused.output.count("\n") == 1


def test_an_agent_that_hangs_is_not_said_to_be_gone(system: System) -> None:
    system.up()
    agent = system.snapshot()["agent"]["pid"]
    os.kill(agent, signal.SIGSTOP)
    try:
        seen = status.from_locks(State(system.state))
    finally:
        os.kill(agent, signal.SIGCONT)
    assert seen["agent"] == {"state": "unknown", "pid": agent}
    assert console.summary(seen).startswith(f"the agent (pid {agent}) does not answer, 2 running")


def test_an_up_that_installs_is_not_said_to_be_gone(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    lock = prepare.own(state)
    try:
        assert console.summary(status.from_locks(state)) == f"starting (pid {os.getpid()})"
    finally:
        os.close(lock)


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of control, which has two groups; `a b` has three dead letters on two pages."""
    asked: list[str] = []
    common: dict[str, str | int] = {"topic": "t.v1", "cause": "rejected", "error": "\x1bno"}
    letters = [{"seq": number, "subject": f"s{number}"} | common for number in (1, 2, 3)]

    def answer(_state: Path | None, _method: str, path: str) -> dict[str, object]:
        asked.append(path)
        if path == "/ops/groups":
            return {"groups": {"quiet": {}, "a b": {}}}
        if "group=a+b" not in path or "subject=s9" in path:
            return {"items": [], "next": None}
        if "subject=s3" in path:
            return {"items": letters[2:], "next": None}
        return {"items": letters[2:], "next": None} if "cursor=2" in path else {"items": letters[:2], "next": "2"}

    monkeypatch.setattr(buscli, "ask_control", answer)
    return asked


def test_dead_letters_of_a_group_are_listed_to_the_last(bus: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert buscli.dlq_list("a b") == 0
    assert bus == ["/ops/dlq?group=a+b&limit=200", "/ops/dlq?group=a+b&limit=200&cursor=2"]
    said = capsys.readouterr().out
    assert [line.split()[2] for line in said.splitlines()] == ["1", "2", "3"]
    assert "\x1b" not in said


def test_without_a_group_the_dead_letters_of_all_are_listed(bus: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    buscli.dlq_list()
    assert bus[0] == "/ops/groups"
    assert capsys.readouterr().out.count("a b") == 3
    buscli.dlq_list("quiet")
    assert capsys.readouterr().out == "no dead letters\n"


@pytest.mark.usefixtures("bus")
def test_one_subjects_dead_letters_are_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    buscli.dlq_show("a b", "s3")
    assert [letter["seq"] for letter in json.loads(capsys.readouterr().out)] == [3]
    with pytest.raises(OperationError, match="no dead letter of s9"):
        buscli.dlq_show("a b", "s9")
