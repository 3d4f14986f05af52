"""The process as the agent runs it: its environment, its health, its signals, its exit codes, and what it imports."""

import ast
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq
from support import PROJECT, Broker, event, frames, rows, until

TOPICS = sorted(path.name.removesuffix(".schema.json") for path in (PROJECT / "contract/consumes").glob("*.json"))


def environment(folder: Path, broker: Broker, port: int = 0) -> dict[str, str]:
    keys = folder / "keys"
    keys.mkdir(exist_ok=True)
    public, secret = zmq.curve_keypair()
    for name, key in (("curve.public", public), ("curve.secret", secret), ("broker.public", broker.public)):
        (keys / name).write_bytes(key + b"\n")
    own = {"SLOT": "journal/1", "HOST": "127.0.0.1", "PORT": str(port), "DATA": str(folder / "data"),
           "KEYS": str(keys), "BUS": broker.address}  # fmt: skip
    source = os.pathsep.join([str(PROJECT / "src"), os.environ.get("PYTHONPATH", "")])
    return {f"ATOLL_{name}": value for name, value in own.items()} | {"PATH": os.environ["PATH"], "PYTHONPATH": source}


class Process:
    """`python -m atoll_journal`, its log read line by line."""

    def __init__(self, environ: dict[str, str], *words: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "atoll_journal", *words], cwd=PROJECT, env=environ, stderr=subprocess.PIPE, text=True
        )
        assert self.popen.stderr is not None
        self.first = self.popen.stderr.readline()
        said = json.loads(self.first) if self.first.startswith("{") else {}
        self.port = said.get("port", 0)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def end(self) -> tuple[int, str]:
        try:
            _, rest = self.popen.communicate(timeout=15)
        finally:
            self.popen.kill()
        return self.popen.returncode, self.first + rest


@contextmanager
def process(folder: Path, broker: Broker) -> Iterator[Process]:
    running = Process(environment(folder, broker))
    try:
        yield running
    finally:
        running.popen.kill()
        running.popen.communicate()


def test_from_start_to_sigterm(broker: Broker, tmp_path: Path) -> None:
    with process(tmp_path, broker) as it:
        until("credit", lambda: broker.said("CREDIT"))
        assert broker.said("SUB")[0]["topics"] == TOPICS
        broker.deliver((1, event(1)))
        until("an ack", lambda: broker.acked() == [1])
        assert it.get("/live") == (200, '{"live": true}')
        status, body = it.get("/ready")
        assert (status, json.loads(body)) == (200, {"ready": True, "why": "", "degraded": []})
        metrics = dict(line.rsplit(" ", 1) for line in it.get("/metrics")[1].splitlines() if not line.startswith("#"))
        assert metrics['atoll_events_total{outcome="handled"}'] == "1"
        assert metrics["atoll_journal_events"] == "1"
        assert metrics["atoll_session_up"] == "1"
        began = time.monotonic()
        it.popen.send_signal(signal.SIGTERM)
        code, log = it.end()
        assert time.monotonic() - began < 10
    assert code == 0
    assert [message.command for _, message in broker.heard if message.command in ("DRAIN", "BYE")] == ["DRAIN", "BYE"]
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line["service"] for line in lines} == {"journal"}
    assert {"time", "level", "event", "slot"} <= set(lines[0])
    assert (tmp_path / "data" / "journal.db").stat().st_mode & 0o777 == 0o600


def test_killed_between_commit_and_ack_it_keeps_the_event_once(broker: Broker, tmp_path: Path) -> None:
    broker.on["ACK"] = lambda _: []
    with process(tmp_path, broker) as it:
        until("credit", lambda: broker.said("CREDIT"))
        broker.deliver((1, event(1)))
        until("it to be stored", lambda: (tmp_path / "data/journal.db").exists() and len(rows(tmp_path / "data")) == 1)
        it.popen.kill()
    with process(tmp_path, broker):
        until("another session", lambda: len(broker.said("SUB")) == 2)
        broker.deliver((1, event(1)), fence=2 << 32)
        until("the duplicate", lambda: broker.acked("duplicate") == [1])
    assert len(rows(tmp_path / "data")) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk takes root: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path) -> None:
    """Writes until there is no room."""
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_on_a_full_disk_it_acknowledges_nothing_and_goes_on_when_there_is_room(
    broker: Broker, small_disk: Path
) -> None:
    """A real one: ENOSPC from the file system."""
    filler = small_disk / "filler"
    raw = event(1, padding="x" * 100_000)
    deliver = [*frames("MSG", group="journal", messages=[[1, 1, 2000, 1]]), b"[" + raw + b"]"]
    broker.on["SUB"] = lambda _: [frames("SUBOK", group="journal", lease_ms=2000), deliver]
    full = threading.Event()
    broker.on["HELLO"] = lambda _: [broker.welcome()] if full.is_set() else []
    with process(small_disk, broker) as it:
        with pytest.raises(OSError, match="No space left"):
            fill(filler)
        full.set()
        until("several tries", lambda: len(broker.said("BYE")) >= 2, seconds=30)
        assert not broker.said("ACK")
        body = json.loads(it.get("/ready")[1])
        assert any("nothing is acknowledged until there is room" in why for why in body["degraded"]), body
        assert it.popen.poll() is None
        broker.on["HELLO"] = lambda _: [broker.welcome()]
        filler.unlink()
        until("an ack", lambda: broker.acked() == [1], seconds=30)
        assert json.loads(it.get("/ready")[1])["degraded"] == []
        assert rows(small_disk / "data")[0].event == raw


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ATOLL_SLOT", "journal", "ATOLL_SLOT is 'journal': expected name/instance"),
        ("ATOLL_HOST", "", "ATOLL_HOST is not set"),
        ("ATOLL_PORT", "many", "ATOLL_PORT is 'many': expected a port"),
        ("ATOLL_PORT", "65536", "ATOLL_PORT is '65536': expected a port"),
        ("ATOLL_DATA", "/dev/null/x", "ATOLL_DATA is '/dev/null/x': expected a directory"),
        ("ATOLL_KEYS", "/nowhere", "ATOLL_KEYS: expected a readable file curve.secret"),
        ("ATOLL_BUS", "localhost:1", "ATOLL_BUS is 'localhost:1': expected the broker's address"),
        ("ATOLL_LOG_LEVEL", "loud", "ATOLL_LOG_LEVEL is 'loud': expected one of debug"),
    ],
)
def test_a_wrong_environment_is_one_line_and_64(
    broker: Broker, tmp_path: Path, name: str, value: str, said: str
) -> None:
    code, log = Process(environment(tmp_path, broker) | {name: value}).end()
    assert (code, log.count("\n")) == (64, 1), log
    assert log.startswith(said)


