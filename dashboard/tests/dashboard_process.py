"""The dashboard as a process of its own, and what an attacker or a browser would write to its socket."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

from fake_gateway import CLIENT

STREAM = "/_stcore/stream"
START_SECONDS_MAX = 60.0


@dataclass(frozen=True)
class Reply:
    """An answer: names of headers in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str

    def header(self, name: str) -> str:
        """A header's value, "" if there is none."""
        return next((value for key, value in self.headers if key == name), "")

    def cookies(self) -> dict[str, str]:
        """What a browser would keep."""
        lines = [value for key, value in self.headers if key == "set-cookie"]
        return dict(line.split(";", 1)[0].split("=", 1) for line in lines)


class Stream:
    """An open WebSocket, read frame by frame. It answers nothing, as a hostile client may."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def closed_after(self, seconds: float) -> tuple[float, int] | None:
        """When the server closed it (seconds from now) and with which code; None if it did not."""
        began = time.monotonic()
        while (left := began + seconds - time.monotonic()) > 0:
            self._connection.settimeout(left)
            try:
                opcode, payload = self._frame()
            except TimeoutError:
                return None
            except (ConnectionError, EOFError):
                return time.monotonic() - began, 1006
            if opcode == 8:
                return time.monotonic() - began, struct.unpack("!H", payload[:2])[0]
        return None

    def say(self, payload: bytes) -> None:
        """A binary frame, as a browser masks it."""
        head = bytes([0x82, 0x80 | len(payload)]) if len(payload) < 126 else (
            bytes([0x82, 0xFE]) + struct.pack("!H", len(payload))
        )  # fmt: skip
        self._connection.sendall(head + bytes(4) + payload)

    def hang_up(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _frame(self) -> tuple[int, bytes]:
        first, second = self._exactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._exactly(8))
        return first & 0x0F, self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = self._connection.recv(size - len(found))
            if not piece:
                raise EOFError
            found += piece
        return found


@dataclass
class Dashboard:
    """A running one."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    data: Path

    @property
    def url(self) -> str:
        """Its origin."""
        return f"http://127.0.0.1:{self.port}"

    def memory_mb(self) -> float:
        """Resident memory, MiB."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found[1]) / 1024

    def send(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Reply:
        """One request; a header given as "" is not sent."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in ({"Host": f"127.0.0.1:{self.port}"} | dict(headers or {})).items():
                if value:
                    connection.putheader(name, value)
            if body or method == "POST":
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            found = tuple((name.lower(), value) for name, value in answer.getheaders())
            return Reply(answer.status, found, answer.read().decode(errors="replace"))
        finally:
            connection.close()

    def knock(self, headers: Mapping[str, str], path: str = STREAM) -> tuple[int, Stream | None]:
        """Ask for the WebSocket: the status, and the stream if it was opened. The stream is the caller's to close."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = {"Host": f"127.0.0.1:{self.port}", "Upgrade": "websocket", "Connection": "Upgrade",
                 "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13"} | dict(headers)  # fmt: skip
        text = f"GET {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items() if v) + "\r\n"
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=15)
        connection.sendall(text.encode("latin-1"))
        head = b""
        while b"\r\n\r\n" not in head and (byte := connection.recv(1)):
            head += byte
        status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0
        if status == 101:
            return status, Stream(connection)
        connection.close()
        return status, None

    def form(
        self, path: str = "/login", cookies: Mapping[str, str] | None = None
    ) -> tuple[dict[str, str], dict[str, str]]:
        """The hidden fields of a page's form, and the cookies that came with it."""
        page = self.send("GET", path, {"Cookie": as_header(cookies or {})})
        assert page.status == 200, page
        fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.body))
        return {name: unescape(value) for name, value in fields.items()}, page.cookies()

    def post(
        self, path: str, fields: Mapping[str, str], cookies: Mapping[str, str], origin: str | None = None
    ) -> Reply:
        """Send a form as a browser on our page would."""
        headers = {"Origin": self.url if origin is None else origin, "Cookie": as_header(cookies),
                   "Content-Type": "application/x-www-form-urlencoded"}  # fmt: skip
        return self.send("POST", path, headers, urlencode(fields).encode())

    def sign_in(self, name: str, password: str | None = None, path: str = "/login") -> Reply:
        """Fill in the form and send it."""
        fields, cookies = self.form(path)
        told = {"username": name, "password": f"password of {name}" if password is None else password}
        return self.post("/login", fields | told, cookies)

    def session(self, name: str) -> dict[str, str]:
        """The cookies of somebody who signed in."""
        reply = self.sign_in(name)
        assert reply.status == 303, reply
        return reply.cookies()


def as_header(cookies: Mapping[str, str]) -> str:
    """As a browser sends them."""
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


@contextmanager
def dashboard(folder: Path, gateway: str, jaeger: str = "http://127.0.0.1:9", **settings: str) -> Iterator[Dashboard]:
    """One that serves for the block; ended by its id."""
    keys, data, log = folder / "keys", folder / "data", folder / "dashboard.log"
    for one in (keys, data):
        one.mkdir(exist_ok=True)
    (keys / "client.json").write_text(json.dumps(CLIENT))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {"ATOLL_HOST": "127.0.0.1", "ATOLL_PORT": str(port), "ATOLL_DATA": str(data), "ATOLL_KEYS": str(keys),
            "ATOLL_GATEWAY": gateway, "ATOLL_JAEGER": jaeger, "ATOLL_SLOT": "dashboard/1"} | settings  # fmt: skip
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "atoll_dashboard"], env=kept | told, stdout=out, stderr=out)
    running = Dashboard(process, port, log, data)
    try:
        until(f"the dashboard to be ready; its log: {log}", lambda: _ready(running), START_SECONDS_MAX)
        yield running
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)


def _ready(running: Dashboard) -> bool:
    assert running.process.poll() is None, running.log.read_text()[-2000:]
    try:
        return running.send("GET", "/ready").status == 200
    except OSError:
        return False


def until(what: str, holds: Callable[[], object], seconds: float) -> None:
    """Poll for a named condition."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"waited {seconds} s for {what}"
        time.sleep(0.05)
