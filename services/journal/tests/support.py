"""What the tests stand on: settings, events, and a broker of a few lines that says what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zmq
import zmq.auth.thread

from atoll_journal import codec, shapes
from atoll_journal.ledger import Ledger, Reader, Row
from atoll_journal.logs import Log
from atoll_journal.settings import Settings
from atoll_journal.witness import Witness

PROJECT = Path(__file__).parents[1]
TOPIC = "orders.order.placed.v1"
LOG = "8a4f6c1e"


def event(number: int, subject: str = "o-1", **more: Any) -> bytes:
    """The bytes of an event."""
    fields = {"specversion": "1.0", "id": f"e-{number}", "source": "orders", "type": TOPIC, "subject": subject,
              "time": "2026-11-24T00:00:00Z", "datacontenttype": "application/json", "data": {"n": number}}  # fmt: skip
    return json.dumps(fields | more).encode()


def rows(folder: Path) -> list[Row]:
    """What the journal in this folder has."""
    with contextlib.closing(Reader(folder)) as reader:
        return list(reader.rows())


def until(what: str, holds: Callable[[], Any], seconds: float = 8) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.005)


class Broker:
    """One ROUTER with CURVE. What clients say is in `heard`; `on` has the answers; `say` speaks by itself."""

    def __init__(self) -> None:
        self.public, self.secret = zmq.curve_keypair()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.curve_server = True
        self._socket.curve_secretkey, self._socket.curve_publickey = self.secret, self.public
        self._socket.linger = 0
        self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.heard: list[tuple[bytes, codec.Message]] = []
        self.on: dict[str, Callable[[codec.Message], list[list[bytes]]]] = {
            "HELLO": lambda _: [self.welcome()],
            "SUB": lambda said: [frames("SUBOK", group=said.header["group"], lease_ms=2000)],
            "PING": lambda _: [frames("PONG")],
            "BYE": lambda said: [frames("BYE", reason=said.header["reason"])],
        }
        self._sessions = 0
        self._orders: list[list[bytes]] = []
        self._running = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def welcome(self, log: str = LOG, heartbeat_ms: int = 200) -> list[bytes]:
        self._sessions += 1
        return frames(
            "WELCOME", session=f"b1-{self._sessions}", log=log, boot=1, producer=None, oldest=1,
            heartbeat_ms=heartbeat_ms, limits={"event_bytes": 262144, "batch_events": 128, "batch_bytes": 1048576},
            credit={"events": 1024, "bytes": 8388608},
        )  # fmt: skip

    def deliver(self, *deliveries: tuple[int, bytes], fence: int = 1 << 32, group: str = "journal") -> None:
        """One MSG with these (seq, event)s."""
        messages = [[seq, 1, 2000, fence + seq] for seq, _ in deliveries]
        self.say(
            [*frames("MSG", group=group, messages=messages), b"[" + b",".join(raw for _, raw in deliveries) + b"]"]
        )

    def say(self, message: list[bytes]) -> None:
        """To the client that was heard last."""
        self._orders.append(message)

    def said(self, command: str) -> list[dict[str, Any]]:
        """The headers of what clients said by this command."""
        return [message.header for _, message in self.heard if message.command == command]

    def acked(self, kind: str = "done") -> list[int]:
        return [seq for header in self.said("ACK") for seq, _ in header[kind]]

    def close(self) -> None:
        self._running = False
        self._thread.join()
        self._socket.close()
        self._context.term()

    def _run(self) -> None:
        while self._running:
            while self._orders and self.heard:
                self._socket.send_multipart([self.heard[-1][0], *self._orders.pop(0)])
            if not self._socket.poll(5):
                continue
            peer, *parts = self._socket.recv_multipart()
            message = codec.decode(parts, shapes.TO_BROKER)  # raises what no broker would take
            self.heard.append((peer, message))
            answers = self.on.get(message.command)
            for answer in answers(message) if answers else []:
                self._socket.send_multipart([peer, *answer])


def frames(command: str, **header: Any) -> list[bytes]:
    return [b"A1" + command.encode(), json.dumps(header).encode()]


class Running:
    """A witness in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ledger = Ledger(settings.data, settings.migrations)
        self.witness: Witness | None = None
        self.error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        until("the witness to start", lambda: self.witness is not None or self.error is not None)

    def _run(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self.ledger.open()
            self.witness = Witness(self.settings, self.ledger, Log(self.settings.slot))
            await self.witness.run()

        try:
            asyncio.run(main())
        except BaseException as error:
            self.error = error
        finally:
            self.ledger.close()

    def stop(self) -> float:
        """Seconds that it took."""
        began = time.monotonic()
        if self._loop is not None and self.witness is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self.witness.stop)
        self._thread.join(10)
        assert not self._thread.is_alive(), "it does not stop"
        return time.monotonic() - began


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[Running]:
    it = Running(settings)
    try:
        yield it
    finally:
        it.stop()


def settings_for(broker: Broker, data: Path, *topics: str) -> Settings:
    public, secret = zmq.curve_keypair()
    data.mkdir(parents=True, exist_ok=True)
    return Settings(
        slot="journal/1", host="127.0.0.1", port=0, data=data, bus=broker.address, secret=secret, public=public,
        broker=broker.public, topics=topics or (TOPIC,), migrations=PROJECT / "migrations",
    )  # fmt: skip
