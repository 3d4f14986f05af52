"""A whole Atoll of its own, for a test: real processes on free ports in a state directory that the test made.

Everything goes through what a user has: the `./atoll` command, HTTP through the gateway, signals. Where a test must
see deeper (how many effects a database holds), it opens that service's database read-only. Questions that are asked
again and again while something else is measured go to the agent's socket, which costs no process.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from polling import poll_until
from topology import LOOKERS

REPOSITORY = Path(__file__).resolve().parent.parent
LAUNCHER = REPOSITORY / "atoll"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: status, headers (lower case names), body parsed if it is JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any
    raw: bytes

    @property
    def code(self) -> str:
        """The problem's code, or "" when the body is none."""
        return str(self.body.get("code", "")) if isinstance(self.body, dict) else ""


def http(
    method: str,
    url: str,
    *,
    body: object = None,
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    seconds: float = 15,
) -> Answer:
    """One HTTP call. A status is an answer, never an exception; a refused or broken connection is an OSError."""
    sent = dict(headers or {})
    if body is not None:
        data = json.dumps(body).encode()
    if data is not None:
        sent.setdefault("Content-Type", "application/json")
    request = urllib.request.Request(url, data=data, headers=sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:
            return _answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, error.headers, error.read())


def _answer(status: int, headers: Any, raw: bytes) -> Answer:
    kind = headers.get("Content-Type", "")
    parsed = json.loads(raw) if raw and "json" in kind else None
    return Answer(status, {name.lower(): value for name, value in headers.items()}, parsed, raw)


@dataclass(frozen=True)
class Ran:
    """What a command did: exit code, output (stdout and stderr together), seconds."""

    code: int
    output: str
    seconds: float


