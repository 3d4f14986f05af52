"""The witness at work: a session after another, and in each: take what came, store it in one commit, then acknowledge.

    HELLO ─▶ WELCOME ─▶ SUB ─▶ SUBOK ─▶ CREDIT ─▶ MSG … ─▶ store, fsync ─▶ ACK, CREDIT        PING every heartbeat
                                                    └─▶ no room: BYE. What is held goes back, its attempts unchanged

An ACK is sent only for what is on the disk. If the session ends between the commit and the ACK, the events come again,
are found, and acknowledged as duplicates. Nothing is ever refused (NACK, TERM): a witness that does not like an event
keeps it all the same, and an event that is never acknowledged waits in the broker's log and is not lost.

With a full disk it leaves the bus instead of holding on: leases that run out would count as attempts, and at the last
one the broker would give the event up. It comes back every few seconds and tries; that is the whole recovery.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import random
import time
import uuid
from collections import Counter
from typing import Any

import zmq

from atoll_journal import codec
from atoll_journal.errors import EndedError, NoRoomError, WireError
from atoll_journal.ledger import Ledger, Sighting
from atoll_journal.line import Line
from atoll_journal.logs import Log
from atoll_journal.settings import Settings

SDK = "none"
VERSION = importlib.metadata.version("atoll-journal")
IN_FLIGHT_EVENTS_MAX = 256
IN_FLIGHT_BYTES_MAX = 8_388_608
"""What the broker may have sent and not got back as credit."""
HELLO_SECONDS = 2.0
BACKOFF_SECONDS = (0.2, 1.0)
"""Between sessions: full jitter below the first, doubling to the second while none comes about."""
REFUSED_SECONDS = 5.0
NO_ROOM_SECONDS = 5.0
SILENT_HEARTBEATS_MAX = 4
DRAIN_SECONDS = 0.25
BYE_SECONDS = 0.5


class Witness:
    """`run` is its task, until `stop`. The public fields are what health and metrics show."""

    def __init__(self, settings: Settings, ledger: Ledger, log: Log) -> None:
        self._settings = settings
        self._ledger = ledger
        self._log = log
        self._process = str(uuid.uuid4())
        self._previous: str | None = None
        self._stopping = asyncio.Event()
        self.up = False
        self.sessions = 0
        self.why = "no session yet"
        self.no_room = ""
        self.refused = ""
        self.counts: Counter[str] = Counter(handled=0, duplicate=0, stale=0)
        self.gaps: dict[int, tuple[int, str]] = {}
        """What the broker says will never come: first seq → (last seq, why). It says so again at each SUB."""

    @property
    def degraded(self) -> list[str]:
        """What does not work now, for /ready."""
        found = [] if self.up else ["bus"]
        if self.no_room:
            found.append(f"storage: {self.no_room}; nothing is acknowledged until there is room")
        if self.refused:
            found.append(f"consumer: {self.refused}")
        if self.gaps:
            missing = ", ".join(f"{first} to {last} ({why})" for first, (last, why) in sorted(self.gaps.items()))
            found.append(f"bus: the record has gaps that nothing will fill: seq {missing}"[:1000])
        if self._ledger.violations:
            found.append(
                f"bus: {self._ledger.violations} violations were seen; `python -m atoll_journal verify` tells them"
            )
        return found

    def stop(self) -> None:
        """Ends the session in good order, then `run`."""
        self._stopping.set()

    async def run(self) -> None:
        """Raises StorageError when the database can not be trusted any more."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        failures = 0
        try:
            while not self._stopping.is_set():
                before = self.sessions
                wait = await self._one(context)
                failures = 0 if self.sessions > before else failures + 1
                first, most = BACKOFF_SECONDS
                await self._sleep(random.uniform(0, wait or min(most, first * 2 ** min(failures, 8))))  # noqa: S311
        finally:
            context.destroy(linger=0)

    async def _one(self, context: zmq.Context[zmq.Socket[bytes]]) -> float | None:
        """One session, to its end; for how long to stay away at most, if that is not as usual."""
        line = Line(context, self._settings)
        try:
            await self._session(line)
        except EndedError as end:
            self._down(str(end))
            return REFUSED_SECONDS if end.refused else None
        except WireError as error:
            self._log.error("the broker sent what is not wire 1", error=str(error)[:500])
            self._down(f"the broker sent what is not wire 1: {error}"[:200])
        except NoRoomError as error:
            if self.no_room != str(error):
                self._log.error("no room: nothing is acknowledged until there is", why=str(error), alarm=True)
            self.no_room = str(error)
            await self._bye(line, "no room")
            self._down("no room for events")
            return NO_ROOM_SECONDS
        finally:
            self.up = False
            line.close()
        return None

    async def _session(self, line: Line) -> None:
        """Raises EndedError, WireError, NoRoomError, StorageError; returns when it is to stop."""
        welcome = await self._hello(line)
        self._previous = welcome["session"]
        self.up, self.why, self.refused = True, "", ""
        self.sessions += 1
        self._log.info("bus up", session=welcome["session"], boot=welcome["boot"], log=welcome["log"])
        line.send(
            codec.encode(
                "SUB", group=self._settings.name, topics=list(self._settings.topics), max_in_flight=IN_FLIGHT_EVENTS_MAX
            )
        )
        await self._keep(line, welcome["log"], welcome["heartbeat_ms"] / 1000)
        await self._leave(line, welcome["log"])

    async def _hello(self, line: Line) -> dict[str, Any]:
        line.send(
            codec.encode(
                "HELLO",
                slot=self._settings.slot,
                process=self._process,
                sdk=SDK,
                version=VERSION,
                contracts={"publishes": {}, "consumes": list(self._settings.topics)},
                resume=self._previous,
            )
        )
        deadline = time.monotonic() + HELLO_SECONDS
        while (left := deadline - time.monotonic()) > 0 and not self._stopping.is_set():
            for frames in await line.receive(left):
                message = codec.decode_from_broker(frames)
                if message is not None and message.command == "WELCOME":
                    return message.header
                if message is not None:
                    self._heed(message, in_session=False)
        raise EndedError(f"no answer to HELLO within {HELLO_SECONDS:g} s: broker down, or key not in its allow-list")

    async def _keep(self, line: Line, log: str, heartbeat: float) -> None:
        """Pings and takes, until it is to stop or the broker is silent."""
        heard = pinged = time.monotonic()
        line.send(codec.encode("PING"))
        while not self._stopping.is_set():
            due = pinged + heartbeat
            arrived = await line.receive(min(due - time.monotonic(), 0.25))
            now = time.monotonic()
            if arrived:
                heard = now
                self._take(line, log, arrived)
            if now - due > heartbeat:  # we were not reading (a slow disk): the silence says nothing about the broker
                heard = now
            if now >= due:
                lag = round((now - due) * 1000, 1)
                line.send(codec.encode("PING", lag_ms=lag, ready=True, why=""))
                pinged = now
            if now - heard > SILENT_HEARTBEATS_MAX * heartbeat:
                raise EndedError(f"the broker was silent for {now - heard:.1f} s")

    # ---- what comes ----------------------------------------------------------------------------------------------

    def _take(self, line: Line, log: str, arrived: list[list[bytes]]) -> None:
        """Stores all deliveries among these messages in one commit, then answers them."""
        sightings: list[Sighting] = []
        fences: dict[int, int] = {}
        ended: EndedError | None = None
        for frames in arrived:
            message = codec.decode_from_broker(frames)
            if message is None:
                continue
            if message.command == "MSG" and message.events is not None:
                for (seq, _attempt, _lease, fence), event in zip(
                    message.header["messages"], message.events, strict=True
                ):
                    sightings.append(Sighting.of(seq, event.raw, event.fields))
                    fences[seq] = fence
            elif message.command == "SUBOK":
                self._credit(line, IN_FLIGHT_EVENTS_MAX, IN_FLIGHT_BYTES_MAX)
            else:
                try:
                    self._heed(message, in_session=True)
                except EndedError as error:  # the session is gone, but what came before it ended can still be kept
                    ended = error
        if sightings:
            self._store(line, log, sightings, fences)
        if ended is not None:
            raise ended

    def _store(self, line: Line, log: str, sightings: list[Sighting], fences: dict[int, int]) -> None:
        stored = self._ledger.store(log, sightings)
        if self.no_room:
            self._log.info("there is room again")
            self.no_room = ""
        for violation in stored.violations:
            self._log.error(
                "the bus broke a promise", kind=violation.kind, seq=violation.seq, subject=violation.subject,
                text=violation.text, alarm=True,
            )  # fmt: skip
        group = self._settings.name
        done = [[seq, fences[seq]] for seq in stored.new]
        duplicate = [[seq, fences[seq]] for seq in stored.known]
        line.send(codec.encode("ACK", group=group, done=done, duplicate=duplicate))
        self._credit(line, len(sightings), sum(len(each.raw) for each in sightings))
        self.counts["handled"] += len(done)
        self.counts["duplicate"] += len(duplicate)

    def _credit(self, line: Line, events: int, size: int) -> None:
        line.send(codec.encode("CREDIT", group=self._settings.name, events=events, bytes=size))

    def _heed(self, message: codec.Message, *, in_session: bool) -> None:
        """What is no delivery. Raises EndedError."""
        header = message.header
        match message.command:
            case "FENCED" | "BYE":
                raise EndedError(f"the broker ended the session: {header['reason']}"[:200])
            case "ERR":
                text = f"{header['code']}: {header['text']}" + (f" ({header['field']})" if header["field"] else "")
                self._log.error("the broker refused", code=header["code"], text=header["text"], field=header["field"])
                if header["closes"]:
                    raise EndedError(text[:200], refused=not in_session)
                self.refused = text[:200]
            case "STALE":
                self.counts["stale"] += len(header["messages"])
            case "GAP":
                self._note_gaps(header["gaps"])

    def _note_gaps(self, gaps: list[dict[str, Any]]) -> None:
        """A witness whose record is not whole says so for as long as the broker does."""
        for gap in gaps:
            if self.gaps.get(gap["first"]) != (gap["last"], gap["why"]):
                self.gaps[gap["first"]] = (gap["last"], gap["why"])
                self._log.error("a gap", first=gap["first"], last=gap["last"], why=gap["why"], alarm=True)

    # ---- ends ----------------------------------------------------------------------------------------------------

    async def _leave(self, line: Line, log: str) -> None:
        """DRAIN: nothing new; store what is under way; BYE hands back the rest."""
        with contextlib.suppress(EndedError):
            line.send(codec.encode("DRAIN", group=self._settings.name))
            deadline = time.monotonic() + DRAIN_SECONDS
            while (left := deadline - time.monotonic()) > 0:
                self._take(line, log, await line.receive(left))
        await self._bye(line, "drained")

    async def _bye(self, line: Line, reason: str) -> None:
        """Waits for the broker's BYE, for a moment: without it nothing is lost, leases end by themselves."""
        line.send(codec.encode("BYE", reason=reason))
        deadline = time.monotonic() + BYE_SECONDS
        with contextlib.suppress(EndedError, WireError):
            while (left := deadline - time.monotonic()) > 0:
                for frames in await line.receive(left):
                    message = codec.decode_from_broker(frames)
                    if message is not None and message.command == "BYE":
                        return

    def _down(self, why: str) -> None:
        if why != self.why:  # once a reason, not once a try
            self._log.warning("bus down", why=why)
        self.why = why

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
