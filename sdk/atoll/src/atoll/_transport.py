"""The socket under a session.

`Transport` is all that a session needs of it, so that a broker in memory can stand in. `ZmqTransport` is one DEALER,
used once: lost means closed for good (RECONNECT_IVL=-1), so no frame of an old session can arrive in a new one.

It reads the socket's file descriptor in the event loop and never blocks. ZMQ_FD is edge-triggered: after *every* send
and receive ZMQ_EVENTS has to be looked at again, or a message waits for an edge that has already been.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import zmq
from zmq.utils.monitor import parse_monitor_message

from ._errors import ConfigurationError

OUT_MESSAGES_MAX = 16_384
"""Messages that may wait for a broker that does not read; credit keeps it far below."""
FRAME_BYTES_MAX = 33_554_432
"""Of one frame from the broker; the largest is the registry's state."""
_TURN_MESSAGES_MAX = 128
"""Received in one turn of the loop, then others have theirs."""
_HIGH_WATER_MARK = 4096
_HEARTBEAT_MS = 1000
_HEARTBEAT_TIMEOUT_MS = 2000
"""A half-open connection is found out within the sum of the two. The broker's I/O thread answers, not its loop."""
_CONNECT_MS = 2000

OnMessage = Callable[[list[bytes]], None]
OnLost = Callable[[str], None]


class Transport(Protocol):
    """A connection to a broker. Calls back on the event loop until it is lost or closed."""

    def send(self, frames: Sequence[bytes]) -> None:
        """Queues one message; order is kept. After the loss it does nothing."""

    def close(self) -> None:
        """Drops the connection and what is queued. No callback comes after it."""


Connector = Callable[[OnMessage, OnLost], Transport]
"""Starts to connect and returns at once. `OnLost` is called once, with the reason, if the connection fails or ends."""


class CurveKeys(NamedTuple):
    """Z85 text of our pair and of the broker's public key."""

    secret: bytes
    public: bytes
    broker: bytes

    @classmethod
    def read(cls, folder: Path) -> CurveKeys:
        """Raises ConfigurationError naming the file."""
        return cls(*(_key(folder / name) for name in ("curve.secret", "curve.public", "broker.public")))


def _key(path: Path) -> bytes:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"ATOLL_KEYS: expected a readable file {path.name} with a CURVE key") from None
    if len(text) != 40:
        raise ConfigurationError(f"ATOLL_KEYS: {path.name}: expected 40 characters of Z85, found {len(text)}")
    return text.encode()


class ZmqConnector:
    """Opens a ZmqTransport a session; owns the ZeroMQ context."""

    def __init__(self, address: str, keys: CurveKeys) -> None:
        self._address = address
        self._keys = keys
        self._context = zmq.Context()

    def __call__(self, on_message: OnMessage, on_lost: OnLost) -> Transport:
        return ZmqTransport(self._context, self._address, self._keys, on_message, on_lost)

    def close(self) -> None:
        """Closes what is open. Does not wait: LINGER is 0."""
        self._context.destroy(linger=0)


class ZmqTransport:
    """One DEALER socket and its monitor."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        keys: CurveKeys,
        on_message: OnMessage,
        on_lost: OnLost,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_lost = on_lost
        self._out: deque[Sequence[bytes]] = deque()
        self._closed = False
        self._pumping = False
        self._socket = _dealer(context, keys)
        self._monitor: zmq.Socket[bytes] = self._socket.get_monitor_socket(_LOSSES)
        self._fd = int(self._socket.getsockopt(zmq.FD))
        self._monitor_fd = int(self._monitor.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self._pump)
        self._loop.add_reader(self._monitor_fd, self._read_monitor)
        self._socket.connect(address)
        self._loop.call_soon(self._pump)
        self._loop.call_soon(self._read_monitor)

    def send(self, frames: Sequence[bytes]) -> None:
        """See Transport."""
        if self._closed:
            return
        if len(self._out) >= OUT_MESSAGES_MAX:
            self._lost(f"the broker does not read: {OUT_MESSAGES_MAX} messages wait")
            return
        self._out.append(frames)
        self._pump()

    def close(self) -> None:
        """See Transport."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_reader(self._monitor_fd)
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)

    def _pump(self) -> None:
        """Sends and receives until neither is possible, looking at ZMQ_EVENTS after each."""
        if self._pumping:  # a callback sent something: the loop below takes it
            return
        self._pumping = True
        try:
            for _ in range(_TURN_MESSAGES_MAX):
                if self._closed or not self._step():
                    return
        finally:
            self._pumping = False
        self._loop.call_soon(self._pump)

    def _step(self) -> bool:
        events = int(self._socket.getsockopt(zmq.EVENTS))
        progress = False
        if self._out and events & zmq.POLLOUT:
            progress = self._send_one()
        if events & zmq.POLLIN:
            progress = self._receive_one() or progress
        return progress

    def _send_one(self) -> bool:
        try:
            self._socket.send_multipart(self._out[0], zmq.NOBLOCK)
        except zmq.Again:
            return False
        self._out.popleft()
        return True

    def _receive_one(self) -> bool:
        try:
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return False
        self._on_message(frames)
        return True

    def _read_monitor(self) -> None:
        while not self._closed and int(self._monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
            self._pump()  # what arrived before the loss still counts: a BYE says more than a closed connection
            if not self._closed:
                self._lost(_reason(int(event["event"])))

    def _lost(self, why: str) -> None:
        self.close()
        self._on_lost(why)


_LOSSES = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


def _reason(event: int) -> str:
    if event == zmq.EVENT_CLOSED:
        return "the broker's address refuses connections"
    if event == zmq.EVENT_DISCONNECTED:
        return "the connection to the broker was closed"
    return "the broker refused the CURVE handshake: wrong broker.public, or this key is not in its allow-list"


def _dealer(context: zmq.Context[zmq.Socket[bytes]], keys: CurveKeys) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    for option, value in (
        (zmq.RECONNECT_IVL, -1),
        (zmq.IMMEDIATE, 1),
        (zmq.LINGER, 0),
        (zmq.SNDHWM, _HIGH_WATER_MARK),
        (zmq.RCVHWM, _HIGH_WATER_MARK),
        (zmq.MAXMSGSIZE, FRAME_BYTES_MAX),
        (zmq.CONNECT_TIMEOUT, _CONNECT_MS),
        (zmq.HANDSHAKE_IVL, _CONNECT_MS),
        (zmq.HEARTBEAT_IVL, _HEARTBEAT_MS),
        (zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS),
    ):
        socket.setsockopt(option, value)
    socket.curve_secretkey, socket.curve_publickey, socket.curve_serverkey = keys
    return socket
