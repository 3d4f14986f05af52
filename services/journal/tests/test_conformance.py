"""Every message of the spec's conformance cases through this codec, both ways; the cases: broker/spec/conformance."""

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from atoll_journal import codec, shapes
from atoll_journal.errors import WireError

EXCHANGED = Path(__file__).parents[3] / "broker" / "spec" / "conformance" / "exchanged.jsonl"
MESSAGES: list[dict[str, Any]] = [json.loads(line) for line in EXCHANGED.read_text(encoding="utf-8").splitlines()]
#: The broker refuses its one event; as a message it is none that anybody is sent.
TOO_DEEP = "an event of 101 levels is refused"
MESSAGES = [message for message in MESSAGES if (message["case"], message["direction"]) != (TOO_DEEP, "client")]
READ = [message for message in MESSAGES if message.get("refused", {}).get("code") in (None, "PAYLOAD")]
REFUSED = [message for message in MESSAGES if message not in READ]
EVENTS_MAX = 16  # of the cases' world


def frames_of(message: dict[str, Any]) -> list[bytes]:
    return [f.encode() if isinstance(f, str) else base64.b64decode(f["base64"]) for f in message["frames"]]


def read(message: dict[str, Any]) -> codec.Message:
    commands = {"client": shapes.TO_BROKER, "broker": shapes.TO_CLIENT}[message["direction"]]
    return codec.decode(frames_of(message), commands, events_max=EVENTS_MAX)


def test_every_command_both_ways_is_among_the_messages() -> None:
    said = Counter((message["direction"], message["frames"][0][2:]) for message in READ)
    assert {command for direction, command in said if direction == "client"} == set(shapes.TO_BROKER)
    assert {command for direction, command in said if direction == "broker"} == set(shapes.TO_CLIENT)
    assert len(MESSAGES) > 400
    assert len(REFUSED) > 15


@pytest.mark.parametrize("message", [m for m in READ if "refused" not in m], ids=lambda message: message["case"])
def test_what_was_said_is_read(message: dict[str, Any]) -> None:
    decoded, frames = read(message), frames_of(message)
    header = json.loads(frames[1])
    if message["direction"] == "broker":
        assert decoded.header == header
    else:  # with fields that nobody knows, and without those that are left to their defaults
        plain = {name for name in decoded.header if name in header and not isinstance(header[name], dict)}
        assert {name: decoded.header[name] for name in plain} == {name: header[name] for name in plain}
    if decoded.events is not None:
        assert [event.fields for event in decoded.events] == json.loads(frames[2])
    else:
        assert len(frames) == 2


@pytest.mark.parametrize(
    "message", [m for m in READ if m["direction"] == "client" and "refused" not in m], ids=lambda m: m["case"]
)
def test_what_it_would_send_is_read_as_the_same(message: dict[str, Any]) -> None:
    decoded = read(message)
    sent = codec.encode(decoded.command, **decoded.header)
    again = codec.decode([*sent, *frames_of(message)[2:]], shapes.TO_BROKER, events_max=EVENTS_MAX)
    assert (again.command, again.header) == (decoded.command, decoded.header)


@pytest.mark.parametrize("message", [m for m in MESSAGES if "refused" in m], ids=lambda message: message["case"])
def test_what_the_broker_refused_is_refused_for_the_same(message: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        read(message)
    assert {"code": caught.value.code, "field": caught.value.field} == message["refused"]
