"""One share of a herd, a process in a service's environment: sessions of one identity, each a member of its group.

    python member.py IDENTITY SESSIONS BUS KEYS REPORT [plain]

It appends a line `SECONDS SLOT WHAT VALUE` to REPORT for each thing that happens, by the system's monotonic clock:
`lost`, `wait` (VALUE: how many seconds the session means to), `try` (a connection is begun), `up` (WELCOME), `served`
(an event came and was acked). Ends at SIGTERM. `plain` is the planted client: it waits without jitter.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import atoll
from atoll import _codec as wire
from atoll._session import Link, Profile, Session
from atoll._transport import CurveKeys, OnLost, OnMessage, Transport, ZmqConnector

TOPIC = "source.thing.happened.v1"


class Sheep:
    """One session. It takes one event and no more, so that a group of fifty members serves fifty events to fifty."""

    def __init__(self, options: atoll.Options, connector: ZmqConnector, report: TextIO) -> None:
        self._slot = options.slot
        self._group = options.name
        self._zmq = connector
        self._report = report
        self._link: Link | None = None
        self.session = Session(options, connector=self.connect)
        self.session.profile = Profile(contracts=wire.Contracts({}, [TOPIC]))
        self.session.add(self)

    def connect(self, on_message: OnMessage, on_lost: OnLost) -> Transport:
        self.note("try")
        return self._zmq(on_message, on_lost)

    def note(self, what: str, value: float = 0.0) -> None:
        self._report.write(f"{time.monotonic():.6f} {self._slot} {what} {value:.6f}\n")
        self._report.flush()

    def welcomed(self, link: Link) -> None:
        self._link = link
        self.note("up")
        link.send(wire.Sub(self._group, [TOPIC], 1))

    def received(self, message: wire.Incoming, frames: list[bytes]) -> None:
        assert self._link is not None
        if isinstance(message, wire.SubOk):
            self._link.send(wire.Credit(self._group, 1, 100_000))
        elif isinstance(message, wire.Msg):
            self._link.send(wire.Ack(self._group, [(seq, fence) for seq, _, _, fence in message.messages]))
            self.note("served")

    def lost(self) -> None:
        self._link = None
        self.note("lost")


async def run(identity: str, count: int, bus: str, keys: Path, report: Path) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    connector = ZmqConnector(bus, CurveKeys.read(keys))
    with report.open("a") as file:
        herd = [Sheep(_options(f"{identity}/{number}", bus, keys), connector, file) for number in range(1, count + 1)]
        _note_waits({sheep: sheep.session for sheep in herd}, random.uniform)
        for sheep in herd:
            await sheep.session.start()
        await stopped.wait()
        await asyncio.gather(*(sheep.session.stop() for sheep in herd))
    connector.close()


def _note_waits(herd: dict[Sheep, Session], draw: Callable[[float, float], float]) -> None:
    """Each session draws its waits in its own task."""

    def uniform(least: float, most: float) -> float:
        drawn = draw(least, most)
        mine = asyncio.current_task()
        next(sheep for sheep, session in herd.items() if session._task is mine).note("wait", drawn)
        return drawn

    random.uniform = uniform  # type: ignore[method-assign,assignment]


def _options(slot: str, bus: str, keys: Path) -> atoll.Options:
    return atoll.Options(slot=slot, host="127.0.0.1", port=0, data=keys, keys=keys, bus=bus)


def main() -> None:
    identity, count, bus, keys, report, *plain = sys.argv[1:]
    if plain:
        random.uniform = lambda _, limit: limit  # type: ignore[method-assign,assignment]
    asyncio.run(run(identity, int(count), bus, Path(keys), Path(report)))


if __name__ == "__main__":
    main()
