"""Who talks to the broker under test: a publisher with an outbox, consumers with an inbox, a keeper of keys.

Each is a state and a handler of messages; `play` drives them all over one process of the broker until everything is
done, or that process has died. What they know survives the broker, as a service's database does, and every rule that
can be broken is asserted where it would be seen to break.
"""

from __future__ import annotations

import json
import socket
import sqlite3
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from polling import poll_until
from rawbus import Peer
from rawbus import event as cloud_event
from syscalls.ground import PLACED, Ground
from syscalls.processes import Part

#: For a script that takes a fifth of a second.
PLAY_SECONDS_MAX = 10.0
PING_SECONDS = 0.5
#: PUBs that may be on their way.
PUBS_IN_FLIGHT = 2
SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
Header = dict[str, Any]
Events = list[dict[str, Any]]


class DiedError(Exception):
    """The broker's process has ended in the middle of the script."""


class Line(Peer):
    """A Peer that never waits, and keeps a payload."""

    def take(self) -> tuple[str, Header, Events] | None:
        """The next message that is here."""
        try:
            frames = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        events = json.loads(frames[2]) if len(frames) > 2 else []
        return frames[0][2:].decode(), json.loads(frames[1]), events


class Client:
    """One identity. `line` is its socket of the present session, None between sessions."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.process = str(uuid.uuid4())
        self.line: Line | None = None
        self.up = False
        self._pinged = 0.0

    def connect(self, ground: Ground) -> None:
        """A new socket and HELLO on it; the answer is for `receive`."""
        self.line = Line(ground.endpoint, ground.keys(self.identity), ground.server_key)
        self.up = False
        self._pinged = time.monotonic()
        self.say("HELLO", self.hello())

    def disconnect(self) -> None:
        """The socket goes, without a word."""
        if self.line is not None:
            self.line.close()
        self.line, self.up = None, False

    def hello(self) -> Header:
        """The header of HELLO."""
        return {
            "slot": f"{self.identity}/1", "process": self.process, "sdk": "raw/0", "version": "0.0.0", "resume": None,
            "producer": None, "endpoints": None, "contracts": {"publishes": {}, "consumes": []},
        }  # fmt: skip

    def say(self, command: str, header: Header, payload: Events | None = None) -> None:
        """Send one command."""
        assert self.line is not None
        self.line.send(command, header, payload)

    def receive(self) -> bool:
        """Handle every message that is here; whether there was any."""
        taken = 0
        while self.line is not None and (message := self.line.take()) is not None:
            command, header, events = message
            assert command not in ("ERR", "FENCED", "BYE"), f"{self.identity} was told {command} {header}"
            if command == "WELCOME":
                self.up = True
            self.handle(command, header, events)
            taken += 1
        self._ping()
        return taken > 0

    def _ping(self) -> None:
        if self.line is not None and self.up and time.monotonic() - self._pinged > PING_SECONDS:
            self._pinged = time.monotonic()
            self.say("PING", {})

    def handle(self, command: str, header: Header, events: Events) -> None:
        """What a message means here."""

    def advance(self) -> None:
        """Say what can be said now."""

    @property
    def done(self) -> bool:
        """Whether all that was planned has happened and is acknowledged."""
        return True


@dataclass(frozen=True)
class Made:
    """An event of the outbox. `unit`: those of one number go into one PUB."""

    pseq: int
    unit: int
    event: dict[str, Any]
    refused: bool

    @property
    def id(self) -> str:
        """The event's id."""
        return str(self.event["id"])


