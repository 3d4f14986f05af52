"""Whether those who look may still look.

The fleet is read with the dashboard's own client, once for everybody, so a page goes on showing it whoever has lost his
access meanwhile. So each session that is in use is asked about now and then, with its operator's own token; one whose
access is gone ends, and its open pages with it (see guard). While gateway, control or auth is away nobody is put out:
those are the minutes in which people look.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from atoll_dashboard.gateway import Refused, Trouble, Withdrawn
from atoll_dashboard.sessions import Session, Sessions

EVERY_SECONDS = 15.0
_ROUND_SECONDS = 1.0
_log = structlog.get_logger("atoll.dashboard")


class Asks(Protocol):
    """Who knows."""

    def confirm(self, session: Session) -> None:
        """Raises Withdrawn or Refused for one who may not look any more, Trouble if nobody can tell."""


class Warden:
    """A thread that asks about every session in use."""

    def __init__(
        self,
        sessions: Sessions,
        asks: Asks,
        every_seconds: float = EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._asks = asks
        self._every = every_seconds
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="warden", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopping.set()
        self._thread.join(timeout=0.1)  # it ends with the process: nobody waits for what hangs

    def _run(self) -> None:
        while not self._stopping.wait(_ROUND_SECONDS):
            try:
                self.round()
            except Exception:  # a warden that dies lets everybody stay
                _log.exception("a round of the warden broke")

    def round(self) -> None:
        """Ask about those whose turn it is; none further once somebody who has to answer is away."""
        now = self._clock()
        for session in self._sessions.in_use(self._every):
            if now - session.confirmed < self._every:
                continue
            session.confirmed = now
            try:
                self._asks.confirm(session)
            except (Withdrawn, Refused) as no:
                if isinstance(no, Refused) and no.status != 403:
                    continue
                _log.info("session ended", username=session.username, why=no.text)
                self._sessions.end(session.id)
            except Trouble:
                return
