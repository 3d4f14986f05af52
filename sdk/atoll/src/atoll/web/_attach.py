"""skeleton"""
from __future__ import annotations
from collections.abc import Callable, Sequence
from aiohttp import web
from .._database import Database
from .._events import SubscriptionTable
from .._options import Options
from .._session import Session


class Attachment:
    """What `attach` has added to an application."""

    session: Session


def attach(
    app: web.Application,
    options: Options,
    *,
    events: SubscriptionTable | None = None,
    database: Database | None = None,
    prefixes: Sequence[str] = (),
    session_hooks: Sequence[Callable[[Session], None]] | None = None,
) -> Attachment:
    """Makes `app` a service of the system: bus session, relay, consumer, health, metrics, assertion, problems, spans."""
    raise NotImplementedError
