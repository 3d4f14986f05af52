"""The golden vectors of the spec through the codec, and the codec's own names against the spec."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atoll_broker import codec, commands, errors
from atoll_broker.errors import WireError

SPEC = Path(__file__).parent.parent / "spec"
VALID = sorted((SPEC / "vectors" / "valid").glob("*.json"))
INVALID = sorted((SPEC / "vectors" / "invalid").glob("*.json"))
BROKER: dict[str, list[type[commands.Header]]] = {name.decode(): [] for name in commands.BROKER_COMMANDS.values()}
for struct, command_name in commands.BROKER_COMMANDS.items():
    BROKER[command_name.decode()].append(struct)


def load(path: Path) -> tuple[dict[str, Any], list[bytes]]:
    vector = json.loads(path.read_text(encoding="utf-8"))
    frames = [f.encode() if isinstance(f, str) else base64.b64decode(f["base64"]) for f in vector["frames"]]
    return vector, frames


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_valid_vector_decodes_to_its_command(path: Path) -> None:
    vector, frames = load(path)
    if vector["direction"] == "client":
        header, payload = codec.decode(frames)
        assert commands.CLIENT_COMMANDS[vector["decoded"]["command"].encode()] is type(header)
        assert json.loads(msgspec.json.encode(header)) == vector["decoded"]["header"]
        if payload is not None:
            batch = codec.decode_batch(payload, 128, 1 << 20)
            assert [json.loads(bytes(event)) for event in batch] == vector["decoded"]["events"]


@pytest.mark.parametrize("path", [p for p in VALID if p.stem.startswith("broker-")], ids=lambda path: path.stem)
def test_broker_vector_is_what_the_codec_encodes(path: Path) -> None:
    vector, frames = load(path)
    command, header = vector["decoded"]["command"], vector["decoded"]["header"]
    payload = frames[2] if len(frames) == 3 else None
    if command == "RESULT":
        assert codec.encode_result(header) == frames
        return
    encodings = []
    for struct in BROKER[command]:
        try:
            encodings.append(codec.encode(msgspec.json.decode(frames[1], type=struct), payload))
        except msgspec.ValidationError:
            continue
    assert frames in encodings


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_invalid_vector_is_refused_with_code_and_field(path: Path) -> None:
    vector, frames = load(path)
    with pytest.raises(WireError) as caught:
        decode_whole(frames)
    assert {"code": caught.value.code, "field": caught.value.field} == vector["error"]


def decode_whole(frames: list[bytes]) -> None:
    _, payload = codec.decode(frames)
    if payload is not None:
        codec.decode_batch(payload, 128, 1 << 20)


def test_every_command_has_a_vector() -> None:
    seen = {json.loads(path.read_text(encoding="utf-8"))["decoded"]["command"].encode() for path in VALID}
    assert seen == set(commands.CLIENT_COMMANDS) | set(commands.BROKER_COMMANDS.values()) | {b"RESULT"}


def test_error_codes_are_those_of_the_spec() -> None:
    spec = json.loads((SPEC / "errors.json").read_text(encoding="utf-8"))
    assert {entry["code"]: entry["closes"] for entry in spec["codes"]} == errors.CODES
    assert all(entry["meaning"] and entry["caller_may"] for entry in spec["codes"])


def test_a_topic_does_not_end_in_a_newline() -> None:
    with pytest.raises(WireError):
        codec.decode([b"A1SUB", b'{"group":"g","topics":["a.b.v1\\n"],"max_in_flight":1}'])
