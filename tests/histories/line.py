"""A client's line to the broker: one session is one socket, as wire-1.md says; lost means a new one."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from histories.records import Record, dumps

CONNECT_SECONDS = 2.0
HELLO_SECONDS = 2.0
SILENT_HEARTBEATS = 4


class LostError(Exception):
    """The session is over, or never began: close, wait, open another."""


class RefusedError(LostError):
    """The broker answered HELLO with an ERR."""


class Message(NamedTuple):
    """What the broker said. `payload` is the batch as it came, or b""."""

    command: str
    header: Record
    payload: bytes


class Line:
    """One socket. `keys` is a folder as ATOLL_KEYS expects it."""

    process = str(uuid.uuid4())
    """Made once a process: HELLO names it."""

    def __init__(self, endpoint: str, keys: Path) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket: zmq.Socket[bytes] = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.curve_publickey = (keys / "curve.public").read_bytes().strip()
        self.socket.curve_secretkey = (keys / "curve.secret").read_bytes().strip()
        self.socket.curve_serverkey = (keys / "broker.public").read_bytes().strip()
        self.session = ""
        self.heartbeat = 0.5
        self._heard = self._looked = time.monotonic()
        self._pinged = 0.0
        self.socket.connect(endpoint)

    def open(self, slot: str, **header: Any) -> Record:
        """HELLO; the WELCOME. Raises RefusedError for an ERR, LostError for anything else."""
        if not self.socket.poll(int(CONNECT_SECONDS * 1000), zmq.POLLOUT):
            raise LostError("no connection")
        contracts = {"publishes": header.pop("publishes", {}), "consumes": []}
        said = {"slot": slot, "process": self.process, "sdk": "history/1", "contracts": contracts, **header}
        self.send("HELLO", said)
        message = self._first(time.monotonic() + HELLO_SECONDS)
        if message.command != "WELCOME":
            raise RefusedError(f"{message.header.get('code', message.command)}: {message.header.get('text', '')}")
        self.session = message.header["session"]
        self.heartbeat = message.header["heartbeat_ms"] / 1000
        return message.header

    def _first(self, deadline: float) -> Message:
        while time.monotonic() < deadline:
            message = self._read(50)
            if message is not None and message.command in ("WELCOME", "ERR", "FENCED", "BYE"):
                return message
        raise LostError("no answer to HELLO")

    def send(self, command: str, header: Record, payload: str | None = None) -> None:
        """One command. Raises LostError where the connection is gone."""
        frames = [b"A1" + command.encode(), dumps(header).encode()]
        if payload is not None:
            frames.append(payload.encode())
        try:
            self.socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            raise LostError("the connection is gone") from None

    def receive(self, wait_ms: int) -> Message | None:
        """The next message; None when there is none within the time. Pings by itself.

        Raises LostError when the session has ended or the broker was silent for four heartbeats.
        """
        self._ping()
        message = self._read(wait_ms)
        if message is None:
            self._mind_silence()
            return None
        if message.command in ("FENCED", "BYE") or (message.command == "ERR" and message.header["closes"]):
            raise LostError(f"{message.command} {message.header}")
        return message

    def _read(self, wait_ms: int) -> Message | None:
        if not self.socket.poll(wait_ms):
            return None
        frames = self.socket.recv_multipart()
        self._heard = time.monotonic()
        return Message(frames[0][2:].decode(), json.loads(frames[1]), frames[2] if len(frames) > 2 else b"")

    def _ping(self) -> None:
        now = time.monotonic()
        if now - self._pinged >= self.heartbeat:
            self._pinged = now
            self.send("PING", {})

    def _mind_silence(self) -> None:
        """Only time in which we were reading counts: who was stopped has not heard because he did not listen."""
        now = time.monotonic()
        if now - self._looked > self.heartbeat:
            self._heard = now
        self._looked = now
        if now - self._heard > SILENT_HEARTBEATS * self.heartbeat:
            raise LostError(f"the broker was silent for {now - self._heard:.1f} s")

    def close(self) -> None:
        """Close the socket."""
        self.context.destroy(linger=0)
