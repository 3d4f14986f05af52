"""One look a second at the fleet, for all viewers together: the cost does not grow with who watches."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from atoll_dashboard.gateway import Trouble

EVERY_SECONDS = 1.0
_log = structlog.get_logger("atoll.dashboard")


@dataclass(frozen=True)
class Gone:
    """A part that does not answer, and since when (seconds since the epoch)."""

    part: str
    text: str
    since: float


@dataclass(frozen=True)
class Seen:
    """The last snapshot, when it came, and what is gone now."""

    snapshot: dict[str, Any] | None = None
    at: float | None = None
    gone: tuple[Gone, ...] = ()


class Source(Protocol):
    """Where snapshots come from."""

    def snapshot(self) -> dict[str, Any]:
        """One. Raises Trouble."""


class Poller:
    """A thread that looks, and what it saw last. Reading it never waits."""

    def __init__(self, source: Source, every_seconds: float = EVERY_SECONDS) -> None:
        self._source = source
        self._every = every_seconds
        self._seen = Seen()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)
        self.failures: dict[str, int] = {}

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join(timeout=0.1)  # it ends with the process: nobody waits for what hangs

    def seen(self) -> Seen:
        """What was seen last."""
        return self._seen

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            self.look()
            self._stopping.wait(max(0.1, self._every - (time.monotonic() - began)))

    def look(self) -> None:
        """Look once."""
        before = self._seen
        try:
            snapshot = self._source.snapshot()
        except Trouble as trouble:
            self._note(trouble)
            self._seen = Seen(before.snapshot, before.at, (self._gone(trouble.part, trouble.text),))
            return
        except Exception as error:  # whatever an answer was: a poller that dies leaves every viewer with the past
            broken = Trouble("control", f"an answer that cannot be read: {error!r}")
            self._note(broken)
            self._seen = Seen(before.snapshot, before.at, (self._gone(broken.part, broken.text),))
            return
        self._seen = Seen(snapshot, time.time(), self._of_bus(snapshot))

    def _of_bus(self, snapshot: dict[str, Any]) -> tuple[Gone, ...]:
        bus = snapshot.get("bus")
        if isinstance(bus, dict) and bus.get("available") is False:
            return (self._gone("broker", str(bus.get("why") or "it does not answer")),)
        return ()

    def _gone(self, part: str, text: str) -> Gone:
        known = next((one for one in self._seen.gone if one.part == part), None)
        return Gone(part, text, known.since if known else time.time())

    def _note(self, trouble: Trouble) -> None:
        self.failures[trouble.part] = self.failures.get(trouble.part, 0) + 1
        if not any(one.part == trouble.part for one in self._seen.gone):
            _log.warning("gone", part=trouble.part, why=trouble.text)
