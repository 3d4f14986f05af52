"""The golden vectors of the spec through a codec that was written from the spec's text alone."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from atoll_journal import codec, shapes
from atoll_journal.errors import WireError

SPEC = Path(__file__).parents[3] / "broker" / "spec"
VALID = sorted((SPEC / "vectors" / "valid").glob("*.json"))
INVALID = sorted((SPEC / "vectors" / "invalid").glob("*.json"))
COMMANDS = {"client": shapes.TO_BROKER, "broker": shapes.TO_CLIENT}


def load(path: Path) -> tuple[dict[str, Any], list[bytes]]:
    vector = json.loads(path.read_text(encoding="utf-8"))
    return vector, [f.encode() if isinstance(f, str) else base64.b64decode(f["base64"]) for f in vector["frames"]]


def test_there_are_vectors() -> None:
    assert len(VALID) > 30
    assert len(INVALID) > 30


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_vector_is_read(path: Path) -> None:
    vector, frames = load(path)
    message = codec.decode(frames, COMMANDS[vector["direction"]])
    assert (message.command, message.header) == (vector["decoded"]["command"], vector["decoded"]["header"])
    if message.events is not None:
        assert [event.fields for event in message.events] == vector["decoded"]["events"]
        assert b"[" + b",".join(event.raw for event in message.events) + b"]" == frames[2]


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_vector_is_refused_with_its_code_and_field(path: Path) -> None:
    vector, frames = load(path)
    with pytest.raises(WireError) as caught:
        codec.decode(frames, COMMANDS[vector["direction"]], events_max=128)
    assert {"code": caught.value.code, "field": caught.value.field} == vector["error"]


@pytest.mark.parametrize(
    "path", [path for path in VALID if not path.stem.startswith("broker-")], ids=lambda path: path.stem
)
def test_what_it_sends_says_what_the_vector_says(path: Path) -> None:
    vector, frames = load(path)
    command, header = vector["decoded"]["command"], vector["decoded"]["header"]
    sent = codec.encode(command, **header)
    assert (sent[0], json.loads(sent[1])) == (frames[0], header)


@pytest.mark.parametrize(
    "path", [path for path in INVALID if json.loads(path.read_text())["error"]["field"]], ids=lambda path: path.stem
)
def test_what_the_broker_would_refuse_it_does_not_send(path: Path) -> None:
    vector, frames = load(path)
    with pytest.raises(WireError) as caught:
        codec.encode(frames[0][2:].decode(), **json.loads(frames[1]))
    assert caught.value.field == vector["error"]["field"]


def test_a_command_of_a_later_broker_is_passed_over() -> None:
    assert codec.decode_from_broker([b"A1DANCE", b"{}"]) is None


@pytest.mark.parametrize(
    "frames",
    [
        [b"A1MSG", b'{"group":"journal","messages":[[1,1,30000,4294967297]]}', b"[{},{}]"],
        [b"A1MSG", b'{"group":"journal","messages":[[1,1,30000,4294967297]]}', b"[{}]]"],
        [b"A1MSG", b'{"group":"journal","messages":[[1,1,30000,4294967297]]}', b"[{}"],
        [b"A1MSG", b'{"group":"journal","messages":[[1,1,30000,4294967297]]}', b""],
        [b"A1MSG", b'{"group":"journal","messages":[[1,1,30000]]}', b"[{}]"],
        [b"A1MSG", b'{"group":"journal","messages":[[1,1,30000,4294967297]]}'],
        [b"A1WELCOME", b'{"session":"b1-1"}'],
        [b"A1SUBOK", b'{"group":"journal","lease_ms":"30000"}'],
        [b"A1SUBOK", b'{"group":"journal","lease_ms":true}'],
    ],
)
def test_what_is_no_message_of_a_broker_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        codec.decode_from_broker(frames)


def test_an_events_bytes_are_kept_with_their_spaces_and_order() -> None:
    raw = '{ "id":"e-1",\t"data": {"b": 1.50, "a": "\\u00e9é"} ,"x":1e2}'
    frames = [
        b"A1MSG",
        b'{"group":"journal","messages":[[1,1,30000,1],[2,1,30000,2]]}',
        f" [ {raw} ,\n{raw}\t] ".encode(),
    ]
    message = codec.decode_from_broker(frames)
    assert message is not None
    assert message.events is not None
    assert [event.raw.decode() for event in message.events] == [raw, raw]
