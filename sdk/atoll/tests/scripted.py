"""A broker that says what the test tells it to, on no socket at all: for the answers that a real one rarely gives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

import atoll
from atoll._transport import OnLost, OnMessage

CREDIT = {"events": 1024, "bytes": 8_388_608}


class Notes(msgspec.Struct):
    """Data of the events in these tests."""

    text: str


async def until(what: str, condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Polls; the failure says what it waited for."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited {seconds} s for: {what}"
        await asyncio.sleep(0.005)


class ScriptedBroker:
    """A Connector; `received` has the (command, header, events) of the present connection and those before."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, Any], list[Any]]] = []
        self.connections = 0
        self.welcome: dict[str, Any] | None = {}
        self.mark: dict[str, Any] | None = {"mark": 0, "last_id": None, "refused": []}
        self.log = "log-1"
        self.answers: dict[str, Callable[[dict[str, Any], list[Any]], None]] = {}
        self._on_message: OnMessage = lambda _: None
        self._on_lost: OnLost = lambda _: None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, on_message: OnMessage, on_lost: OnLost) -> ScriptedBroker:
        self._loop = asyncio.get_running_loop()
        self._on_message, self._on_lost = on_message, on_lost
        self.connections += 1
        return self

    def send(self, frames: Sequence[bytes]) -> None:
        command = frames[0].removeprefix(b"A1").decode()
        header = msgspec.json.decode(frames[1])
        events = msgspec.json.decode(frames[2]) if len(frames) > 2 else []
        self.received.append((command, header, events))
        if command == "HELLO" and self.welcome is not None:
            self.say("WELCOME", **self._welcome())
        if command == "BYE":
            self.say("BYE", reason="as you said")
        if command in self.answers:
            self.answers[command](header, events)

    def close(self) -> None:
        self._on_message = lambda _: None

    def say(self, command: str, events: Sequence[Any] | None = None, **header: Any) -> None:
        frames = [b"A1" + command.encode(), msgspec.json.encode(header)]
        if events is not None:
            frames.append(msgspec.json.encode(events))
        assert self._loop is not None
        self._loop.call_soon(lambda: self._on_message(frames))

    def lose(self, why: str = "cut by the test") -> None:
        self._on_lost(why)

    def of(self, command: str) -> list[dict[str, Any]]:
        return [header for name, header, _ in self.received if name == command]

    def acknowledge_everything(self) -> None:
        def answer(header: dict[str, Any], events: list[Any]) -> None:
            upto = header["first"] + len(events) - 1
            self.say("PUBACK", producer=header["producer"], upto=upto, refused=[], credit=CREDIT)

        self.answers["PUB"] = answer

    def deliver(self, *events: dict[str, Any], seq: int = 1, attempt: int = 1, group: str = "orders") -> None:
        messages = [[seq + i, attempt, 30_000, 4_294_967_296 + seq + i] for i in range(len(events))]
        self.say("MSG", events, group=group, messages=messages)

    def _welcome(self) -> dict[str, Any]:
        return {
            "session": f"s-{self.connections}",
            "log": self.log,
            "boot": 1,
            "producer": self.mark,
            "oldest": 1,
            "heartbeat_ms": 1000,
            "limits": {"event_bytes": 262_144, "batch_events": 128, "batch_bytes": 1_048_576},
            "credit": CREDIT,
            **(self.welcome or {}),
        }


def event(
    event_id: str, data: object, topic: str = "payments.payment.captured.v1", subject: str = "o-1", **more: object
) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "/payments",
        "type": topic,
        "subject": subject,
        "time": "2026-11-23T12:00:00Z",
        "datacontenttype": "application/json",
        "data": data,
        **more,
    }


async def publish(database: atoll.Database, *texts: str, subject: str = "o-1") -> None:
    def work(tx: atoll.Transaction) -> None:
        for text in texts:
            tx.execute("INSERT INTO note VALUES (?)", text)
            tx.publish("orders.order.placed.v1", subject, Notes(text))

    await database.write(work)
