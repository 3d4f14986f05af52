"""The broker as a process on loopback, through a client of pyzmq and the spec alone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import structlog.testing
import zmq
from bus_helpers import MESH, PLACED, event, hello

from atoll_broker import mesh, zap
from atoll_broker.errors import EXIT_CONFIGURATION, EXIT_LOCKED, EXIT_PORT_TAKEN, EXIT_STORAGE, StorageFailedError
from atoll_broker.keys import AllowList
from atoll_broker.options import Options
from atoll_broker.server import TURN_SECONDS, Server
from atoll_broker.storage import Trimmed, WriteBatch
from atoll_broker.storage_memory import MemoryStorage
from atoll_broker.testing import RealBroker

ANSWER_MS = 5000
SILENCE_MS = 1200


class Wire:
    """A DEALER as the spec says, blocking, with a time-out that names what it waited for."""

    def __init__(self, broker: RealBroker, identity: str, secret: tuple[bytes, bytes] | None = None) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket: zmq.Socket[bytes] = self.context.socket(zmq.DEALER)
        keys = broker.keys(identity)
        self.socket.linger = 0
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.SNDTIMEO, ANSWER_MS)
        own = (keys / "curve.public").read_bytes()[:40], (keys / "curve.secret").read_bytes()[:40]
        public, private = secret or own
        self.socket.curve_publickey, self.socket.curve_secretkey = public, private
        self.socket.curve_serverkey = (keys / "broker.public").read_bytes()[:40]
        self.socket.connect(broker.endpoint)

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart(list(frames))

    def say(self, command: str, payload: object = None, **header: Any) -> None:
        frames = [b"A1" + command.encode(), json.dumps(header).encode()]
        self.send(*frames, *([] if payload is None else [json.dumps(payload).encode()]))

    def next(self, *commands: str, timeout_ms: int = ANSWER_MS) -> dict[str, Any]:
        """The next message of these commands; others are passed over."""
        while self.socket.poll(timeout_ms):
            frames = self.socket.recv_multipart()
            name = frames[0][2:].decode()
            if not commands or name in commands:
                batch = {"events": json.loads(frames[2])} if len(frames) == 3 else {}
                return {"command": name, **json.loads(frames[1]), **batch}
        raise AssertionError(f"no {commands or 'message'} within {timeout_ms} ms")

    def is_silent(self) -> bool:
        return not self.socket.poll(SILENCE_MS)

    def hello(self, identity: str, **header: Any) -> dict[str, Any]:
        self.say("HELLO", **hello(identity, **header))
        return self.next("WELCOME", "ERR")

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[RealBroker]:
    async with RealBroker(tmp_path, MESH) as running:
        yield running


@pytest.fixture
def wires(broker: RealBroker) -> Iterator[Any]:
    made: list[Wire] = []

    def make(identity: str, **arguments: Any) -> Wire:
        made.append(Wire(broker, identity, **arguments))
        return made[-1]

    yield make
    for wire in made:
        wire.close()


def metrics(broker: RealBroker) -> dict[str, float]:
    with urllib.request.urlopen(f"{broker.http}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


async def test_publish_deliver_ack_and_what_metrics_say(broker: RealBroker, wires: Any) -> None:
    shop, bank = wires("shop"), wires("bank")
    assert shop.hello("shop", producer="shop/box")["producer"]["mark"] == 0
    bank.hello("bank")
    bank.say("SUB", group="bank", topics=[PLACED], max_in_flight=100)
    bank.say("CREDIT", group="bank", events=100, bytes=1_000_000)
    assert bank.next()["command"] == "SUBOK"
    shop.say("PUB", [event(n, f"o-{n}") for n in range(3)], producer="shop/box", first=1)
    assert shop.next("PUBACK")["upto"] == 3
    message = bank.next("MSG")
    assert [e["data"]["n"] for e in message["events"]] == [0, 1, 2]
    bank.say("ACK", group="bank", done=[[m[0], m[3]] for m in message["messages"]])
    bank.say("PING")
    assert bank.next()["command"] == "PONG"
    shown = metrics(broker)
    assert shown["atoll_events_total"] == 3
    assert shown['atoll_group_lag{group="bank"}'] == 0
    assert shown['atoll_group_lag{group="mail"}'] == 3
    assert shown['atoll_sessions{identity="shop"}'] == 1
    assert shown["atoll_pub_pending_events"] == 0
    bye = asyncio.create_task(asyncio.to_thread(shop.next, "BYE"))
    assert await broker.stop() == 0
    assert (await bye)["reason"] == "the broker stops"


def test_an_unknown_key_gets_nothing(broker: RealBroker, wires: Any) -> None:
    stranger = wires("shop", secret=zmq.curve_keypair())
    stranger.socket.setsockopt(zmq.IMMEDIATE, 0)
    stranger.socket.setsockopt(zmq.SNDTIMEO, 300)
    with pytest.raises(zmq.Again):
        stranger.say("HELLO", **hello("shop"))
    assert stranger.is_silent()
    assert metrics(broker)["atoll_refused_keys_total"] >= 1
    assert wires("shop").hello("shop")["command"] == "WELCOME"


def test_a_client_without_curve_gets_nothing(broker: RealBroker, wires: Any) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as plain:
        plain.linger = 0
        plain.connect(broker.endpoint)
        plain.send_multipart([b"A1HELLO", json.dumps(hello("shop")).encode()])
        assert not plain.poll(SILENCE_MS)


def test_a_topic_or_group_that_is_not_granted_is_refused(broker: RealBroker, wires: Any) -> None:
    bank = wires("bank")
    refused = bank.hello("bank", contracts={"publishes": {PLACED: {}}, "consumes": []})
    assert (refused["code"], refused["field"]) == ("ACL", f"contracts.publishes.{PLACED}")
    assert bank.hello("bank")["command"] == "WELCOME"
    bank.say("SUB", group="mail", topics=[PLACED], max_in_flight=1)
    assert bank.next("ERR")["code"] == "ACL"


def test_a_forged_name_is_refused(broker: RealBroker, wires: Any) -> None:
    assert wires("bank").hello("shop")["code"] == "ACL"


def test_a_revoked_key_ends_its_live_session(broker: RealBroker, wires: Any) -> None:
    shop, bank = wires("shop"), wires("bank")
    shop.hello("shop")
    bank.hello("bank")
    (broker.keys("broker") / "clients" / "shop.public").unlink()
    assert shop.next("FENCED")["reason"] == "the key was revoked"
    shop.say("HELLO", **hello("shop"))
    assert shop.is_silent()
    bank.say("PING")
    assert bank.next()["command"] == "PONG"


@pytest.mark.parametrize(
    "frames",
    [
        [b"\x00\xff", b"{}"],
        [b"A1PING"],
        [b"A1PING", b"{"],
        [b"A1PUB", b'{"producer":"shop/box","first":1}', b"\xff" * 60_000],
        [b"A1PUB", b'{"producer":"shop/box","first":1}', b"[" + b" " * 1_000_000 + b"]"],
        [b"A1PING", *[b"x" * 100] * 20_000],
    ],
    ids=["prefix", "no-header", "json", "binary", "large", "endless-parts"],
)
def test_rubbish_gets_an_err_and_the_others_are_served(broker: RealBroker, wires: Any, frames: list[bytes]) -> None:
    shop, bank = wires("shop"), wires("bank")
    shop.hello("shop", producer="shop/box")
    bank.hello("bank")
    for _ in range(20):
        shop.send(*frames)
    assert shop.next("ERR")["code"] in ("VERSION", "FRAMES", "HEADER", "PAYLOAD")
    bank.say("PING")
    assert bank.next()["command"] == "PONG"
    assert broker.log_path.stat().st_size < 20_000


def test_a_frame_beyond_the_limit_costs_only_its_sender(broker: RealBroker, wires: Any) -> None:
    shop, bank = wires("shop"), wires("bank")
    shop.hello("shop", producer="shop/box")
    bank.hello("bank")
    shop.send(b"A1PUB", b'{"producer":"shop/box","first":1}', b"x" * 8_000_000)
    assert shop.is_silent()
    bank.say("PING")
    assert bank.next()["command"] == "PONG"


async def test_kill_while_publishing_loses_and_doubles_no_acked_event(broker: RealBroker, wires: Any) -> None:
    shop = wires("shop")
    shop.hello("shop", producer="shop/box")
    acked = sent = 0

    def publish_up_to(last: int) -> int:
        for first in range(sent + 1, last + 1, 20):
            batch = [event(n, f"o-{n % 5}") for n in range(first, first + 20)]
            shop.say("PUB", batch, producer="shop/box", first=first)
        return max(sent, last)

    while acked < 400:
        sent = publish_up_to(acked - acked % 20 + 200)
        acked = shop.next("PUBACK")["upto"]
    sent = publish_up_to(sent + 100)  # so that something is under way, however fast the disk
    await broker.restart()
    again = wires("shop")
    mark = again.hello("shop", producer="shop/box")["producer"]
    assert acked <= mark["mark"] <= sent
    assert mark["last_id"] == f"e-{mark['mark']}"
    rest = [event(n, f"o-{n % 5}") for n in range(acked + 1, sent + 1)]
    for start in range(0, len(rest), 100):
        again.say("PUB", rest[start : start + 100], producer="shop/box", first=acked + 1 + start)
    while again.next("PUBACK")["upto"] < sent:
        pass
    assert received(wires("bank"), sent) == {f"o-{k}": [n for n in range(1, sent + 1) if n % 5 == k] for k in range(5)}


def received(bank: Wire, count: int) -> dict[str, list[int]]:
    """Everything, acked as it comes: subject -> n in order of delivery."""
    bank.hello("bank")
    bank.say("SUB", group="bank", topics=[PLACED], max_in_flight=256)
    bank.say("CREDIT", group="bank", events=10_000, bytes=100_000_000)
    seen: dict[str, list[int]] = {}
    while sum(map(len, seen.values())) < count:
        message = bank.next("MSG")
        for body in message["events"]:
            seen.setdefault(body["subject"], []).append(body["data"]["n"])
        bank.say("ACK", group="bank", done=[[m[0], m[3]] for m in message["messages"]])
    return seen


async def test_a_stopped_broker_evicts_nobody(broker: RealBroker, wires: Any) -> None:
    bank = wires("bank")
    session = bank.hello("bank")["session"]
    broker.pause()
    await asyncio.sleep(6.5)  # longer than five heartbeats: the time itself is what is tested
    broker.resume()
    bank.say("PING")
    assert bank.next()["command"] == "PONG"
    control = wires("control")
    control.hello("control")
    control.say("ADMIN", request="r", verb="sessions")
    assert session in [s["session"] for s in control.next("RESULT")["sessions"]]


HALF_SENT = [b"GET /live HT", b"GET /live HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"]


@pytest.mark.parametrize("request_sent", HALF_SENT, ids=["head", "body"])
async def test_a_clean_stop_is_quick_and_its_last_word_is_stopped(broker: RealBroker, request_sent: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", int(broker.http.rsplit(":", 1)[1]))
    writer.write(request_sent)
    await writer.drain()
    await asyncio.sleep(0.1)
    async with asyncio.timeout(5):
        assert await broker.stop() == 0
    writer.close()
    lines = [json.loads(line) for line in broker.log_path.read_text().splitlines()]
    assert lines[-1]["event"] == "stopped"
    assert [line for line in lines if line["level"] == "error"] == []


async def test_a_second_broker_on_the_data_exits_75_with_one_line(broker: RealBroker) -> None:
    other = {**broker.environment, "ATOLL_BUS": "tcp://127.0.0.1:*", "ATOLL_PORT": "0"}
    assert ended(other) == (EXIT_LOCKED, "atoll-broker: another broker holds the data directory (broker.lock)\n")


async def test_a_taken_port_exits_69_and_a_wrong_field_64(broker: RealBroker, tmp_path: Path) -> None:
    taken = {**broker.environment, "ATOLL_DATA": str(tmp_path / "other")}
    code, text = ended(taken)
    assert (code, "ATOLL_BUS" in text) == (EXIT_PORT_TAKEN, True)
    code, text = ended({**taken, "ATOLL_BUS": "tcp://127.0.0.1:*"})
    assert (code, "ATOLL_PORT" in text) == (EXIT_PORT_TAKEN, True)
    code, text = ended({**taken, "ATOLL_PORT": "http"})
    assert (code, text.count("\n"), "ATOLL_PORT" in text) == (EXIT_CONFIGURATION, 1, True)


def ended(environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and the last line of what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "atoll_broker"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stderr.splitlines(keepends=True)[-1]


class FailingDisk(MemoryStorage):
    """Its flush fails as soon as there is an event to flush."""

    def commit(self, batch: WriteBatch) -> Trimmed | None:
        if batch.events:
            raise StorageFailedError("commit failed: disk I/O error")
        return super().commit(batch)


async def test_a_failed_flush_gives_no_puback_and_exits_74(broker: RealBroker, wires: Any, tmp_path: Path) -> None:
    """The same keys and mesh, another process's worth of server in this loop, on a disk that fails."""
    await broker.stop()
    options = Options.from_environment({**broker.environment, "ATOLL_DATA": str(tmp_path / "failing")})
    server = Server(options, mesh.parse(MESH), FailingDisk(), structlog.get_logger())
    running = asyncio.create_task(server.run())
    await asyncio.wait_for(server.serving.wait(), 10)

    def publish() -> list[bytes]:
        shop = wires("shop")
        shop.hello("shop", producer="shop/box")
        shop.say("PUB", [event(1)], producer="shop/box", first=1)
        heard = []
        while shop.socket.poll(SILENCE_MS):
            heard.append(shop.socket.recv_multipart()[0])
        return heard

    assert await asyncio.to_thread(publish) == []
    assert await asyncio.wait_for(running, 10) == EXIT_STORAGE


