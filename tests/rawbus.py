"""A client of wire v1 in pyzmq alone, for what no well-behaved client would do."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import zmq


class Peer:
    """One DEALER socket. `keys` is a part's key folder, or None for a key pair that nobody knows."""

    def __init__(
        self,
        endpoint: str,
        keys: Path | None,
        server_key: bytes,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.socket: zmq.Socket[bytes] = (context or zmq.Context.instance()).socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        if keys is None:
            public, secret = zmq.curve_keypair()
        else:
            public = (keys / "curve.public").read_bytes().strip()
            secret = (keys / "curve.secret").read_bytes().strip()
        for option, key in (
            (zmq.CURVE_PUBLICKEY, public), (zmq.CURVE_SECRETKEY, secret), (zmq.CURVE_SERVERKEY, server_key)
        ):  # fmt: skip
            self.socket.setsockopt(option, key)
        self.socket.connect(endpoint)

    def send(self, command: str, header: dict[str, Any], payload: list[dict[str, Any]] | None = None) -> None:
        """Send one command."""
        frames = [f"A1{command}".encode(), json.dumps(header).encode()]
        if payload is not None:
            frames.append(json.dumps(payload).encode())
        self.socket.send_multipart(frames)

    def receive(self, *commands: str, seconds: float = 5) -> tuple[str, dict[str, Any]]:
        """The next of these commands (others are passed over). Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not self.socket.poll(int(left * 1000) + 1):
                break
            frames = self.socket.recv_multipart()
            command = frames[0][2:].decode()
            if not commands or command in commands:
                return command, json.loads(frames[1])
        raise TimeoutError(f"no {' or '.join(commands) or 'answer'} within {seconds:g} s")

    def hello(self, name: str, *, publishes: dict[str, Any] | None = None, **more: Any) -> tuple[str, dict[str, Any]]:
        """HELLO as `name`; WELCOME or what came instead."""
        self.send(
            "HELLO",
            {
                "slot": f"{name}/9",
                "process": str(uuid.uuid4()),
                "sdk": "raw/0",
                "version": "0.0.0",
                "producer": f"{name}/{uuid.uuid4()}",
                "endpoints": None,
                "contracts": {"publishes": publishes or {}, "consumes": []},
                "resume": None,
            }
            | more,
        )
        return self.receive("WELCOME", "ERR", "FENCED", "BYE")

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def event(publisher: str, topic: str, subject: str, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A CloudEvent of that identity's."""
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": f"/{publisher}",
        "type": topic,
        "subject": subject,
        "time": "2026-01-01T00:00:00Z",
        "datacontenttype": "application/json",
        "data": data,
    } | more
