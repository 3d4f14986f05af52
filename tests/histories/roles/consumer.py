"""A member of a group with an inbox, in pyzmq and the standard library alone.

All members of a group share one database: inbox row and effect in one commit, and only then the ack. It dawdles between
the delivery and the commit, and between the commit and the ack, so that whatever hits it finds something in its hands.
"""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

from histories.line import Line, LostError, Message
from histories.records import Record, digest
from histories.roles.role import Life, begin

MAX_IN_FLIGHT = 64
BYTES = 1_000_000
DAWDLE_SECONDS_MAX = 0.012
LOCK_SECONDS_MAX = 30.0


class Arrival(NamedTuple):
    """One event of a MSG."""

    seq: int
    attempt: int
    fence: int
    event: Record

    @property
    def said(self) -> list[object]:
        """For the history."""
        event = self.event
        trace = event.get("traceparent")
        return [
            self.seq, self.attempt, self.fence, event["id"], event["type"], event["subject"],
            digest(event["data"]), trace,
        ]  # fmt: skip


class Ledger:
    """The group's inbox and effects. Nothing keeps the same effect from standing here twice but the inbox."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, timeout=LOCK_SECONDS_MAX)
        self._set_wal()
        self._database.execute("PRAGMA synchronous = OFF")  # a kill is no power cut
        self._database.execute("CREATE TABLE IF NOT EXISTS inbox (id TEXT PRIMARY KEY) STRICT")
        self._database.execute("CREATE TABLE IF NOT EXISTS effect (n INTEGER PRIMARY KEY, id TEXT, key TEXT) STRICT")

    def _set_wal(self) -> None:
        """Of two members that convert a new file at once one is refused, whatever its time-out."""
        deadline = time.monotonic() + LOCK_SECONDS_MAX
        while True:
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def handle(self, arrivals: list[Arrival]) -> list[bool]:
        """One commit; for each whether it is new."""
        self._database.execute("BEGIN IMMEDIATE")
        fresh = [self._claim(one) for one in arrivals]
        self._database.execute("COMMIT")
        return fresh

    def _claim(self, one: Arrival) -> bool:
        event_id = one.event["id"]
        claimed = self._database.execute("INSERT OR IGNORE INTO inbox VALUES (?)", (event_id,)).rowcount == 1
        if claimed:
            added = "INSERT INTO effect (id, key) VALUES (?, ?)"
            self._database.execute(added, (event_id, one.event["subject"]))
        return claimed


class Consumer:
    """The loop: deliveries in, verdicts out."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._group: str = life.config.more["group"]
        self._topics: list[str] = life.config.more["topics"]
        self._fails: bool = life.config.more["fails"]
        self._ledger = Ledger(life.config.state / f"{self._group}.db")
        self._previous: str | None = None
        self._held: list[Arrival] = []
        self._held_bytes = 0

    def run(self) -> None:
        """Until SIGTERM."""
        while not self._life.ending:
            line = self._life.line()
            try:
                self._serve(line)
                line.send("BYE", {"reason": "told to end"})
                line.receive(500)
            except LostError as lost:
                self._life.say("lost", session=line.session, why=str(lost))
            finally:
                line.close()
            if not self._life.ending:
                self._life.pause()

    def _serve(self, line: Line) -> None:
        welcome = line.open(self._life.config.slot, resume=self._previous)
        self._previous = line.session
        self._life.say("welcome", session=line.session, boot=welcome["boot"], log=welcome["log"])
        line.send("SUB", {"group": self._group, "topics": self._topics, "max_in_flight": MAX_IN_FLIGHT})
        self._held, self._held_bytes = [], 0
        while not self._life.ending:
            message = line.receive(50)
            while message is not None:
                self._take(line, message)
                message = line.receive(0) if len(self._held) < MAX_IN_FLIGHT else None
            self._handle(line)

    def _take(self, line: Line, message: Message) -> None:
        match message.command:
            case "SUBOK":
                self._life.say("subscribed", session=line.session, group=self._group)
                line.send("CREDIT", {"group": self._group, "events": MAX_IN_FLIGHT, "bytes": BYTES})
            case "MSG":
                self._deliveries(line, message)
            case "STALE":
                header = message.header
                self._life.say("stale", session=line.session, group=header["group"], messages=header["messages"])
            case "ERR":
                self._life.say("err", session=line.session, code=message.header["code"], text=message.header["text"])

    def _deliveries(self, line: Line, message: Message) -> None:
        events = json.loads(message.payload)
        pairs = zip(message.header["messages"], events, strict=True)
        arrivals = [Arrival(seq, attempt, fence, event) for (seq, attempt, _, fence), event in pairs]
        said = [one.said for one in arrivals]
        self._life.say("deliver", session=line.session, group=message.header["group"], messages=said)
        self._held += arrivals
        self._held_bytes += len(message.payload)

    def _handle(self, line: Line) -> None:
        """All that has come, in one commit: a backlog comes in many small messages, and must not take a pause each."""
        if not self._held:
            return
        self._life.pause(DAWDLE_SECONDS_MAX)
        self._judge(line, self._held)
        credit = {"group": self._group, "events": len(self._held), "bytes": self._held_bytes}
        line.send("CREDIT", credit)
        self._held, self._held_bytes = [], 0

    def _judge(self, line: Line, arrivals: list[Arrival]) -> None:
        handled = [one for one in arrivals if not self._fails or one.event["data"]["kind"] not in ("poison", "reject")]
        fresh = self._ledger.handle(handled)
        self._life.pause(DAWDLE_SECONDS_MAX)
        done = [[one.seq, one.fence] for one, new in zip(handled, fresh, strict=True) if new]
        known = [[one.seq, one.fence] for one, new in zip(handled, fresh, strict=True) if not new]
        if handled:
            self._life.say("ack", session=line.session, group=self._group, done=done, duplicate=known)
            line.send("ACK", {"group": self._group, "done": done, "duplicate": known})
        for one in arrivals:
            if one not in handled:
                self._refuse(line, one)

    def _refuse(self, line: Line, one: Arrival) -> None:
        kind, named = one.event["data"]["kind"], [[one.seq, one.fence]]
        error = f"{kind} event {one.event['id']}"
        verdict = {"group": self._group, "messages": named, "error": error}
        if kind == "poison":
            self._life.say("nack", session=line.session, attempt=one.attempt, **verdict)
            line.send("NACK", verdict | {"delay_ms": 50})
        else:
            self._life.say("term", session=line.session, **verdict)
            line.send("TERM", verdict | {"reason": "rejected"})


if __name__ == "__main__":
    Consumer(begin()).run()
