"""A publisher with an outbox, in pyzmq and the standard library alone.

It makes events at a rate and keeps each in its outbox, with its pseq, before it says a word about it. Most are plain.
Some are *poison* (the ledger fails on them until they are dead letters) or *rejected* (dead letters at once), each
followed by a plain one of the same key. Some are *bad*: the broker refuses them for good, and nobody may ever see them.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from histories.line import Line, LostError
from histories.records import Record, digest, dumps
from histories.roles.role import Config, Life, begin

BATCH_EVENTS = 48
IN_FLIGHT_EVENTS = 192
EXIT_STOPPED = 3
SCHEMA = {
    "type": "object",
    "required": ["n", "kind"],
    "properties": {"n": {"type": "integer"}, "kind": {"type": "string"}},
}
#: In 10,000 events: what is not plain.
POISON, REJECT, BAD_DATA, BAD_TOPIC, TOO_LARGE = 60, 60, 60, 30, 10


class Maker:
    """Makes the n-th event of a publisher: always the same one for a seed."""

    def __init__(self, config: Config) -> None:
        self._name = config.identity
        self._seed = config.seed
        self._topic: str = config.more["topic"]
        self._keys: int = config.more["keys"]
        self._event_bytes_max: int = config.more["event_bytes_max"]

    def make(self, n: int, causes: list[str]) -> tuple[Record, str]:
        """The event's record (without producer and pseq), and its body."""
        kind, key = self._choose(n)
        chance = random.Random(f"{self._seed}/{self._name}/{n}/body")
        data: Record = {"n": n, "kind": kind, "pad": "é" * chance.randrange(0, 60)}
        topic = self._topic
        if kind == "bad-data":
            data["n"] = str(n)
        if kind == "too-large":
            data["pad"] = "x" * self._event_bytes_max
        if kind == "bad-topic":
            topic = "ledger.book.forged.v1"
        trace = f"00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-01"
        event = _event(f"{self._name}-{n}", self._name, topic, key, trace, data)
        record = {
            "op": "pub", "id": event["id"], "topic": topic, "key": key, "digest": digest(data), "trace": trace,
            "kind": kind, "causes": causes,
        }  # fmt: skip
        return record, dumps(event)

    def _choose(self, n: int) -> tuple[str, str]:
        """Kind and key. Who follows a poison or a rejected one is plain and has its key."""
        kind, key = self._draw(n)
        if kind == "plain" and n > 1:
            before, its_key = self._draw(n - 1)
            if before in ("poison", "reject"):
                return "plain", its_key
        return kind, key

    def _draw(self, n: int) -> tuple[str, str]:
        chance = random.Random(f"{self._seed}/{self._name}/{n}")
        throw = chance.randrange(10_000)
        for kind, share in (
            ("poison", POISON), ("reject", REJECT), ("bad-data", BAD_DATA), ("bad-topic", BAD_TOPIC),
            ("too-large", TOO_LARGE),
        ):  # fmt: skip
            if throw < share:
                return kind, f"{kind}-{self._name}-{n}"
            throw -= share
        return "plain", f"k-{chance.randrange(self._keys):03}"


def _event(event_id: str, source: str, topic: str, key: str, trace: str, data: Record) -> Record:
    return {
        "specversion": "1.0", "id": event_id, "source": f"/{source}", "type": topic, "subject": key,
        "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json", "data": data, "traceparent": trace,
    }  # fmt: skip


class Outbox:
    """What was made and is not acknowledged; it outlives the process. A kill is no power cut, so nothing is fsynced."""

    def __init__(self, path: Path, identity: str) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;"
            "CREATE TABLE IF NOT EXISTS producer (name TEXT, made INTEGER, acked INTEGER) STRICT;"
            "CREATE TABLE IF NOT EXISTS event (pseq INTEGER PRIMARY KEY, record TEXT, body TEXT) STRICT;"
        )
        if self._database.execute("SELECT count(*) FROM producer").fetchone()[0] == 0:
            self._database.execute("INSERT INTO producer VALUES (?, 0, 0)", (f"{identity}/{uuid.uuid4()}",))
        found = self._database.execute("SELECT name, made, acked FROM producer").fetchone()
        self.producer, self.made, self.acked = found

    def append(self, events: list[tuple[Record, str]]) -> None:
        """Numbers and keeps; all or none."""
        self._database.execute("BEGIN IMMEDIATE")
        for record, body in events:
            self.made += 1
            record |= {"producer": self.producer, "pseq": self.made}
            self._database.execute("INSERT INTO event VALUES (?, ?, ?)", (self.made, dumps(record), body))
        self._database.execute("UPDATE producer SET made = ?", (self.made,))
        self._database.execute("COMMIT")

    def records(self) -> list[Record]:
        """Of everything that is here."""
        rows = self._database.execute("SELECT record FROM event ORDER BY pseq").fetchall()
        return [json.loads(row[0]) for row in rows]

    def bodies(self, first: int, count: int) -> list[str]:
        """From pseq `first` on."""
        asked = "SELECT body FROM event WHERE pseq >= ? ORDER BY pseq LIMIT ?"
        return [row[0] for row in self._database.execute(asked, (first, count))]

    def forget(self, upto: int) -> None:
        """They are acknowledged."""
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("DELETE FROM event WHERE pseq <= ?", (upto,))
        self._database.execute("UPDATE producer SET acked = ?", (upto,))
        self._database.execute("COMMIT")
        self.acked = upto