class Publisher(Client):
    """An outbox and its relay: sends from mark + 1, forgets nothing."""

    def __init__(self) -> None:
        super().__init__("shop")
        self.producer = f"shop/{uuid.uuid4()}"
        self.made: list[Made] = []
        self.acked = 0
        """The highest pseq that a PUBACK or a WELCOME has named; the broker may never lose it."""
        self._sent = 0
        self._next = 0
        self._units = 0

    def plan(self, sizes: Sequence[int], keys: int, *, spoiled: int) -> None:
        """One PUB a size; over so many keys. The event number `spoiled` of the plan breaks its schema."""
        for size in sizes:
            self._units += 1
            for _ in range(size):
                pseq = len(self.made) + 1
                spoiled -= 1
                data = {"n": "no number" if spoiled == -1 else pseq}
                event = cloud_event("shop", PLACED, f"o-{pseq % keys}", data, id=f"{self.producer}/{pseq}")
                self.made.append(Made(pseq, self._units, event, refused=spoiled == -1))

    def hello(self) -> Header:
        """See Client."""
        contracts = {"publishes": {PLACED: SCHEMA}, "consumes": []}
        return super().hello() | {"producer": self.producer, "contracts": contracts}

    def handle(self, command: str, header: Header, events: Events) -> None:
        """See Client."""
        if command == "WELCOME":
            mark = header["producer"]["mark"]
            assert self.acked <= mark <= self._sent, f"acked {self.acked}, sent {self._sent}; the broker has {mark}"
            last = [one.id for one in self.made[:mark] if not one.refused][-1:]
            assert header["producer"]["last_id"] in (*last, None) or not last, f"{header['producer']}, not {last}"
            self.acked, self._next = mark, mark + 1  # on disk, whether or not the PUBACK was heard
        elif command == "PUBACK":
            assert header["upto"] <= self._sent, f"acked {header['upto']} of {self._sent} sent"
            for refusal in header["refused"]:
                assert self.made[refusal["pseq"] - 1].refused, f"refused: {refusal}"
            self.acked = max(self.acked, header["upto"])
        elif command == "PUBNACK":
            raise AssertionError(f"nothing was skipped and nothing is full, but: {header}")

    def advance(self) -> None:
        """See Client."""
        while self.up and self._next <= len(self.made):
            unit = self.made[self._next - 1].unit
            acked_unit = self.made[self.acked - 1].unit if self.acked else 0
            if unit > acked_unit + PUBS_IN_FLIGHT:
                return
            batch = [one for one in self.made[self._next - 1 :] if one.unit == unit]
            self._sent = max(self._sent, batch[-1].pseq)
            self.say("PUB", {"producer": self.producer, "first": self._next}, [one.event for one in batch])
            self._next = batch[-1].pseq + 1

    @property
    def done(self) -> bool:
        """See Client."""
        return self.acked == len(self.made)


class Consumer(Client):
    """A group's only member. Inbox and effects are one SQLite database, each event one transaction of both."""

    def __init__(self, group: str, folder: Path, topic: str = PLACED) -> None:
        super().__init__(group)
        self._topic = topic
        self._database = sqlite3.connect(folder / f"{group}.db", isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;"  # this process is not killed
            "CREATE TABLE inbox (id TEXT PRIMARY KEY) WITHOUT ROWID;"
            "CREATE TABLE effects (position INTEGER PRIMARY KEY, id TEXT, subject TEXT, n INTEGER)"
        )
        self.wanted = 0
        """Effects that there should be in the end."""
        self.fences: set[int] = set()
        self.places: dict[int, str] = {}
        """seq -> event id, over all deliveries: one seq is one event, whatever dies."""
        self.deliveries = 0
        self.tried_again = 0

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def handle(self, command: str, header: Header, events: Events) -> None:
        """See Client."""
        if command == "WELCOME":
            self.say("SUB", {"group": self.identity, "topics": [self._topic], "max_in_flight": 64})
        elif command == "SUBOK":
            self.say("CREDIT", {"group": self.identity, "events": 64, "bytes": 1 << 20})
        elif command == "MSG":
            keys = [one["subject"] for one in events]
            assert len(set(keys)) == len(keys), f"two events of one key leased at a time: {keys}"
            for (seq, attempt, _, fence), event in zip(header["messages"], events, strict=True):
                self._delivered(seq, attempt, fence, event)
            self.say("CREDIT", {"group": self.identity, "events": len(events), "bytes": 0})

    def _delivered(self, seq: int, attempt: int, fence: int, event: dict[str, Any]) -> None:
        self.deliveries += 1
        assert fence not in self.fences, f"fence {fence} was used before"
        self.fences.add(fence)
        known = self.places.setdefault(seq, event["id"])
        assert known == event["id"], f"seq {seq} was {known}, and now is {event['id']}"
        self.answer([seq, fence], attempt, event)

    def answer(self, place: list[int], attempt: int, event: dict[str, Any]) -> None:
        """Handle one delivery and say so."""
        kind = "done" if self.effect(event) else "duplicate"
        self.say("ACK", {"group": self.identity, kind: [place]})

    def effect(self, event: dict[str, Any]) -> bool:
        """The event's one effect; False if it was here before."""
        self._database.execute("BEGIN IMMEDIATE")
        new = self._database.execute("INSERT INTO inbox VALUES (?) ON CONFLICT DO NOTHING", (event["id"],)).rowcount
        if new:
            row = (event["id"], event["subject"], event["data"]["n"])
            self._database.execute("INSERT INTO effects (id, subject, n) VALUES (?, ?, ?)", row)
        self._database.execute("COMMIT")
        return new == 1

    def effects(self) -> list[tuple[str, str, int]]:
        """(event id, key, n) in the order in which they happened."""
        return self._database.execute("SELECT id, subject, n FROM effects ORDER BY position").fetchall()

    @property
    def done(self) -> bool:
        """See Client."""
        return int(self._database.execute("SELECT count(*) FROM effects").fetchone()[0]) >= self.wanted


