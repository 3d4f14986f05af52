"""Worker: the bus alone, by pyzmq. Role `publisher` sends within credit, role `consumer` acks each batch it gets."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import _events
import msgspec
from _peer import Message, Peer
from _processes import RunFailedError, say, work
from _report import percentile

WINDOW_EVENTS = 1024
WINDOW_BYTES = 8_388_608
_ARRIVED = msgspec.json.Decoder(list[_events.Arrived])


class Job(msgspec.Struct):
    """What to do. `rate`: events a second, each sent alone and stamped; 0: as fast as credit allows."""

    role: str
    bus: str
    keys: Path
    events: int
    batch: int = 1
    rate: int = 0


# ---- publishing --------------------------------------------------------------------------------------------------


class _Publisher:
    """Counts what is sent and what the broker has on its disk."""

    def __init__(self, job: Job) -> None:
        self._peer = Peer(job.bus, job.keys)
        self._producer = f"publisher/{uuid.uuid4()}"
        welcome = self._peer.hello("publisher/1", producer=self._producer, publishes={_events.TOPIC: _events.SCHEMA})
        self._window: int = welcome["credit"]["events"]
        if welcome["credit"]["bytes"] < self._window * 2 * _events.DATA_BYTES * 2:
            raise RunFailedError("the credit in bytes is below that in events: this client counts events alone")
        self._sent = 0
        self.acked = 0

    def send(self, payload: bytes, events: int) -> None:
        """Sends a batch as soon as there is credit for it."""
        while self._sent - self.acked + events > self._window:
            self._take(self._peer.receive())
        self._peer.send("PUB", payload, producer=self._producer, first=self._sent + 1)
        self._sent += events
        self.serve(0)

    def serve(self, seconds: float) -> None:
        """Reads the PUBACKs that come within so long."""
        until = time.monotonic() + seconds
        while self._peer.poll(max(0, int((until - time.monotonic()) * 1000))):
            self._take(self._peer.receive())

    def finish(self) -> None:
        """Waits until all of it is acked."""
        while self.acked < self._sent:
            self._take(self._peer.receive())
        self._peer.bye()

    def _take(self, message: Message) -> None:
        if message.command != "PUBACK":
            raise RunFailedError(f"the broker said {message.command} to a publisher")
        fields = message.fields()
        if fields["refused"]:
            raise RunFailedError(f"refused: {fields['refused'][0]}")
        self.acked = fields["upto"]
        self._window = fields["credit"]["events"]


def _batches(job: Job) -> Iterator[tuple[bytes, int]]:
    for first in range(0, job.events, job.batch):
        events = [_events.event(number) for number in range(first, min(first + job.batch, job.events))]
        yield _events.batch(events), len(events)


def _publish(job: Job) -> None:
    if job.rate:
        _publish_steadily(job)
        return
    batches = list(_batches(job))  # made beforehand: it is the bus that is measured
    publisher = _Publisher(job)
    began = time.monotonic()
    for payload, events in batches:
        publisher.send(payload, events)
    publisher.finish()
    say(began=began, acked_seconds=time.monotonic() - began)


def _publish_steadily(job: Job) -> None:
    """On a schedule, whatever comes back; an event is stamped when it is really sent."""
    publisher = _Publisher(job)
    began = time.monotonic()
    for number in range(job.events):
        due = began + number / job.rate
        publisher.serve(due - time.monotonic() - 0.001)  # poll's resolution is a millisecond
        time.sleep(max(0.0, due - time.monotonic()))
        publisher.send(_events.batch([_events.event(number, time.monotonic_ns())]), 1)
    publisher.finish()
    say(began=began)


# ---- consuming ---------------------------------------------------------------------------------------------------


def _consume(job: Job) -> None:
    peer = Peer(job.bus, job.keys)
    peer.hello("consumer/1", consumes=[_events.TOPIC])
    peer.send("SUB", group="consumer", topics=[_events.TOPIC], max_in_flight=WINDOW_EVENTS)
    peer.expect("SUBOK")
    peer.send("CREDIT", group="consumer", events=WINDOW_EVENTS, bytes=WINDOW_BYTES)
    say(ready=True)
    ledger, waits = _events.Ledger(job.events), list[int]()
    while not ledger.complete:
        _handle(peer, ledger, waits)
    ended = time.monotonic()
    peer.bye()
    say(ended=ended, p50_ms=percentile(waits, 0.5) / 1e6, p99_ms=percentile(waits, 0.99) / 1e6, max_ms=max(waits) / 1e6)


def _handle(peer: Peer, ledger: _events.Ledger, waits: list[int]) -> None:
    """One MSG: read and checked event by event, then acked and its credit returned."""
    message = peer.receive()
    if message.command != "MSG":
        raise RunFailedError(f"the broker said {message.command} to a consumer")
    arrived = _ARRIVED.decode(message.payload)
    now = time.monotonic_ns()
    for one in arrived:
        ledger.take(one.subject, one.data.number)
        waits.append(now - one.data.sent_ns)
    done = [(seq, fence) for seq, _, _, fence in message.fields()["messages"]]
    peer.send("ACK", group="consumer", done=done)
    peer.send("CREDIT", group="consumer", events=len(done), bytes=len(message.payload))


if __name__ == "__main__":
    work(Job, lambda job: {"publisher": _publish, "consumer": _consume}[job.role](job))
