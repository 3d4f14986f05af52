"""The dashboard as a process of its own, asked through raw sockets and WebSockets: nothing here tidies a request up."""

from __future__ import annotations

import base64
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
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

from standin import CLIENT, Gateway
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

FORM_COOKIE = "atoll_dashboard_form_"  # and the port
FORM_TYPE = ("Content-Type", "application/x-www-form-urlencoded")
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


def hidden_fields(page: str) -> dict[str, str]:
    """What a page's form sends beside what is typed."""
    found = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
    assert found, page
    return {name: unescape(value) for name, value in found.items()}


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

    @property
    def form_cookie(self) -> str:
        """The login form's cookie, as a browser sends it back, or nothing."""
        return next((line.split(";")[0] for line in self.all("set-cookie") if line.startswith(FORM_COOKIE)), "")

    def cookie(self) -> str:
        """The value of the one other cookie that it sets: the session's. Nothing if it sets none."""
        others = [line.split(";")[0] for line in self.all("set-cookie") if not line.startswith(FORM_COOKIE)]
        assert len(others) < 2, others
        return others[0].split("=", 1)[1] if others else ""


class Stream:
    """A WebSocket that is only read: it answers no ping and no close, as a hostile client's may."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._came = bytearray()

    def closed_after(self, seconds: float) -> float | None:
        """How long until the other side closed it; None if it did not within so many seconds."""
        began = time.monotonic()
        while (left := began + seconds - time.monotonic()) > 0:
            self._wire.settimeout(left)
            try:
                piece = self._wire.recv(65_536)
            except TimeoutError:
                return None
            except ConnectionError:
                piece = b""
            self._came += piece
            if not piece or self._closing():
                return time.monotonic() - began
        return None

    def _closing(self) -> bool:
        """Whether a close frame came; whole frames before it are taken out."""
        while len(self._came) >= 2:
            size = self._came[1] & 0x7F
            head = {126: 4, 127: 10}.get(size, 2)
            if head > 2:
                size = int.from_bytes(self._came[2:head])
            if len(self._came) < head + size:
                return False
            if self._came[0] & 0x0F == 8:
                return True
            del self._came[: head + size]
        return False


class Dashboard:
    """A running one."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path, gateway: Gateway) -> None:
        self.process, self.port, self.log, self.gateway = process, port, log, gateway
        self.host = f"127.0.0.1:{port}"
        self.origin = f"http://{self.host}"
        self.session_cookie, self.form_cookie = f"atoll_dashboard_{port}", f"{FORM_COOKIE}{port}"

    def raw(self, sent: bytes, seconds: float = 10.0) -> Answer:
        """Send these bytes; what came until it closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as wire:
            wire.sendall(sent)
            came = b""
            while piece := wire.recv(65_536):
                came += piece
        if not came:
            raise ConnectionResetError("closed without an answer")
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
        return self.ask("GET", path, [self.with_cookie(cookie)] if cookie else [], host=host)

    def with_cookie(self, value: str) -> tuple[str, str]:
        """The header that carries this value of a session's cookie."""
        return "Cookie", f"{self.session_cookie}={value}"

    def handshake(self, headers: Pairs, host: str | None = "") -> int:
        """The status that a WebSocket handshake gets, with these headers and no other Origin or cookie."""
        status, wire = self._upgrade(headers, host)
        wire.close()
        return status

    def opens(self, cookie: str) -> int:
        """The status that a page of our own gets with this session's cookie: 101 lets it in."""
        return self.handshake([self.with_cookie(cookie), ("Origin", self.origin)])

    @contextmanager
    def stream(self, cookie: str) -> Iterator[Stream]:
        """An open WebSocket that answers nothing."""
        status, wire = self._upgrade([self.with_cookie(cookie), ("Origin", self.origin)])
        with wire:
            assert status == 101
            yield Stream(wire)

    def _upgrade(self, headers: Pairs, host: str | None = "") -> tuple[int, socket.socket]:
        asked = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
        asked.append(("Sec-WebSocket-Key", base64.b64encode(os.urandom(16)).decode()))
        if host is not None:
            asked.insert(0, ("Host", host or self.host))
        lines = ["GET /_stcore/stream HTTP/1.1", *(f"{name}: {value}" for name, value in [*asked, *headers])]
        wire = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        wire.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        head = b""
        while b"\r\n\r\n" not in head and (byte := wire.recv(1)):  # what follows is the stream's
            head += byte
        return int(head.split()[1]), wire

    def form(self, path: str = "/login", cookie: str | None = None) -> tuple[dict[str, str], str]:
        """A form's hidden fields, and the cookie that came with it, as a browser sends it back."""
        page = self.get(path, cookie)
        return hidden_fields(page.body), page.form_cookie

    def post(self, path: str, fields: dict[str, str], cookies: str, origin: str = "", host: str = "") -> Answer:
        """A form, sent; `cookies` "" is none, the rest as a page of ours would."""
        headers = [("Origin", origin or self.origin), FORM_TYPE, *([("Cookie", cookies)] if cookies else [])]
        return self.ask("POST", path, headers, urlencode(fields).encode(), host=host)

    def try_login(self, username: str, password: str, path: str = "/login", **fields: str) -> Answer:
        """Sign in by the form, as it came but for what `fields` change."""
        hidden, cookie = self.form(path)
        return self.post("/login", {**hidden, "username": username, "password": password, **fields}, cookie)

    def login(self, username: str = "operator") -> str:
        """The cookie of a new session."""
        answer = self.try_login(username, f"pw-{username}")
        assert answer.status == 303, answer
        return answer.cookie()

    def logout(self, cookie: str) -> Answer:
        """Sign out by the form."""
        fields, _ = self.form("/logout", cookie)
        return self.post("/logout", fields, self.with_cookie(cookie)[1])

    def memory_mib(self) -> float:
        """What it has of real memory."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found.group(1)) / 1024

    @contextmanager
    def page(self, cookie: str, again: str = "") -> Iterator[Page]:
        """An open page, as a browser has it; `again` is the page that lost its connection before."""
        with connect(
            f"ws://{self.host}/_stcore/stream",
            origin=Origin(self.origin),
            proxy=None,
            max_size=None,
            subprotocols=[Subprotocol(one) for one in ("streamlit", "none", again) if one],
            additional_headers=[self.with_cookie(cookie)],
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
def running(home: Path, port: int = 0, **more: str) -> Iterator[Dashboard]:
    """A dashboard with a gateway of its own, on any port or on this one; ended by SIGTERM."""
    gateway = Gateway()
    port, log = port or free_port(), home / "log"
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