async def test_timers_that_are_set_when_it_stops_find_nothing_to_do(broker: RealBroker, tmp_path: Path) -> None:
    await broker.stop()
    options = Options.from_environment({**broker.environment, "ATOLL_DATA": str(tmp_path / "other")})
    with structlog.testing.capture_logs() as lines:
        server = Server(options, mesh.parse(MESH), MemoryStorage(), structlog.get_logger())
        running = asyncio.create_task(server.run())
        await asyncio.wait_for(server.serving.wait(), 10)
        while not await asyncio.to_thread(broker._is_ready):
            assert not running.done()
        server.stop()
        assert await asyncio.wait_for(running, 10) == 0
        await asyncio.sleep(3 * TURN_SECONDS)
    assert lines[-1]["event"] == "stopped"


def test_the_porter_never_raises_and_lets_only_the_listed_in() -> None:
    allowed = AllowList({b"k" * 32: "shop#1"}, {"shop#1": "shop"})
    good = [b"1.0", b"7", b"atoll", b"127.0.0.1", b"", b"CURVE", b"k" * 32]
    assert zap.answer(good, allowed) == ([b"1.0", b"7", b"200", b"", b"shop#1", b""], True)
    bad: list[list[bytes]] = [[], [b""], good[:-1], [*good, b"x"], [b"2.0", *good[1:]], [*good[:5], b"NULL", b"k" * 32]]
    bad += [[*good[:6], b"z" * 32], [*good[:6], b""], [*good[:2], b"global", *good[3:]]]
    for request in bad:
        reply, let_in = zap.answer(request, allowed)
        assert (reply[2], let_in) == (b"400", False)