class Bank(Consumer):
    """Gives every fifth event back at its first attempt, and asks for more time for every third."""

    def answer(self, place: list[int], attempt: int, event: dict[str, Any]) -> None:
        """See Consumer."""
        where = {"group": self.identity, "messages": [place]}
        if event["data"]["n"] % 3 == 0:
            self.say("WIP", where)
        if event["data"]["n"] % 5 == 0 and attempt == 1:
            self.tried_again += 1
            self.say("NACK", where | {"delay_ms": 0, "error": "not yet"})
        else:
            super().answer(place, attempt, event)


class Mail(Consumer):
    """Makes every sixth event a dead letter, unless it is lenient."""

    def __init__(self, group: str, folder: Path, *, lenient: bool) -> None:
        super().__init__(group, folder)
        self.dead: set[int] = set()
        """What it has rejected: seqs."""
        self._lenient = lenient

    def rejects(self, n: int) -> bool:
        """Whether the event of that number is one of them."""
        return not self._lenient and n % 6 == 0

    def answer(self, place: list[int], attempt: int, event: dict[str, Any]) -> None:
        """See Consumer."""
        if self.rejects(event["data"]["n"]):
            self.dead.add(place[0])
            self.say("TERM", {"group": self.identity, "messages": [place], "reason": "no address", "error": "none"})
        else:
            super().answer(place, attempt, event)


class Keeper(Client):
    """Puts a value that the broker keeps, and reads what it has kept whenever it comes back."""

    def __init__(self) -> None:
        super().__init__("auth")
        self.planned = 0
        self.acked = 0
        self._put = 0

    def handle(self, command: str, header: Header, events: Events) -> None:
        """See Client."""
        if command == "WELCOME":
            self._put = self.acked
            self.say("WATCH", {"kind": "keys"})
        elif command == "STATE":
            kept = (header["state"] or {"value": 0})["value"]
            assert kept >= self.acked, f"value {self.acked} was acknowledged, the broker has {kept}"
        elif command == "RESULT":
            self.acked = int(header["request"])

    def advance(self) -> None:
        """See Client."""
        if self.up and self._put == self.acked < self.planned:
            self._put = self.acked + 1
            self.say("PUT", {"kind": "keys", "value": {"value": self._put}, "request": str(self._put)})

    @property
    def done(self) -> bool:
        """See Client."""
        return self.acked == self.planned


