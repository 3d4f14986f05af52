"""A client of wire v1 in pyzmq alone: what the bus is measured with, less what any client library would add."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zmq
from _processes import RunFailedError

_HIGH_WATER_MARK = 4096  # at least two windows: with one the fast side meets EAGAIN all the time
_QUIET_MS = 500
"""After so long without a word from either side a PING is due: the broker suspects who is silent for two seconds."""


class Message(NamedTuple):
    """A message from the broker, its header undecoded."""

    command: str
    header: bytes
    payload: bytes

    def fields(self) -> dict[str, Any]:
        """The header."""
        found: dict[str, Any] = msgspec.json.decode(self.header)
        return found


class Peer:
    """One DEALER socket and its session. Blocking; for one thread."""

    def __init__(self, endpoint: str, keys: Path) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        for option, value in (
            (zmq.RECONNECT_IVL, -1), (zmq.IMMEDIATE, 1), (zmq.LINGER, 0),
            (zmq.SNDHWM, _HIGH_WATER_MARK), (zmq.RCVHWM, _HIGH_WATER_MARK),
            (zmq.SNDTIMEO, 5000),
        ):  # fmt: skip
            self._socket.setsockopt(option, value)
        for option, name in (
            (zmq.CURVE_SECRETKEY, "curve.secret"), (zmq.CURVE_PUBLICKEY, "curve.public"),
            (zmq.CURVE_SERVERKEY, "broker.public"),
        ):  # fmt: skip
            self._socket.setsockopt(option, (keys / name).read_bytes().strip())
        self._socket.connect(endpoint)

    def send(self, command: str, payload: bytes | None = None, **header: object) -> None:
        """One command."""
        frames = [b"A1" + command.encode(), msgspec.json.encode(header)]
        self._socket.send_multipart(frames if payload is None else [*frames, payload])

    def poll(self, timeout_ms: int) -> bool:
        """Whether something can be received within so long."""
        return bool(self._socket.poll(timeout_ms))

    def receive(self) -> Message:
        """The next message that matters; PINGs while there is none. Raises RunFailedError for ERR, FENCED, PUBNACK."""
        while True:
            if not self.poll(_QUIET_MS):
                self.send("PING")
                continue
            command, header, *payload = self._socket.recv_multipart()
            message = Message(command[2:].decode(), header, payload[0] if payload else b"")
            if message.command in ("ERR", "FENCED", "PUBNACK", "STALE"):
                raise RunFailedError(f"the broker said {message.command} {header.decode()}")
            if message.command != "PONG":
                return message

    def expect(self, command: str) -> dict[str, Any]:
        """The header of the next message, which has to be that one."""
        message = self.receive()
        if message.command != command:
            raise RunFailedError(f"the broker said {message.command}, expected {command}")
        return message.fields()

    def hello(
        self,
        slot: str,
        *,
        producer: str | None = None,
        publishes: dict[str, Any] | None = None,
        consumes: Iterable[str] = (),
        endpoints: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Opens the session; WELCOME."""
        self.send(
            "HELLO",
            slot=slot,
            process=str(uuid.uuid4()),
            sdk="bench/0",
            producer=producer,
            endpoints=endpoints,
            contracts={"publishes": publishes or {}, "consumes": list(consumes)},
        )
        return self.expect("WELCOME")

    def bye(self) -> None:
        """Ends the session, once the broker has read all that was sent; anything that comes meanwhile is too much."""
        self.send("BYE", reason="measured")
        self.expect("BYE")
        self._socket.close()