def test_a_taken_port_is_69(broker: Broker, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, log = Process(environment(tmp_path, broker, port)).end()
    assert (code, log) == (69, f"port {port} is taken: change ATOLL_PORT\n")


def test_a_spoilt_database_is_74_and_one_that_is_open_75(broker: Broker, tmp_path: Path) -> None:
    with process(tmp_path, broker):
        assert Process(environment(tmp_path, broker)).end()[0] == 75
    for path in (tmp_path / "data").glob("journal.db-*"):  # what a kill leaves: SQLite would mend the file from it
        path.unlink()
    (tmp_path / "data" / "journal.db").write_bytes(b"this is no database" * 500)
    code, log = Process(environment(tmp_path, broker)).end()
    assert (code, "journal.db: file is not a database" in log) == (74, True), log


def test_the_commands_read_beside_the_running_journal(broker: Broker, tmp_path: Path) -> None:
    with process(tmp_path, broker):
        until("credit", lambda: broker.said("CREDIT"))
        broker.deliver((1, event(1)), (2, event(2, "o-2")))
        until("acks", lambda: broker.acked() == [1, 2])
        environ = environment(tmp_path, broker)

        def run(*words: str) -> str:
            return subprocess.check_output(
                [sys.executable, "-m", "atoll_journal", *words], cwd=PROJECT, env=environ, text=True
            )

        [line] = run("read", "--subject", "o-2").splitlines()
        assert json.loads(line)["event"] == json.loads(event(2, "o-2"))
        assert run("verify").startswith("whole: 2 events")
        assert len(run("read", "--data", str(tmp_path / "data")).splitlines()) == 2


def test_a_reader_that_has_seen_enough_is_no_error(broker: Broker, tmp_path: Path) -> None:
    with process(tmp_path, broker):
        until("credit", lambda: broker.said("CREDIT"))
        for first in range(1, 3000, 100):
            broker.deliver(*((seq, event(seq, f"o-{seq}")) for seq in range(first, first + 100)))
        until("acks", lambda: len(broker.acked()) == 3000, seconds=30)
    read = subprocess.Popen(
        [sys.executable, "-m", "atoll_journal", "read"], cwd=PROJECT, env=environment(tmp_path, broker), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert read.stdout is not None
    assert read.stderr is not None
    assert read.stdout.readline()
    read.stdout.close()
    assert (read.stderr.read(), read.wait(timeout=10)) == ("", 0)


def test_odd_http_is_answered_or_left(broker: Broker, tmp_path: Path) -> None:
    with process(tmp_path, broker) as it:
        assert it.get("/nothing")[0] == 404
        for sent, answered in (
            (b"POST /live HTTP/1.1\r\n\r\n", b"405"),
            (b"\x00\r\n\r\n", b"400"),
            (b"x" * 20_000, b""),
        ):
            with socket.create_connection(("127.0.0.1", it.port), timeout=5) as client:
                client.sendall(sent)
                try:
                    status = client.recv(1000)[9:12]
                except ConnectionResetError:
                    status = b""
                assert status == answered
        assert it.get("/live")[0] == 200


def test_who_connects_and_says_nothing_does_not_silence_it(broker: Broker, tmp_path: Path) -> None:
    """The agent takes silence for death."""
    with process(tmp_path, broker) as it, ExitStack() as idle:
        for _ in range(3 * 64):
            idle.enter_context(socket.create_connection(("127.0.0.1", it.port), timeout=5))
        for path in ("/live", "/ready", "/metrics"):
            began = time.monotonic()
            assert it.get(path)[0] == 200
            assert time.monotonic() - began < 2


def test_it_imports_pyzmq_and_the_standard_library_alone() -> None:
    known = set(sys.stdlib_module_names) | {"zmq", "atoll_journal", "__future__"}
    for path in sorted((PROJECT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= known, f"{path.name}: {names}"


def test_it_is_installed_with_pyzmq_alone() -> None:
    pins = re.findall(r"^([a-z0-9-]+)==\S+(.*)$", (PROJECT / "pins.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for name, condition in pins if "implementation_name == 'pypy'" not in condition} == {"pyzmq"}
    assert (PROJECT / "local.txt").read_text(encoding="utf-8").split() == ["."]


def test_the_schemas_name_their_topic_and_ask_for_nothing() -> None:
    assert len(TOPICS) > 5
    for topic in TOPICS:
        schema = json.loads((PROJECT / f"contract/consumes/{topic}.schema.json").read_text(encoding="utf-8"))
        assert schema["title"] == topic
        assert "required" not in schema
        assert "properties" not in schema