class Operator(Client):
    """Asks, and waits for the answer."""

    def __init__(self) -> None:
        super().__init__("control")
        self.answers: dict[str, Header] = {}
        self._barrier: str | None = None

    def handle(self, command: str, header: Header, events: Events) -> None:
        """See Client."""
        if command == "RESULT":
            self.answers[header["request"]] = header

    def lower_barrier(self) -> None:
        """Begin anew."""
        self._barrier = None

    def raise_barrier(self) -> bool:
        """Ask for what the broker answers after its next commit only; whether it has.

        Called when everybody else is done: the script then ends with the commit of their acknowledgements, and not
        at an accident of time before or after it.
        """
        if self._barrier is None:
            self._barrier = str(uuid.uuid4())
            self.say("ADMIN", {"request": self._barrier, "verb": "dlq.list", "group": "mail"})
        return self._barrier in self.answers

    def ask(self, verb: str, **more: Any) -> Header:
        """One ADMIN request and its answer, outside of any script. Raises AssertionError after 5 s."""
        request = str(uuid.uuid4())
        self.say("ADMIN", {"request": request, "verb": verb} | more)
        poll_until(f"the answer to {verb}", lambda: self.receive() or request in self.answers,
                   lambda _: request in self.answers, seconds=5, every=0.005)  # fmt: skip
        return self.answers.pop(request)


@dataclass
class Cast:
    """Everybody, over all processes of one broker."""

    ground: Ground
    lenient: bool = False
    """Nobody makes dead letters: the log keeps what they need."""
    publisher: Publisher = field(default_factory=Publisher)
    keeper: Keeper = field(default_factory=Keeper)
    operator: Operator = field(default_factory=Operator)

    def __post_init__(self) -> None:
        self.bank = Bank("bank", self.ground.folder)
        self.mail = Mail("mail", self.ground.folder, lenient=self.lenient)
        self.everybody: tuple[Client, ...] = (self.bank, self.mail, self.publisher, self.keeper, self.operator)

    def plan(self, sizes: Sequence[int], keys: int) -> None:
        """One more round of the script."""
        self.publisher.plan(sizes, keys, spoiled=sum(sizes) // 2)
        self.keeper.planned += 1
        good = [one.event["data"]["n"] for one in self.publisher.made if not one.refused]
        self.bank.wanted = len(good)
        self.mail.wanted = sum(not self.mail.rejects(n) for n in good)

    def play(self, broker: Part) -> None:
        """Go on until everything is done. Raises DiedError when the broker has ended, AssertionError after a while."""
        deadline = time.monotonic() + PLAY_SECONDS_MAX
        poller = zmq.Poller()
        poller.register(broker.pidfd, zmq.POLLIN)
        _wait_listening(self.ground, broker)
        self.operator.lower_barrier()
        for one in self.everybody:
            if one.line is None:
                one.connect(self.ground)
            assert one.line is not None
            poller.register(one.line.socket, zmq.POLLIN)
        while not self._turn():
            if broker.dead:
                self._last_messages()
                raise DiedError
            assert time.monotonic() < deadline, f"the script did not end: {self._where()}\n{broker.last_words()}"
            poller.poll(20)

    def _turn(self) -> bool:
        """Everybody handles what is here and says what he can; whether all is done."""
        busy = False
        for one in self.everybody:
            busy = one.receive() or busy
            one.advance()
        done = not busy and all(one.up and one.done for one in self.everybody)
        return done and self.operator.raise_barrier()

    def _last_messages(self) -> None:
        """An answer that came before the end counts: take what libzmq still has."""
        for one in self.everybody:
            assert one.line is not None
            while one.line.socket.poll(2):
                one.receive()

    def _where(self) -> str:
        return ", ".join(f"{one.identity} {'up' if one.up else 'down'} {'done' * one.done}" for one in self.everybody)

    def hang_up(self) -> None:
        """All sockets go."""
        for one in self.everybody:
            one.disconnect()

    def close(self) -> None:
        """All sockets and databases go."""
        self.hang_up()
        self.bank.close()
        self.mail.close()


def _wait_listening(ground: Ground, broker: Part) -> None:
    """Until the broker's port can be connected to: a DEALER's own attempts are a tenth of a second apart."""
    deadline = time.monotonic() + PLAY_SECONDS_MAX
    while not broker.dead:
        with socket.socket() as knock:
            if knock.connect_ex(("127.0.0.1", ground.port)) == 0:
                return
        assert time.monotonic() < deadline, f"the broker does not listen:\n{broker.last_words()}"
        time.sleep(0.003)
    raise DiedError
