"""The dashboard as a process of its own, asked through raw sockets and WebSockets: nothing here tidies a request up."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from standin import CLIENT, Gateway
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

COOKIE = "atoll_dashboard"
Pairs = list[tuple[str, str]]


def until(what: str, condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something; fail by its name."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Answer:
    """An answer as it came."""

    status: int
    headers: Pairs
    body: str

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for one, value in self.headers if one.lower() == name.lower()]

    def header(self, name: str) -> str:
        """The one value of a header."""
        (value,) = self.all(name)
        return value

    @property
    def alert(self) -> str:
        """What the page's alert says."""
        found = re.search(r'role="alert">(.*?)</p>', self.body)
        return found.group(1) if found else ""

    def cookie(self, name: str = COOKIE) -> str:
        """The value of a cookie that it sets, or nothing."""
        found = [one for one in self.all("set-cookie") if one.startswith(f"{name}=")]
        return found[0].split(";")[0].split("=", 1)[1] if found else ""


class Dashboard:
    """A running one."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path, gateway: Gateway) -> None:
        self.process, self.port, self.log, self.gateway = process, port, log, gateway
        self.host = f"127.0.0.1:{port}"
        self.origin = f"http://{self.host}"

    def raw(self, sent: bytes, seconds: float = 10.0) -> Answer:
        """Send these bytes; what came until it closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as wire:
            wire.sendall(sent)
            came = b""
            while piece := wire.recv(65_536):
                came += piece
        head, _, body = came.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        return Answer(int(lines[0].split()[1]), headers, body.decode(errors="replace"))

    def ask(
        self, method: str, path: str, headers: Pairs | None = None, body: bytes = b"", host: str | None = ""
    ) -> Answer:
        """One request; `host` "" is ours, None leaves it out."""
        lines = [f"{method} {path} HTTP/1.1"]
        if host is not None:
            lines.append(f"Host: {host or self.host}")
        lines += [f"{name}: {value}" for name, value in headers or []]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        return self.raw(("\r\n".join([*lines, "Connection: close", "", ""])).encode("latin-1") + body)

    def get(self, path: str, cookie: str | None = None, host: str | None = "") -> Answer:
        """A GET, with a session's cookie."""
        return self.ask("GET", path, [("Cookie", f"{COOKIE}={cookie}")] if cookie else [], host=host)

    def form(self) -> tuple[str, str]:
        """A login form's token and its cookie."""
        page = self.get("/login")
        found = re.search(r'name="form" value="([^"]+)"', page.body)
        assert found, page.body
        return found.group(1), page.cookie("atoll_dashboard_form")

    def post_login(self, fields: dict[str, str], cookies: str, **more: str) -> Answer:
        """The login form, sent."""
        headers = [("Origin", more.get("origin", self.origin)), ("Cookie", cookies)]
        headers.append(("Content-Type", "application/x-www-form-urlencoded"))
        return self.ask("POST", "/login", headers, urlencode(fields).encode(), host=more.get("host", ""))

    def try_login(self, username: str, password: str, **fields: str) -> Answer:
        """Sign in by the form."""
        token, cookie = self.form()
        given = {"form": token, "username": username, "password": password, **fields}
        return self.post_login(given, f"atoll_dashboard_form={cookie}")

    def login(self, username: str = "operator") -> str:
        """The cookie of a new session."""
        answer = self.try_login(username, f"pw-{username}")
        assert answer.status == 303, answer
        return answer.cookie()

    def logout(self, cookie: str) -> Answer:
        """Sign out by the form."""
        found = re.search(r'name="form" value="([^"]+)"', self.get("/logout", cookie).body)
        assert found
        headers = [("Origin", self.origin), ("Cookie", f"{COOKIE}={cookie}")]
        headers.append(("Content-Type", "application/x-www-form-urlencoded"))
        return self.ask("POST", "/logout", headers, urlencode({"form": found.group(1)}).encode())

    @contextmanager
    def page(self, cookie: str, again: str = "") -> Iterator[Page]:
        """An open page, as a browser has it; `again` is the page that lost its connection before."""
        with connect(
            f"ws://{self.host}/_stcore/stream",
            origin=Origin(self.origin),
            proxy=None,
            max_size=None,
            subprotocols=[Subprotocol(one) for one in ("streamlit", "none", again) if one],
            additional_headers={"Cookie": f"{COOKIE}={cookie}"},
        ) as wire:
            yield Page(wire)


