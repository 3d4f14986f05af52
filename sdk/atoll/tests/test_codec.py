"""Wire 1 by the golden vectors: ours to send encode to them, the broker's decode from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atoll import _codec as wire

SPEC = Path(__file__).parents[3] / "broker" / "spec" / "vectors"
VALID = {path.stem: json.loads(path.read_text()) for path in sorted((SPEC / "valid").glob("*.json"))}
CLIENT = {
    "HELLO": wire.Hello,
    "PUB": wire.Pub,
    "SUB": wire.Sub,
    "CREDIT": wire.Credit,
    "ACK": wire.Ack,
    "NACK": wire.Nack,
    "TERM": wire.Term,
    "WIP": wire.Wip,
    "TAP": wire.Tap,
    "WATCH": wire.Watch,
    "PUT": wire.Put,
    "ADMIN": wire.Admin,
    "PING": wire.Ping,
    "DRAIN": wire.Drain,
    "BYE": wire.ClientBye,
}


def _names(direction: str) -> list[str]:
    return [name for name, vector in VALID.items() if vector["direction"] == direction]


def _plain(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


def _frames(vector: dict[str, Any]) -> list[bytes]:
    return [frame.encode() for frame in vector["frames"]]


def test_there_are_vectors_for_every_command() -> None:
    assert {VALID[name]["decoded"]["command"] for name in _names("client")} == set(CLIENT)
    assert len(_names("broker")) >= 12


@pytest.mark.parametrize("name", _names("client"))
def test_what_we_send_is_what_the_vector_means(name: str) -> None:
    decoded = VALID[name]["decoded"]
    message = msgspec.convert(decoded["header"], CLIENT[decoded["command"]])
    events = decoded.get("events")
    payload = wire.batch(json.dumps(one).encode() for one in events) if events else None
    frames = wire.encode(message, payload)
    assert frames[0] == VALID[name]["frames"][0].encode()
    sent = json.loads(frames[1])
    expected = {**decoded["header"]}
    assert {field: sent.get(field, expected[field]) for field in expected} == expected
    assert set(sent) <= set(expected), "no header field that the spec does not know"
    if events:
        assert json.loads(frames[2]) == events


@pytest.mark.parametrize("name", _names("broker"))
def test_what_the_broker_sends_is_understood(name: str) -> None:
    vector = VALID[name]
    header = vector["decoded"]["header"]
    message = wire.decode(_frames(vector))
    assert message is not None
    if isinstance(message, wire.Result):
        assert {"request": message.request, **message.fields} == header
        return
    understood = _plain(message)
    assert {field: understood[field] for field in understood if field in header} == {
        field: header[field] for field in understood if field in header
    }
    if isinstance(message, wire.Msg):
        events = wire.decode_batch(_frames(vector), len(message.messages))
        assert [arrival.id for arrival, _ in events] == [one["id"] for one in vector["decoded"]["events"]]
        assert sum(size for _, size in events) + len(events) + 1 == len(_frames(vector)[2])


def test_unknown_commands_and_unknown_fields_are_ignored() -> None:
    assert wire.decode([b"A1NEWER", b"{}"]) is None
    assert wire.decode([b"A1PONG", b'{"newer": 1}']) == wire.Pong()


@pytest.mark.parametrize(
    "frames",
    [[], [b"A1PONG"], [b"A2PONG", b"{}"], [b"A1PONG", b"["], [b"A1WELCOME", b"{}"], [b"A1STALE", b'{"a":\xff}']],
)
def test_what_is_not_wire_1_is_an_error_and_nothing_else(frames: list[bytes]) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(frames)


@pytest.mark.parametrize("payload", [b"[]", b"{}", b'[{"id":"x"}]', b"[\xff]"])
def test_a_delivery_that_does_not_match_its_header_is_an_error(payload: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode_batch([b"A1MSG", b"{}", payload], 1)