class Fleet:
    """One running system. Create it by `fleet(...)`, which also ends it."""

    def __init__(self, state: Path, mesh: Path, *, whole: bool = False) -> None:
        self.state = state
        self.mesh = mesh
        self.whole = whole
        self._token = ""
        self._token_until = 0.0

    # ---- the command -----------------------------------------------------------------------------------------

    def atoll(self, *words: str, seconds: float = 120, check: bool = True) -> Ran:
        """Run `./atoll VERB … --state …`; with `check`, a non-zero exit is an AssertionError with its output."""
        began = time.monotonic()
        done = subprocess.run(
            [str(LAUNCHER), *words, "--state", str(self.state)],
            cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, timeout=seconds, check=False,
        )  # fmt: skip
        ran = Ran(done.returncode, done.stdout, time.monotonic() - began)
        assert not check or ran.code == 0, f"./atoll {' '.join(words)} exited {ran.code}:\n{ran.output}\n{self.tails()}"
        return ran

    def up(self, *words: str, seconds: float = 180) -> Ran:
        """`./atoll up --detach` on the ports that the state has, or free ones.

        Unless `whole`, without the parts to look through: they cost memory and time, and nothing else depends on them.
        """
        without = [] if self.whole else [name for name in LOOKERS if name in parts_of(self.mesh)]
        less = ("--without", ",".join(without)) if without else ()
        return self.atoll("up", "--detach", "--ports", "0", "--mesh", str(self.mesh), *less, *words, seconds=seconds)

    def status(self) -> dict[str, dict[str, Any]]:
        """`status --json`: name -> its (first) part, and `agent`, which is none but has a pid and a state too."""
        done = subprocess.run(
            [str(LAUNCHER), "status", "--json", "--state", str(self.state)],
            cwd=REPOSITORY, text=True, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        found = json.loads(done.stdout)
        return {part["name"]: part for part in found["parts"]} | {"agent": found["agent"] | {"port": None}}

    def seen(self) -> dict[str, dict[str, Any]]:
        """As `status`, but of the agent itself, in milliseconds; by the command where no agent answers."""
        try:
            directory = os.open(self.state / "run", os.O_RDONLY | os.O_DIRECTORY)
            try:
                with socket.socket(socket.AF_UNIX) as line, line.makefile("rwb") as file:
                    line.settimeout(5)
                    line.connect(f"/proc/self/fd/{directory}/agent.sock")  # an address has 107 bytes at most
                    file.write(b'{"do": "snapshot"}\n')
                    file.flush()
                    found = json.loads(file.readline())
            finally:
                os.close(directory)
        except (OSError, ValueError):
            return self.status()
        return {part["name"]: part for part in found["parts"]} | {"agent": found["agent"] | {"port": None}}

    def pid(self, name: str) -> int:
        """The process that fills the slot now. Raises AssertionError if none does."""
        pid = self.seen()[name]["pid"]
        assert pid, f"{name} has no process"
        return int(pid)

    def assert_stays(self, name: str, pid: int, seconds: float = 1.0) -> None:
        """It is the same process all the while: what was asked for and should not have been done would show by then."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            assert self.seen()[name]["pid"] == pid, f"{name} is another process, or none"
            time.sleep(0.05)

    def signal(self, name: str, number: signal.Signals, pid: int | None = None) -> int:
        """Send a signal to a part's process group, the way an operating system would; its pid."""
        pid = pid or self.pid(name)
        os.killpg(os.getpgid(pid), number)
        return pid

    def wait_back(self, name: str, old_pid: int, seconds: float = 15) -> int:
        """Wait until the slot is filled by another process and ready; its pid."""
        part = poll_until(
            f"{name} to be back after pid {old_pid}",
            lambda: self.seen()[name],
            lambda seen: seen["pid"] and seen["pid"] != old_pid and seen["state"] in ("running", "degraded"),
            seconds=seconds,
        )
        return int(part["pid"])

    def processes(self) -> list[psutil.Process]:
        """Every process that carries this state directory in its environment or command line."""
        return processes_of(self.state)

    def pss_bytes(self) -> int:
        """Σ PSS of the fleet: memory with shared pages divided among their users."""
        total = 0
        for process in self.processes():
            try:
                total += process.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return total

    # ---- HTTP ------------------------------------------------------------------------------------------------

    @property
    def credentials(self) -> dict[str, str]:
        """`credentials.json`."""
        found: dict[str, str] = json.loads((self.state / "credentials.json").read_text())
        return found

    @property
    def gateway(self) -> str:
        """Base URL of the gateway."""
        return self.credentials["gateway"].rstrip("/")

    def token(self, scope: str | None = None, *, fresh: bool = False, seconds: float = 60) -> str:
        """An access token of the demo client; cached for `seconds` when no scope is named (it lives for ten minutes).

        Who is about to end auth asks for a fresh one, for as long as auth will be away: nobody can renew it then.
        """
        if scope is None and not fresh and time.monotonic() < self._token_until:
            return self._token
        asked = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
        token = self.grant(asked).body["access_token"]
        if scope is None:
            self._token, self._token_until = token, time.monotonic() + seconds
        return str(token)

    def grant(self, form: dict[str, str]) -> Answer:
        """`POST /auth/token` with the demo client's credentials beside `form`."""
        known = self.credentials
        sent = {"client_id": known["client_id"], "client_secret": known["client_secret"]} | form
        answer = http(
            "POST",
            f"{self.gateway}/auth/token",
            data=urllib.parse.urlencode(sent).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert answer.status == 200, f"token refused: {answer.status} {answer.raw!r}"
        return answer

    def call(self, method: str, path: str, body: object = None, *, token: str | None = None, **more: Any) -> Answer:
        """One call through the gateway with a token (default: the demo client's)."""
        headers = {"Authorization": f"Bearer {token if token is not None else self.token()}"} | more.pop("headers", {})
        return http(method, self.gateway + path, body=body, headers=headers, **more)

    def place(
        self, invoice: str, *, sku: str = "85123A", quantity: int = 6, price: str = "2.55", lines: int = 1
    ) -> str:
        """Place a small order; its id. Raises AssertionError unless it is accepted."""
        answer = self.call("POST", "/orders", order(invoice, sku=sku, quantity=quantity, price=price, lines=lines))
        assert answer.status == 202, f"order {invoice}: {answer.status} {answer.raw!r}"
        return str(answer.headers["location"].rsplit("/", 1)[1])

    def order_status(self, order_id: str) -> str:
        """`status` of an order, through the gateway."""
        answer = self.call("GET", f"/orders/{order_id}")
        assert answer.status == 200, answer
        return str(answer.body["status"])

    def wait_order(self, order_id: str, status: str, seconds: float = 20) -> Answer:
        """Wait until an order has a status; the answer that showed it."""
        return poll_until(
            f"order {order_id} to be {status}",
            lambda: self.call("GET", f"/orders/{order_id}"),
            lambda answer: answer.status == 200 and answer.body["status"] == status,
            seconds=seconds,
        )

    # ---- inside ----------------------------------------------------------------------------------------------

    def port(self, name: str) -> int:
        """The HTTP port of a part."""
        return int(json.loads((self.state / "system.json").read_text())["ports"]["parts"][name])

    @property
    def bus(self) -> str:
        """The broker's ZeroMQ endpoint."""
        ports = json.loads((self.state / "system.json").read_text())["ports"]
        return f"tcp://127.0.0.1:{ports['bus']}"

    def metrics(self, name: str, port: int | None = None) -> dict[str, float]:
        """A part's `/metrics`: sample with labels as printed -> value."""
        answer = http("GET", f"http://127.0.0.1:{port or self.port(name)}/metrics", seconds=3)
        found = {}
        for line in answer.raw.decode().splitlines():
            if line and not line.startswith("#"):
                sample, value = line.rsplit(" ", 1)
                found[sample] = float(value)
        return found

    def lags(self) -> dict[str, float]:
        """Events not yet handled, by group (and dead letters beside them as `GROUP dead`)."""
        seen = self.metrics("broker")
        lags = _lags(seen)
        dead = {
            _label(sample) + " dead": value
            for sample, value in seen.items()
            if sample.startswith("atoll_group_dead_letters{") and value
        }
        return lags | dead

    def wait_settled(self, seconds: float = 60) -> None:
        """Wait until nothing is on its way: no lag, no outbox row, no mail to file, and nothing published in between.

        The order of looking matters. One scrape sees all groups at one moment; what is under way then can only lie in
        an outbox. If the outboxes are empty afterwards and the log has not grown meanwhile, there was nothing.
        """

        def under_way() -> dict[str, float]:
            before = self.metrics("broker")
            found = {f"{name} outbox": float(self.outbox(name)) for name in ("orders", "inventory", "payments")}
            found["mails to file"] = float(self.mails_to_file())
            found |= _lags(before)
            after = self.metrics("broker")
            found["published"] = after["atoll_events_total"] - before["atoll_events_total"]
            return {name: value for name, value in (found | _lags(after)).items() if value}

        poll_until("every lag, outbox and mail to be 0", under_way, lambda left: not left, seconds=seconds, every=0.1)

    @contextmanager
    def database(self, name: str) -> Iterator[sqlite3.Connection]:
        """A service's database, read-only: the test counts effects where they are."""
        path = self.database_path(name)
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
        connection.row_factory = sqlite3.Row
        try:
            yield connection
        finally:
            connection.close()

    def database_path(self, name: str) -> Path:
        """Where the one database of a service lies."""
        folder = self.state / "data" / f"{name}-1"
        files = sorted(path for path in folder.glob("*") if path.suffix in (".db", ".sqlite"))
        assert len(files) == 1, f"{name} should own exactly one database, has {files}"
        return files[0]

    def outbox(self, name: str) -> int:
        """Events that a service has committed and the broker has not yet acknowledged."""
        with self.database(name) as database:
            return int(database.execute("SELECT count(*) FROM atoll_outbox").fetchone()[0])

    def mails_to_file(self) -> int:
        """Mails that are committed and not yet in the maildir."""
        with self.database("notifications") as database:
            return int(database.execute("SELECT count(*) FROM mails WHERE filed_at IS NULL").fetchone()[0])

    def tails(self, lines: int = 15) -> str:
        """The last lines of every log, for a failure's message."""
        parts = []
        for path in sorted((self.state / "logs").glob("*.log")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append(f"--- {path.name}\n" + "\n".join(line[:400] for line in tail))
        return "\n".join(parts)


def order(
    invoice: str, *, sku: str = "85123A", quantity: int = 6, price: str = "2.55", lines: int = 1
) -> dict[str, Any]:
    """The body of `POST /orders` or `/returns`."""
    line = {"sku": sku, "description": "WHITE HANGING HEART T-LIGHT HOLDER", "quantity": quantity, "unit_price": price}
    return {
        "invoice": invoice,
        "customer": "17850",
        "country": "United Kingdom",
        "placed_at": "2010-12-01T08:26:00Z",
        "lines": [dict(line) for _ in range(lines)],
    }


def _lags(samples: Mapping[str, float]) -> dict[str, float]:
    return {_label(sample): value for sample, value in samples.items() if sample.startswith("atoll_group_lag{")}


def _label(sample: str) -> str:
    found = re.search(r'group="([^"]+)"', sample)
    assert found, f"no group label in {sample}"
    return found.group(1)


def processes_of(state: Path) -> list[psutil.Process]:
    """Every process that carries a state directory in its command line or environment, but not the asker."""
    wanted = str(state)
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            carries = any(wanted in word for word in process.cmdline()) or any(
                wanted in value for value in process.environ().values()
            )
            if carries and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def parts_of(mesh: Path) -> set[str]:
    """The parts that a system page has."""
    return set(tomllib.loads(mesh.read_text())["part"])


def write_mesh(
    path: Path,
    *,
    settings: Mapping[str, Mapping[str, str]] | None = None,
    changes: Mapping[str, str] | None = None,
) -> Path:
    """A copy of the repository's mesh.toml with settings of parts replaced or added, and lines changed.

    `changes` maps a line as it stands to its replacement; a line that is not there is an AssertionError, so a test can
    not silently run on defaults.
    """
    text = (REPOSITORY / "mesh.toml").read_text()
    for old, new in (changes or {}).items():
        assert f"\n{old}\n" in text, f"mesh.toml has no line {old!r}"
        text = text.replace(f"\n{old}\n", f"\n{new}\n")
    for part, values in (settings or {}).items():
        header = f"[part.{part}.settings]\n"
        if header not in text:
            text += f"\n{header}"
        before, _, after = text.partition(header)
        table, bracket, rest = after.partition("\n[")
        for name, value in values.items():
            table = re.sub(rf'(?m)^{name} = ".*"\n?', "", table)
            table = f'{name} = "{value}"\n{table}'
        text = before + header + table + bracket + rest
    path.write_text(text)
    return path


@contextmanager
def fleet(state: Path, mesh: Path | None = None, *words: str, whole: bool = False) -> Iterator[Fleet]:
    """A running system in `state`, ended (and checked to be gone) when the block ends.

    With `whole` also the parts that people look through, which no function of the shop needs: dashboard and Jaeger.
    """
    running = Fleet(state, mesh or REPOSITORY / "mesh.toml", whole=whole)
    try:
        running.up(*words)
        yield running
    finally:
        ended = running.atoll("down", check=False)
        left = processes_of(state)
        for process in left:
            process.kill()
        assert not left, f"`down` left {left} behind:\n{ended.output}"