class Page:
    """A page's WebSocket: Streamlit's own messages."""

    def __init__(self, wire: ClientConnection) -> None:
        self.wire = wire
        self.text = ""
        self.widgets: dict[str, str] = {}  # label -> id
        self.id = ""  # Streamlit's own of this page

    def open(self, page: str = "", query: str = "") -> str:
        """Ask for a page and take in what comes until it is drawn; the HTML of it."""
        self.text = ""
        message = BackMsg()
        message.rerun_script.page_name = page
        message.rerun_script.query_string = query
        self.send(message)
        return self.text

    def press(self, widget_id: str) -> None:
        """A button, pressed: whether this page has such a button or not."""
        message = BackMsg()
        state = message.rerun_script.widget_states.widgets.add()
        state.id, state.trigger_value = widget_id, True
        self.send(message)

    def send(self, message: BackMsg) -> None:
        """Send, and take in all until that run of the script has ended."""
        self.wire.send(message.SerializeToString())
        while True:
            came = ForwardMsg()
            data = self.wire.recv(timeout=15)
            assert isinstance(data, bytes)
            came.ParseFromString(data)
            self._take(came)
            if (
                came.WhichOneof("type") == "script_finished"
                and came.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY
            ):
                return  # not one that ended early to begin anew

    def _take(self, came: ForwardMsg) -> None:
        if came.WhichOneof("type") == "new_session":
            self.id = came.new_session.initialize.session_id or self.id
        if came.WhichOneof("type") != "delta":
            return
        element = came.delta.new_element
        kind = element.WhichOneof("type")
        if kind == "html":
            self.text += element.html.body
        elif kind is not None and (widget := getattr(element, kind)) is not None and hasattr(widget, "id"):
            self.widgets[str(getattr(widget, "label", ""))] = widget.id

    def seconds_until_closed(self, at_most: float = 10.0) -> float:
        """How long until the other side closes it; meanwhile the page does what pages do."""
        began = time.monotonic()
        try:
            while time.monotonic() - began < at_most:
                try:
                    self.wire.recv(timeout=at_most)
                except TimeoutError:
                    break
        except WebSocketException:
            return time.monotonic() - began
        raise AssertionError(f"still open after {at_most} s")


def environment(port: int, home: Path, gateway: str, **more: str) -> dict[str, str]:
    """What the process is told by the contract of parts."""
    keys = home / "keys"
    keys.mkdir(exist_ok=True)
    (keys / "client.json").write_text(json.dumps(CLIENT))
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {
        "ATOLL_SLOT": "dashboard/1",
        "ATOLL_HOST": "127.0.0.1",
        "ATOLL_PORT": str(port),
        "ATOLL_DATA": str(home / "data"),
        "ATOLL_KEYS": str(keys),
        "ATOLL_GATEWAY": gateway,
        "ATOLL_JAEGER": "http://127.0.0.1:9",
        **more,
    }


def start(told: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """The process, begun."""
    with log.open("wb") as out:
        command = [sys.executable, "-m", "atoll_dashboard"]
        return subprocess.Popen(command, env=told, stdout=out, stderr=out, cwd=log.parent)


@contextmanager
def running(home: Path, **more: str) -> Iterator[Dashboard]:
    """A dashboard with a gateway of its own, ended by SIGTERM."""
    gateway = Gateway()
    port, log = free_port(), home / "log"
    process = start(environment(port, home, gateway.url, **more), log)
    dashboard = Dashboard(process, port, log, gateway)
    try:
        until("the dashboard serves", lambda: _serves(dashboard), 60)
        yield dashboard
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        gateway.close()


def _serves(dashboard: Dashboard) -> bool:
    assert dashboard.process.poll() is None, dashboard.log.read_text()
    try:
        return dashboard.get("/live").status == 200
    except OSError:
        return False
