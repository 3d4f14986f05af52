"""Planted fault: the relay takes what it is about to send for acknowledged, and sends it a moment later."""

from __future__ import annotations

import asyncio
from typing import Any

from atoll import _codec as wire
from atoll import _relay, _session

send_some = _relay.Relay._send_some
send = _session.Link.send
GAP_SECONDS = 0.05


async def send_some_later(self: _relay.Relay) -> bool:
    """Forgets first."""
    more = await send_some(self)
    if self._sent:
        self._acknowledged(self._sent[-1].pseq, [])
    return more


def send_later(self: _session.Link, message: Any, payload: bytes | None = None) -> None:
    """Everything at once but the PUBs."""
    if isinstance(message, wire.Pub):
        asyncio.get_running_loop().call_later(GAP_SECONDS, send, self, message, payload)
    else:
        send(self, message, payload)


_relay.Relay._send_some = send_some_later  # type: ignore[method-assign]
_session.Link.send = send_later  # type: ignore[method-assign]
