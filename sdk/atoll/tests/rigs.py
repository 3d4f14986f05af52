"""The same cases against the broker's core in memory and against the real process on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from scripted import Notes

import atoll
from atoll import _codec as wire
from atoll._consumer import Consumer
from atoll._relay import Relay
from atoll._session import Profile
from atoll._transport import OnLost, OnMessage
from atoll_broker.testing import MemoryBroker, Peer, RealBroker

PLACED = "orders.order.placed.v1"
CAPTURED = "payments.payment.captured.v1"
MESH = """
[system]
name = "test"
[grant.orders]
publish = ["orders.*"]
announce = ["/orders"]
[grant.payments]
publish = ["payments.*"]
[grant.control]
admin = true
watch = ["registry", "keys", "revocations"]
[grant.auth]
put = ["keys", "revocations"]
[group_defaults]
first = "earliest"
lease_seconds = 5
attempts_max = 3
backoff_seconds = [0.01, 0.05]
in_flight_max = 256
on_dead = "park"
[group.payments]
part = "payments"
topics = ["orders.order.placed.v1"]
[bus]
heartbeat_seconds = 0.2
event_bytes_max = 262144
batch_events_max = 128
batch_bytes_max = 1048576
"""
SCHEMA = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string", "maxLength": 1000}, "number": {"type": "integer"}},
}


class MemoryTransport:
    """A peer of the broker in memory as a Transport."""

    def __init__(self, peer: Peer, on_message: OnMessage, on_lost: OnLost) -> None:
        self.peer = peer
        self.on_lost = on_lost
        loop = asyncio.get_running_loop()

        def receive(frames: list[bytes]) -> None:
            loop.call_soon(self._deliver, frames)

        peer.receiver = receive
        self._on_message = on_message
        self._closed = False

    def _deliver(self, frames: list[bytes]) -> None:
        if not self._closed:
            self._on_message(frames)

    def send(self, frames: Sequence[bytes]) -> None:
        if self.peer.open:
            self.peer.send(frames)

    def close(self) -> None:
        self._closed = True
        self.peer.close()


class MemoryRig:
    """The broker's core with a clock that follows the real one."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(MESH)
        self._transports: list[MemoryTransport] = []
        self._up = True

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[MemoryRig]:
        ticker = asyncio.create_task(self._tick())
        yield self
        ticker.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.005)
            if self._up:
                self.broker.advance(0.005)

    def session(self, options: atoll.Options) -> atoll.Session:
        def connect(on_message: OnMessage, on_lost: OnLost) -> MemoryTransport:
            transport = MemoryTransport(self.broker.connect(options.name), on_message, on_lost)
            if not self._up:
                transport.peer.close()
                asyncio.get_running_loop().call_soon(on_lost, "refused")
            self._transports.append(transport)
            return transport

        return atoll.Session(options, connector=connect)

    async def kill(self) -> None:
        self._up = False
        self.broker.restart()
        for transport in self._transports:
            transport.on_lost("killed")
        self._transports.clear()

    async def start(self) -> None:
        self._up = True


class RealRig:
    """The broker as a process."""

    def __init__(self, folder: Path) -> None:
        self.broker = RealBroker(folder / "broker", MESH)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[RealRig]:
        async with self.broker:
            yield self

    def session(self, options: atoll.Options) -> atoll.Session:
        import msgspec

        own = msgspec.structs.replace(options, bus=self.broker.endpoint, keys=self.broker.keys(options.name))
        return atoll.Session(own)

    async def kill(self) -> None:
        await self.broker.kill()

    async def start(self) -> None:
        await self.broker.start()


Rig = MemoryRig | RealRig


class Member:
    """A service without its HTTP face: database, relay, consumer, session."""

    def __init__(self, rig: Rig, name: str, folder: Path, publishes: Sequence[str] = ()) -> None:
        migrations = folder / "migrations"
        migrations.mkdir(exist_ok=True)
        (migrations / "0001-notes.sql").write_text("CREATE TABLE note (text TEXT) STRICT;")
        self.options = atoll.Options(
            slot=f"{name}/1", host="127.0.0.1", port=0, data=folder / name, keys=folder, bus="tcp://127.0.0.1:1"
        )
        self.rig = rig
        self.publishes = publishes
        self.events = atoll.SubscriptionTable()
        self.database = atoll.Database(self.options.data / f"{name}.db", migrations)
        self.relay = Relay(self.database, name)
        self.consumer: Consumer | None = None
        self.session = rig.session(self.options)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Member:
        await self.database.open()
        producer = await self.relay.open()
        self.database.publisher.bind(self.options.name, self.publishes)
        self.session.profile = Profile(
            producer=producer if self.publishes else None,
            contracts=wire.Contracts(dict.fromkeys(self.publishes, SCHEMA), self.events.topics),
        )
        if self.publishes:
            self.session.add(self.relay)
        if len(self.events):
            self.consumer = Consumer(self.options.name, self.events, self.database)
            self.session.add(self.consumer)
            self._tasks.append(asyncio.create_task(self.consumer.run()))
        self._tasks.append(asyncio.create_task(self.relay.run()))
        await self.session.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self.database.close()

    async def publish(self, *texts: str, subject: str = "o-1", topic: str = PLACED) -> None:
        def work(tx: atoll.Transaction) -> None:
            for text in texts:
                tx.publish(topic, subject, Notes(text))

        await self.database.write(work)

    async def notes(self) -> list[str]:
        return await self.database.read(
            lambda reader: [row["text"] for row in reader.all("SELECT text FROM note ORDER BY rowid")]
        )

    async def until_notes(self, count: int, seconds: float = 10.0) -> list[str]:
        deadline = asyncio.get_running_loop().time() + seconds
        while len(notes := await self.notes()) < count:
            assert asyncio.get_running_loop().time() < deadline, (
                f"{len(notes)} of {count} after {seconds} s: {self.session.state}"
            )
            await asyncio.sleep(0.01)
        return notes


def keeping(member: Member) -> Any:
    """The plain handler: one row an event."""

    def keep(event: atoll.Event[Notes], tx: atoll.Transaction) -> None:
        tx.execute("INSERT INTO note VALUES (?)", event.data.text)

    return member.events.on(PLACED, Notes)(keep)
