"""Who may connect: ZeroMQ's authentication protocol (RFC 27), answered from an allow-list in memory.

libzmq lets an unknown key in when no handler is there, when it has died, or when the socket has no domain (measured).
So the domain is set and enforced, a request that makes no sense is answered with a refusal, and an error of the
handler itself ends the broker: a door without a porter is closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import zmq

from .keys import AllowList

ENDPOINT: Final = "inproc://zeromq.zap.01"
DOMAIN: Final = b"atoll"
DRAIN_MAX: Final = 64
_VERSION: Final = b"1.0"


def answer(request: Sequence[bytes], allowed: AllowList) -> tuple[list[bytes], bool]:
    """The reply to [version, request id, domain, address, routing id, mechanism, credentials…], and whether it lets
    the peer in. Never raises, whatever the request holds."""
    request_id = request[1] if len(request) > 1 else b""
    user_id = _user_id(request, allowed)
    if user_id is None:
        return [_VERSION, request_id, b"400", b"refused", b"", b""], False
    return [_VERSION, request_id, b"200", b"", user_id.encode(), b""], True


def _user_id(request: Sequence[bytes], allowed: AllowList) -> str | None:
    if len(request) != 7 or request[0] != _VERSION or request[2] != DOMAIN or request[5] != b"CURVE":
        return None
    return allowed.user_ids.get(bytes(request[6]))


class Porter:
    """The handler's socket. It must be bound before the broker's, and drained by the loop that owns it."""

    def __init__(self, context: zmq.Context[Any], allowed: AllowList) -> None:
        self.allowed = allowed
        self.refused_total = 0
        self._socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(ENDPOINT)

    @property
    def descriptor(self) -> int:
        return int(self._socket.getsockopt(zmq.FD))

    def drain(self) -> bool:
        """Answers what is there. True if there may be more."""
        for _ in range(DRAIN_MAX):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return False
            reply, let_in = answer(frames[2:], self.allowed)
            self.refused_total += not let_in
            self._socket.send_multipart([*frames[:2], *reply], zmq.NOBLOCK)
        return True

    def close(self) -> None:
        self._socket.close()
