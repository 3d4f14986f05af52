"""Every message of the spec's conformance cases through this library's codec; broker/spec/conformance has the cases.

What the broker says is decoded; what clients say this library can say as well, and it means the same.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_codec import CLIENT

from atoll import _codec as wire

EXCHANGED = Path(__file__).parents[3] / "broker" / "spec" / "conformance" / "exchanged.jsonl"
MESSAGES: list[dict[str, Any]] = [json.loads(line) for line in EXCHANGED.read_text(encoding="utf-8").splitlines()]
HEARD = [message for message in MESSAGES if message["direction"] == "broker"]
SAID = [message for message in MESSAGES if message["direction"] == "client" and "refused" not in message]


def name_of(message: dict[str, Any]) -> str:
    return str(message["case"])


def frames_of(message: dict[str, Any]) -> list[bytes]:
    return [frame.encode() for frame in message["frames"]]


def test_every_command_is_among_the_messages() -> None:
    assert {message["frames"][0][2:] for message in SAID} == set(CLIENT)
    heard = Counter(message["frames"][0].encode() for message in HEARD)
    assert set(heard) == set(wire._TYPES) | {b"A1RESULT"}
    assert len(MESSAGES) > 400


@pytest.mark.parametrize("message", HEARD, ids=name_of)
def test_what_the_broker_says_is_understood(message: dict[str, Any]) -> None:
    frames = frames_of(message)
    understood = wire.decode(frames)
    assert understood is not None
    header = json.loads(frames[1])
    if isinstance(understood, wire.Result):
        assert {"request": understood.request, **understood.fields} == header
        return
    plain = json.loads(msgspec.json.encode(understood))
    assert {name: plain[name] for name in plain if name in header} == header
    if isinstance(understood, wire.Msg):
        events = wire.decode_batch(frames, len(understood.messages))
        assert [arrival.id for arrival, _ in events] == [one["id"] for one in json.loads(frames[2])]


@pytest.mark.parametrize("message", SAID, ids=name_of)
def test_what_clients_say_this_library_says_too(message: dict[str, Any]) -> None:
    frames = frames_of(message)
    said = msgspec.json.decode(frames[1], type=CLIENT[frames[0][2:].decode()])
    ours = wire.encode(said, frames[2] if len(frames) == 3 else None)
    assert [ours[0], *ours[2:]] == [frames[0], *frames[2:]]
    sent, meant = json.loads(ours[1]), json.loads(frames[1])
    plain = {name for name in sent if name in meant and not isinstance(meant[name], dict)}
    assert {name: sent[name] for name in plain} == {name: meant[name] for name in plain}
    again = msgspec.json.decode(ours[1], type=type(said))
    assert wire.encode(again)[1] == ours[1]