class FellBackError(Exception):
    """The broker has less than it acknowledged: what is missing is no longer here, so the relay stops (wire-1, 6)."""


class Publisher:
    """The loop: make what is due, send what is not acknowledged, hear."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._more = life.config.more
        self._outbox = Outbox(life.config.state / f"{life.config.role}.db", life.config.identity)
        self._maker = Maker(life.config)
        self._previous: str | None = None
        self._sent = 0
        # Said again, because the last life may have been killed before it could say so; a record may come twice.
        life.recorder.say_all(self._outbox.records())

    @property
    def _acked(self) -> int:
        return int(self._outbox.acked)

    @property
    def finished(self) -> bool:
        """Nothing more to make, and all that was made is acknowledged."""
        return self._life.ending and self._acked == self._outbox.made

    def run(self) -> None:
        """Until it is finished."""
        while not self.finished:
            line = self._life.line()
            try:
                self._open(line)
                while not self.finished:
                    self._turn(line)
                self._life.say("finished", made=self._outbox.made)
                line.send("BYE", {"reason": "finished"})
                line.receive(500)
            except LostError as lost:
                self._life.say("lost", session=line.session, why=str(lost))
            except FellBackError as error:
                self._life.say("stopped", session=line.session, why=str(error))
                return
            finally:
                line.close()
            if not self.finished:
                self._life.pause()

    def wait_for_the_end(self) -> int:
        """After `run`: a relay that has stopped is an alarm, not a crash. It waits to be told to end; the exit code."""
        if self.finished:
            return 0
        while not self._life.ending:
            self._life.pause()
        return EXIT_STOPPED

    def _open(self, line: Line) -> None:
        publishes = {self._more["topic"]: SCHEMA}
        slot, producer = self._life.config.slot, self._outbox.producer
        welcome = line.open(slot, producer=producer, publishes=publishes, resume=self._previous)
        self._previous = line.session
        state = welcome["producer"]
        self._life.say(
            "welcome", session=line.session, boot=welcome["boot"], log=welcome["log"], producer=producer,
            mark=state["mark"], last_id=state["last_id"], refused=_refused(state),
        )  # fmt: skip
        if state["mark"] < self._acked:
            raise FellBackError(f"{self._acked} were acknowledged, and now the broker has {state['mark']}")
        self._sent = state["mark"]
        self._acknowledged(state["mark"])

    def _turn(self, line: Line) -> None:
        self._make()
        while self._sent < self._outbox.made and self._sent - self._acked < IN_FLIGHT_EVENTS:
            self._send(line)
        message = line.receive(20)
        if message is None:
            return
        if message.command == "PUBACK":
            header = message.header
            self._life.say("puback", session=line.session, upto=header["upto"], refused=_refused(header))
            self._acknowledged(header["upto"])
        elif message.command == "PUBNACK":
            self._life.say("pubnack", session=line.session, **message.header)
            self._sent = self._acked
            self._life.pause(0.1)

    def _make(self) -> None:
        due = int((time.monotonic() - self._more["began"]) * self._more["rate"])
        if self._life.ending or due <= self._outbox.made:
            return
        causes = self._others_acked()
        count = min(due - self._outbox.made, BATCH_EVENTS)
        made = [self._maker.make(self._outbox.made + 1 + index, causes) for index in range(count)]
        self._outbox.append(made)
        self._life.recorder.say_all([record for record, _ in made])

    def _send(self, line: Line) -> None:
        bodies = self._outbox.bodies(self._sent + 1, BATCH_EVENTS)
        first, last = self._sent + 1, self._sent + len(bodies)
        self._life.say("send", session=line.session, first=first, last=last)
        line.send("PUB", {"producer": self._outbox.producer, "first": first}, f"[{','.join(bodies)}]")
        self._sent = last

    def _acknowledged(self, upto: int) -> None:
        # After a WELCOME the broker may still commit what the last session sent, and acknowledges it to this one.
        self._sent = max(self._sent, upto)
        if upto <= self._acked:
            return
        self._outbox.forget(upto)
        self._pass_on(f"{self._life.config.identity}-{upto}")

    # ---- who was acknowledged before what another publisher sends ------------------------------------------------

    def _pass_on(self, event_id: str) -> None:
        """Lets the other publishers know; whoever reads this makes its next events after this one was acknowledged."""
        baton = self._baton(self._life.config.identity)
        draft = baton.with_suffix(".draft")
        draft.write_text(event_id)
        draft.replace(baton)

    def _others_acked(self) -> list[str]:
        paths = (self._baton(name) for name in self._more["others"])
        return [path.read_text() for path in paths if path.exists()]

    def _baton(self, name: str) -> Path:
        return self._life.config.state / f"{name}.acked"


def _refused(header: Record) -> list[list[Any]]:
    return [[one["pseq"], one["code"]] for one in header["refused"]]


if __name__ == "__main__":
    publisher = Publisher(begin())
    publisher.run()
    sys.exit(publisher.wait_for_the_end())
