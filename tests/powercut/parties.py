"""A publisher and a consumer that remember what they were promised, and say so when a promise is broken.

In a log that lost nothing and doubled nothing the event with pseq n is the one with seq n, since there is one publisher
and nothing is refused: every check rests on that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from brokers import SCHEMA, TOPIC
from rawbus import Peer

PRODUCER = "shop/box"
KEYS = 97
_BATCH = 12
_BATCHES_UNDER_WAY = 4
#: Some events are longer than a page, so that they lie in overflow pages too.
_PAD_MAX = 600
_PAD_LONG = 9000


class BrokenPromiseError(AssertionError):
    """An acknowledged event is gone, changed, doubled or out of order; or a cursor ran ahead."""


def body(n: int) -> bytes:
    """Event n as its publisher sends it: always the same bytes."""
    length = _PAD_LONG if n % 41 == 0 else n * 7919 % _PAD_MAX
    digest = hashlib.sha256(b"%d" % n).hexdigest()
    event = {
        "specversion": "1.0", "id": f"e-{n}", "source": "/shop", "type": TOPIC, "subject": f"s-{n % KEYS}",
        "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json",
        "data": {"n": n, "pad": (digest * (length // 64 + 1))[:length]},
    }  # fmt: skip
    return json.dumps(event, separators=(",", ":")).encode()


def batch(numbers: Iterator[int] | range) -> bytes:
    """The payload frame of these events."""
    return b"[" + b",".join(body(n) for n in numbers) + b"]"


@dataclass
class Publisher:
    """Publishes 1, 2, 3, … whatever happens to the broker, and never believes more than it was told."""

    acked: int = 0
    sent: int = 0
    log: str = ""
    boot: int = 0
    peer: Peer | None = None

    def meet(self, peer: Peer) -> None:
        """HELLO, after which it goes on where the broker says that it stands."""
        self.peer = peer
        command, welcome = peer.hello(
            "shop", publishes={TOPIC: SCHEMA}, producer=PRODUCER, slot="shop/1", process="shop-1"
        )
        assert command == "WELCOME", welcome
        mark, last = welcome["producer"]["mark"], welcome["producer"]["last_id"]
        _holds(self.acked <= mark, f"the broker's mark is {mark}, it had acked {self.acked}")
        _holds(mark <= self.sent, f"the broker's mark is {mark}, only {self.sent} were sent")
        _holds(last == (f"e-{mark}" if mark else None), f"its last id at {mark} is {last}")
        _holds(self.log in ("", welcome["log"]), f"its log was {self.log} and is {welcome['log']}")
        _holds(welcome["boot"] > self.boot, f"boot {welcome['boot']} after boot {self.boot}: fences come again")
        self.log, self.boot = welcome["log"], welcome["boot"]
        self.acked = self.sent = mark  # what is above was never acked, and is published again

    def publish(self, upto: int | None = None) -> None:
        """Fill what may be under way."""
        assert self.peer is not None
        while self.sent - self.acked < _BATCH * _BATCHES_UNDER_WAY and (upto is None or self.sent < upto):
            last = self.sent + _BATCH if upto is None else min(upto, self.sent + _BATCH)
            header = {"producer": PRODUCER, "first": self.sent + 1}
            numbers = range(self.sent + 1, last + 1)
            self.peer.socket.send_multipart([b"A1PUB", json.dumps(header).encode(), batch(numbers)])
            self.sent = last

    def hear(self) -> list[dict[str, Any]]:
        """Take what came; PUBNACKs and whatever else is no PUBACK."""
        others = []
        for command, header, _ in heard(self.peer):
            if command == "PUBACK":
                assert header["refused"] == [], header
                self.acked = max(self.acked, header["upto"])
            else:
                others.append({"command": command} | header)
        return others


@dataclass
class Consumer:
    """The one member of a group. Acks most events as they come, and keeps some for the next boot."""

    group: str
    dice: Random
    keeps_back: float = 0.0
    acked: set[int] = field(default_factory=set)
    deliveries: int = 0
    peer: Peer | None = None
    _here: dict[str, int] = field(default_factory=dict)

    def meet(self, peer: Peer) -> None:
        """HELLO, SUB, CREDIT."""
        self.peer, self._here = peer, {}
        command, welcome = peer.hello(self.group, slot=f"{self.group}/1", process=f"{self.group}-1", producer=None)
        assert command == "WELCOME", welcome
        peer.send("SUB", {"group": self.group, "topics": [TOPIC], "max_in_flight": 1024})
        command, answer = peer.receive("SUBOK", "ERR")
        assert command == "SUBOK", answer
        peer.send("CREDIT", {"group": self.group, "events": 60_000, "bytes": 1 << 28})

    def hear(self) -> int:
        """Take deliveries, check each, ack; how many came."""
        count = 0
        for command, header, payload in heard(self.peer):
            if command == "MSG":
                count += len(header["messages"])
                self._take(header["messages"], payload)
        return count

    def _take(self, messages: list[list[int]], payload: bytes) -> None:
        seqs = [seq for seq, *_ in messages]
        _holds(payload == batch(iter(seqs)), f"events {seqs} came with other bytes than were published")
        done = []
        for seq, _, _, fence in messages:
            self._check_order(seq)
            if self.dice.random() >= self.keeps_back:
                done.append([seq, fence])
                self.acked.add(seq)
        self.deliveries += len(messages)
        if done and self.peer is not None:
            self.peer.send("ACK", {"group": self.group, "done": done})
            self.peer.send("CREDIT", {"group": self.group, "events": len(messages), "bytes": len(payload)})

    def _check_order(self, seq: int) -> None:
        key = f"s-{seq % KEYS}"
        before = self._here.get(key, 0)
        _holds(before < seq, f"{seq} of {key} came after {before}: twice in a boot, or out of order")
        earlier = range(seq % KEYS or KEYS, seq, KEYS)
        skipped = [n for n in earlier if n not in self.acked]
        _holds(not skipped, f"{seq} of {key} came although {skipped} were never acked")
        self._here[key] = seq

    @property
    def floor(self) -> int:
        """Up to which every event was acked."""
        floor = 0
        while floor + 1 in self.acked:
            floor += 1
        return floor


def check_group(control: Peer, consumer: Consumer, last: int) -> None:
    """The broker's cursor may lag behind what was acked, and never run ahead. Asked before anything new is acked."""
    control.send("ADMIN", {"request": "r", "verb": "groups"})
    command, answer = control.receive("RESULT", "ERR")
    assert command == "RESULT", answer
    group = answer["groups"][consumer.group]
    _holds(group["floor"] <= consumer.floor, f"the floor is {group['floor']}, acked was up to {consumer.floor}")
    least = last - len([n for n in consumer.acked if n <= last])
    _holds(group["lag"] >= least, f"lag {group['lag']}, although {least} were never acked")
    _holds(group["dead"] == 0, f"{group['dead']} dead letters, though nobody failed")


def heard(peer: Peer | None) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """What has come: command, header, payload."""
    assert peer is not None
    while peer.socket.poll(0):
        frames = peer.socket.recv_multipart()
        yield frames[0][2:].decode(), json.loads(frames[1]), frames[2] if len(frames) > 2 else b""


def _holds(promise: bool, otherwise: str) -> None:
    if not promise:
        raise BrokenPromiseError(otherwise)
