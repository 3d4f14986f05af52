"""skeleton"""
from __future__ import annotations
from collections.abc import Callable
from typing import Any
from ._options import Options

Watcher = Callable[[Any, bool], None]

class Session:
    """One session with the broker. `async with Session(options) as session:` runs it, reconnecting for ever."""

    def __init__(self, options: Options) -> None:
        self._options = options

    @property
    def state(self) -> str:
        """`connecting`, `up` or `down: why`."""
        return "connecting"

    def watch(self, kind: str, callback: Watcher) -> None:
        """Calls `callback(value, settled)` on the loop with the whole value, at once and whenever it changes."""

    async def put(self, kind: str, value: object) -> None:
        """Sets a state (auth: keys, revocations). Raises BusUnavailableError or BusRefusedError."""

    async def admin(self, verb: str, **args: object) -> dict[str, Any]:
        """An operator's request. Raises BusUnavailableError or BusRefusedError."""
        return {}

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        return
