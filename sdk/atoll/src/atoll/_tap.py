"""Taps: looking at events without being a consumer of them.

    TAP ─▶ SUBOK ─▶ CREDIT ─▶ MSG … each event taken out of the queue gives its credit back

Nothing is acknowledged and nothing waits: what the reader does not take in time, the broker drops and counts. The queue
here is bounded by the credit that was given. A tap outlives its session: at the next one it is opened again after the
last seq that came, so a broker's restart loses nothing that is kept.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from . import _codec as wire
from ._errors import BusRefusedError, OverloadedError

if TYPE_CHECKING:
    from ._session import Link

TAPS_MAX = 8
"""At a time; the broker's bound for a session."""
CREDIT_EVENTS = 512
CREDIT_BYTES = 8_388_608
_REFUSALS = frozenset({"ACL", "COMMAND", "GROUP", "LIMIT"})


class Tapped(NamedTuple):
    """One event: its place in the log, and its bytes as they were published (a CloudEvent in JSON)."""

    seq: int
    event: bytes


class Missed(NamedTuple):
    """Events that this tap did not see: how many (None where nobody knows), and why."""

    events: int | None
    why: str


class Tap:
    """One tap. Iterate it inside `async with`, which ends it."""

    def __init__(self, taps: Taps, name: str, topics: Sequence[str], after: int | None) -> None:
        self._taps = taps
        self.name = name
        self.topics = list(topics)
        self.after = after
        """The last seq that came, or where it begins; None: with the next event."""
        self._queue: deque[Tapped | Missed] = deque()
        self._bell = asyncio.Event()
        self._refusal: BusRefusedError | None = None
        self._gaps: set[tuple[int, int]] = set()

    async def __aenter__(self) -> Tap:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._taps.close(self)

    def __aiter__(self) -> Tap:
        return self

    async def __anext__(self) -> Tapped | Missed:
        """The next event, or word of some that were missed. Raises BusRefusedError."""
        while not self._queue:
            if self._refusal is not None:
                raise self._refusal
            self._bell.clear()
            await self._bell.wait()
        item = self._queue.popleft()
        if isinstance(item, Tapped):
            self._taps.credit(self, 1, len(item.event))
        return item

    # ---- told by the session ------------------------------------------------------------------------------------

    def arrived(self, message: wire.Msg, events: Sequence[bytes]) -> None:
        """A MSG of this tap."""
        if message.lost:
            self._put(Missed(message.lost, "this tap was too slow"))
        for (seq, *_), event in zip(message.messages, events, strict=True):
            self.after = seq
            self._put(Tapped(seq, event))

    def gap(self, gaps: Sequence[wire.GapSaid]) -> None:
        """What it asked for is kept no more. The same may be said again."""
        for one in gaps:
            if (one.first, one.last) not in self._gaps:
                self._gaps.add((one.first, one.last))
                self._put(Missed(None, f"seq {one.first} to {one.last}: {one.why}"))

    def refused(self, error: wire.Err) -> None:
        """The broker does not let it be."""
        self._refusal = BusRefusedError(error.code, error.text, error.field)
        self._bell.set()

    def interrupted(self) -> None:
        """The session is gone. Events that nobody asked for by seq are missed until there is another."""
        if self.after is None:
            self._put(Missed(None, "the session with the broker was lost"))

    def _put(self, item: Tapped | Missed) -> None:
        self._queue.append(item)
        self._bell.set()


class Taps:
    """All taps of a session; a Part of it."""

    def __init__(self) -> None:
        self._open: dict[str, Tap] = {}
        self._unanswered: deque[str] = deque()  # TAPs in the order in which the broker answers them
        self._numbers = itertools.count(1)
        self._link: Link | None = None

    def open(self, topics: Sequence[str], after: int | None) -> Tap:
        """A tap from now on. Raises OverloadedError."""
        if len(self._open) >= TAPS_MAX:
            raise OverloadedError(f"{TAPS_MAX} taps are open already")
        tap = Tap(self, f"~t{next(self._numbers)}", topics, after)
        self._open[tap.name] = tap
        self._ask(tap.name, tap.topics, after)
        return tap

    def close(self, tap: Tap) -> None:
        """The end of a tap; twice does nothing."""
        if self._open.pop(tap.name, None) is not None:
            self._ask(tap.name, [], None)

    def credit(self, tap: Tap, events: int, size: int) -> None:
        """What was read may be sent again."""
        if self._link is not None and tap.name in self._open and tap.name not in self._unanswered:
            self._link.send(wire.Credit(tap.name, events, size))

    def _ask(self, name: str, topics: Sequence[str], after: int | None) -> None:
        if self._link is not None:
            self._unanswered.append(name)
            self._link.send(wire.Tap(name, topics, after))

    # ---- Part ----------------------------------------------------------------------------------------------------

    def welcomed(self, link: Link) -> None:
        """Opens them all again."""
        self._link = link
        for tap in self._open.values():
            self._ask(tap.name, tap.topics, tap.after)

    def received(self, message: wire.Incoming, frames: list[bytes]) -> None:
        """SUBOK, MSG and GAP of a tap, and ERR that answers one."""
        match message:
            case wire.SubOk(group=name) if name.startswith("~"):
                self._answered(name)
            case wire.Msg(group=name) if name in self._open:
                self._open[name].arrived(message, wire.decode_raw(frames, len(message.messages)))
            case wire.Gap(group=name) if name in self._open:
                self._open[name].gap(message.gaps)
            case wire.Err() if message.code in _REFUSALS and self._unanswered:
                refused = self._open.get(self._unanswered.popleft())
                if refused is not None:
                    refused.refused(message)

    def lost(self) -> None:
        """What was under way is gone; taps stay."""
        self._link = None
        self._unanswered.clear()
        for tap in self._open.values():
            tap.interrupted()

    def _answered(self, name: str) -> None:
        if self._unanswered and self._unanswered[0] == name:
            self._unanswered.popleft()
        if self._link is not None and name in self._open:
            self._link.send(wire.Credit(name, CREDIT_EVENTS, CREDIT_BYTES))
