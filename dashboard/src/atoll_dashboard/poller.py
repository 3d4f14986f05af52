"""One look a second at the fleet, for all viewers together: the cost does not grow with who watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from atoll_dashboard import snapshot, states, wording
from atoll_dashboard.gateway import AGENT, Trouble
from atoll_dashboard.snapshot import Snapshot, SnapshotError

EVERY_SECONDS = 1.0
#: What that means: everything runs on as it is, so its absence is not to be seen in anything else.
_WITHOUT_AGENT = "nobody starts parts again or carries out acts"
#: Whose word the gateway waits for when it waits, and who carries it.
_AWAITED = ("auth", "broker")
_log = structlog.get_logger("atoll.dashboard")


@dataclass(frozen=True)
class Gone:
    """A part that does not answer, and since when (seconds since the epoch); or one that `waits` for another's word."""

    part: str
    text: str
    since: float
    waits: bool = False


@dataclass(frozen=True)
class Seen:
    """The last snapshot, when it came, and what is gone now; `whole` is the last one that had the bus's numbers."""

    snapshot: Snapshot | None = None
    at: float | None = None  # seconds since the epoch, for people to read
    came: float | None = None  # the same moment by the monotonic clock: the other may be set back, and nothing grew old
    heard: float | None = None  # when the last one came that the agent stood behind, by the monotonic clock too
    gone: tuple[Gone, ...] = ()
    whole: Snapshot | None = None

    def age_seconds(self, monotonic: float) -> float:
        """How old the snapshot is at that moment; infinite without one."""
        return _since(self.came, monotonic)

    def states_age_seconds(self, monotonic: float) -> float:
        """How old the parts' states are: older than the snapshot while the agent is gone."""
        return _since(self.heard, monotonic)


def _since(moment: float | None, monotonic: float) -> float:
    return float("inf") if moment is None else monotonic - moment


class Source(Protocol):
    """Where snapshots come from."""

    def snapshot(self) -> dict[str, Any]:
        """One. Raises Trouble."""


class Poller:
    """A thread that looks, and what it saw last. Reading it never waits."""

    def __init__(
        self,
        source: Source,
        every_seconds: float = EVERY_SECONDS,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._every = every_seconds
        self._wall, self._monotonic = wall, monotonic
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
        try:
            found = snapshot.read(self._source.snapshot())
        except Trouble as trouble:
            self._miss(trouble)
        except SnapshotError as error:
            self._miss(Trouble("control", f"it says what this dashboard does not understand: {error}"))
        except Exception as error:  # whatever an answer was: a poller that dies leaves every viewer with the past
            self._miss(Trouble("control", f"an answer that cannot be read: {error!r}"))
        else:
            now = self._monotonic()
            heard = now if found.agent.heard else self._seen.heard
            whole = found if found.bus.available else self._seen.whole
            self._seen = Seen(found, self._wall(), now, heard, self._missed(found), whole)

    def _miss(self, trouble: Trouble) -> None:
        """Nothing new: what was known stays, and grows old."""
        self._note(trouble)
        gone: tuple[Gone, ...] = (self._gone(trouble.part, trouble.text, waits=trouble.waits),)
        if trouble.waits:
            gone += self._still_gone()
        self._seen = replace(self._seen, gone=gone)

    def _still_gone(self) -> tuple[Gone, ...]:
        """Those of whom the gateway has not heard, and who were not there before: they are not back yet."""
        named = {one.part: one for one in self._seen.gone}
        last = self._seen.snapshot
        parts = {part.name: part for part in last.parts} if last is not None else {}
        found = []
        for name in _AWAITED:
            if name in named:
                found.append(named[name])
            elif (part := parts.get(name)) is not None and part.state in states.GONE:
                found.append(self._gone(name, f"when last heard of: {part.why or part.state}"))
            elif name == "broker" and last is not None and not last.bus.available:
                found.append(self._gone(name, f"when last heard of: {last.bus.why or 'it did not answer'}"))
        return tuple(found)

    def _missed(self, found: Snapshot) -> tuple[Gone, ...]:
        """Whom control itself does not hear."""
        missed = []
        if not found.agent.heard:
            why = wording.reason(AGENT, found.agent.why) or "it does not answer"
            missed.append(self._gone(AGENT, f"{_WITHOUT_AGENT}; {why}"))
        if not found.bus.available:
            missed.append(self._gone("broker", found.bus.why or "it does not answer"))
        return tuple(missed)

    def _gone(self, part: str, text: str, *, waits: bool = False) -> Gone:
        known = next((one for one in self._seen.gone if one.part == part), None)
        return Gone(part, text, known.since if known else self._wall(), waits)

    def _note(self, trouble: Trouble) -> None:
        self.failures[trouble.part] = self.failures.get(trouble.part, 0) + 1
        if not any(one.part == trouble.part for one in self._seen.gone):
            _log.warning("gone", part=trouble.part, why=trouble.text)
