"""The socket of one session: a DEALER that is used once, because lost means closed for good (RECONNECT_IVL=-1).

ZMQ_FD is edge-triggered: it tells that *something* happened, once. So `receive` always tries to send and to receive
first, and waits only when neither goes; whatever happened meanwhile has set the bell again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

import zmq
from zmq.utils.monitor import parse_monitor_message

from atoll_journal.errors import EndedError
from atoll_journal.settings import Settings

CONNECT_MS = 2000
HEARTBEAT_MS = 1000
FRAME_BYTES_MAX = 33_554_432
"""Of one frame. The spec's bound is batch_bytes + 1 MiB; the broker tells batch_bytes only in WELCOME."""
TURN_MESSAGES_MAX = 64
"""Taken at once: they become one commit."""
_LOSSES = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class Line:
    """Opens at once. `send` and `receive` are called by one task."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], settings: Settings) -> None:
        self._loop = asyncio.get_running_loop()
        self._bell = asyncio.Event()
        self._out: deque[Sequence[bytes]] = deque()
        self._socket = _dealer(context, settings)
        self._monitor: zmq.Socket[bytes] = self._socket.get_monitor_socket(_LOSSES)
        self._files = [int(each.getsockopt(zmq.FD)) for each in (self._socket, self._monitor)]
        for file in self._files:
            self._loop.add_reader(file, self._bell.set)
        self._socket.connect(settings.bus)

    def send(self, frames: Sequence[bytes]) -> None:
        """Queues a message; it leaves with the next `receive`."""
        self._out.append(frames)

    async def receive(self, seconds: float) -> list[list[bytes]]:
        """What has arrived, waiting at most so long for the first; empty when nothing came.

        Raises EndedError when the connection is gone, but only after everything that came before.
        """
        deadline = self._loop.time() + seconds
        while True:
            self._bell.clear()
            self._flush()
            arrived = self._take()
            if arrived:
                return arrived
            self._check()
            left = deadline - self._loop.time()
            if left <= 0:
                return []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._bell.wait()

    def close(self) -> None:
        for file in self._files:
            self._loop.remove_reader(file)
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)

    def _flush(self) -> None:
        """IMMEDIATE=1: before the connection stands there is nowhere to send to, and the bell rings when it does."""
        while self._out:
            try:
                self._socket.send_multipart(self._out[0], zmq.NOBLOCK)
            except zmq.Again:
                return
            self._out.popleft()

    def _take(self) -> list[list[bytes]]:
        arrived: list[list[bytes]] = []
        while len(arrived) < TURN_MESSAGES_MAX:
            try:
                arrived.append(self._socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                break
        return arrived

    def _check(self) -> None:
        try:
            event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            return
        raise EndedError(_reason(int(event["event"])))


def _reason(event: int) -> str:
    if event == zmq.EVENT_CLOSED:
        return "the broker's address refuses connections"
    if event == zmq.EVENT_DISCONNECTED:
        return "the connection to the broker was closed"
    return "the broker refused the CURVE handshake: wrong broker.public, or this key is not in its allow-list"


def _dealer(context: zmq.Context[zmq.Socket[bytes]], settings: Settings) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    for option, value in (
        (zmq.RECONNECT_IVL, -1),
        (zmq.IMMEDIATE, 1),
        (zmq.LINGER, 0),
        (zmq.MAXMSGSIZE, FRAME_BYTES_MAX),
        (zmq.CONNECT_TIMEOUT, CONNECT_MS),
        (zmq.HANDSHAKE_IVL, CONNECT_MS),
        (zmq.HEARTBEAT_IVL, HEARTBEAT_MS),
        (zmq.HEARTBEAT_TIMEOUT, 3 * HEARTBEAT_MS),
    ):
        socket.setsockopt(option, value)
    socket.curve_secretkey, socket.curve_publickey, socket.curve_serverkey = (
        settings.secret, settings.public, settings.broker,
    )  # fmt: skip
    return socket
