"""The one ROUTER: sync NOBLOCK calls on its descriptor, two to three times as fast as `zmq.asyncio` (measured).

ZMQ_FD is edge-triggered: whoever stops before ZMQ_EVENTS is empty is not called again. The shell asks `readable` after
every turn.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import zmq

from .codec import FRAMES_MAX
from .errors import PortTakenError
from .mesh import Bus
from .zap import DOMAIN

HIGH_WATER_MESSAGES: Final = 4096  # at least twice what credit lets be under way: 1 x cost 40,000 EAGAIN (measured)
HANDSHAKE_MS: Final = 500  # 400 idle connections kept everyone else out without it (measured)
CONNECTIONS_BACKLOG: Final = 256
FRAME_SLACK_BYTES: Final = 1_048_576
STUCK_MESSAGES_MAX: Final = 4096
STUCK_BYTES_MAX: Final = 67_108_864
LINGER_MS: Final = 500

Unreachable = Callable[[bytes, str], None]


class Stuck:
    """What a peer that does not read has coming, in order."""

    def __init__(self) -> None:
        self.messages: deque[list[bytes]] = deque()
        self.bytes = 0

    def push(self, frames: list[bytes]) -> bool:
        """False when the bound is passed."""
        self.messages.append(frames)
        self.bytes += sum(map(len, frames))
        return len(self.messages) <= STUCK_MESSAGES_MAX and self.bytes <= STUCK_BYTES_MAX


class BusSocket:
    def __init__(self, context: zmq.Context[Any], secret: bytes, bus: Bus, unreachable: Unreachable) -> None:
        self._unreachable = unreachable
        self._stuck: dict[bytes, Stuck] = {}
        self._socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        heartbeat_ms = int(bus.heartbeat_seconds * 1000)
        for option, value in {
            zmq.CURVE_SERVER: 1,
            zmq.CURVE_SECRETKEY: secret,
            zmq.ZAP_DOMAIN: DOMAIN,
            zmq.ZAP_ENFORCE_DOMAIN: 1,
            zmq.ROUTER_MANDATORY: 1,
            zmq.ROUTER_HANDOVER: 0,
            zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
            zmq.BACKLOG: CONNECTIONS_BACKLOG,
            zmq.MAXMSGSIZE: bus.batch_bytes_max + FRAME_SLACK_BYTES,
            zmq.SNDHWM: HIGH_WATER_MESSAGES,
            zmq.RCVHWM: HIGH_WATER_MESSAGES,
            zmq.HEARTBEAT_IVL: heartbeat_ms,
            zmq.HEARTBEAT_TIMEOUT: heartbeat_ms * 5,
            zmq.LINGER: LINGER_MS,
        }.items():
            self._socket.setsockopt(option, value)

    def bind(self, endpoint: str) -> str:
        """The endpoint with its real port. Raises PortTakenError."""
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise PortTakenError(f"ATOLL_BUS: can not listen on {endpoint}: {error}") from None
        bound = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        return bound.decode().rstrip("\0")

    @property
    def descriptor(self) -> int:
        return int(self._socket.getsockopt(zmq.FD))

    @property
    def readable(self) -> bool:
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def receive(self) -> tuple[bytes, str, list[bytes]] | None:
        """(route, ZAP user id, frames), or None when nothing waits. At most FRAMES_MAX + 1 frames are kept, enough to
        see that there were too many."""
        try:
            part = self._socket.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        route, user_id = part.bytes, str(part.get("User-Id"))
        frames: list[bytes] = []
        while part.more:
            part = self._socket.recv(zmq.NOBLOCK, copy=False)
            if len(frames) <= FRAMES_MAX:
                frames.append(part.bytes)
        return route, user_id, frames

    def send(self, route: bytes, frames: list[bytes]) -> None:
        stuck = self._stuck.get(route)
        if stuck is not None:
            self._keep(route, stuck, frames)
        elif not self._try_send(route, frames):
            self._keep(route, self._stuck.setdefault(route, Stuck()), frames)

    def retry(self) -> None:
        """Sends what was stuck, as far as it goes."""
        for route in list(self._stuck):
            stuck = self._stuck.get(route)
            while stuck is not None and stuck.messages and self._try_send(route, stuck.messages[0]):
                stuck.bytes -= sum(map(len, stuck.messages.popleft()))
            if stuck is None or not stuck.messages:
                self._stuck.pop(route, None)

    def _keep(self, route: bytes, stuck: Stuck, frames: list[bytes]) -> None:
        if not stuck.push(frames):
            del self._stuck[route]
            self._unreachable(route, "it does not read what it is sent")

    def _try_send(self, route: bytes, frames: list[bytes]) -> bool:
        """False: try again later. A peer that is gone counts as sent, and its session ends."""
        try:
            self._socket.send_multipart([route, *frames], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            self._stuck.pop(route, None)
            self._unreachable(route, "its socket is gone")
        return True

    def close(self) -> None:
        self._socket.close()
