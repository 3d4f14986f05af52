"""What one process has once, for every page of every viewer."""

from __future__ import annotations

from dataclasses import dataclass

from atoll_dashboard.config import Options
from atoll_dashboard.gateway import Gateway
from atoll_dashboard.jaeger import Jaeger
from atoll_dashboard.poller import Poller
from atoll_dashboard.sessions import Sessions


@dataclass(frozen=True)
class World:
    """The process's handles."""

    options: Options
    poller: Poller
    sessions: Sessions
    gateway: Gateway
    jaeger: Jaeger


_world: World | None = None


def begin(made: World) -> None:
    """Make it known to the pages. The server does that before the first page is drawn."""
    global _world
    _world = made


def world() -> World:
    """The process's handles. Raises RuntimeError before the server has begun."""
    if _world is None:
        raise RuntimeError("the dashboard has not begun: run `python -m atoll_dashboard`")
    return _world
