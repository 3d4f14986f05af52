"""Frames to commands and back. Pure: bytes in, structs out, or a WireError that names the field.

client -> broker   [ "A1" command ][ header JSON object ]( [ payload ] for PUB alone )
broker -> client   [ "A1" command ][ header JSON object ]( [ payload ] for MSG alone )
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from . import commands
from .errors import WireError

WIRE_VERSION: Final = b"A1"
FRAMES_MAX: Final = 3
COMMAND_BYTES_MAX: Final = 16
# Levels of arrays and objects in a header or an event. Libraries give up somewhere between 128 and 1,000, and not all
# of them here and at every reader at the same depth: what one lets in could stop the next.
NESTING_MAX: Final = 100

_decoders: Final = {name: msgspec.json.Decoder(kind) for name, kind in commands.CLIENT_COMMANDS.items()}
_T = TypeVar("_T")
_batch_decoder: Final = msgspec.json.Decoder(list[Raw])
_encoder: Final = msgspec.json.Encoder()
_names: Final = {kind: WIRE_VERSION + name for kind, name in commands.BROKER_COMMANDS.items()}
_RESULT: Final = WIRE_VERSION + b"RESULT"
_PATH: Final = re.compile(r"`\$\.?([^`]*)`\Z")
_STRINGS: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_MISSING: Final = re.compile(r"missing required field `([^`]+)`")


def decode(frames: Sequence[bytes]) -> tuple[commands.ClientCommand, bytes | None]:
    """The command of one message, and its payload for PUB. Raises WireError."""
    name = _command_name(frames)
    decoder = _decoders.get(name)
    if decoder is None:
        raise WireError("COMMAND", f"unknown command {_printable(name)}")
    wanted = 3 if name == b"PUB" else 2
    if len(frames) != wanted:
        raise WireError("FRAMES", f"{name.decode()} has {wanted} frames, got {len(frames)}")
    return decode_header(decoder, frames[1]), frames[2] if wanted == 3 else None


def _command_name(frames: Sequence[bytes]) -> bytes:
    if not 2 <= len(frames) <= FRAMES_MAX:
        raise WireError("FRAMES", f"a message has 2 or 3 frames, got {len(frames)}")
    if not frames[0].startswith(WIRE_VERSION):
        raise WireError("VERSION", f"the first frame begins with A1, got {_printable(frames[0])}")
    return frames[0][2:]


def decode_header(decoder: msgspec.json.Decoder[_T], header: bytes) -> _T:
    try:
        check_utf8(header)
        decoded = decoder.decode(header)
    except msgspec.ValidationError as error:
        raise WireError("HEADER", str(error), field_of(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("HEADER", f"the header is not a JSON object: {error}") from None
    if nests_too_deeply(header):
        raise WireError("HEADER", f"the header nests deeper than {NESTING_MAX} levels")
    return decoded


def decode_raw(value: Raw, code: str, field: str) -> object:
    """A value that a header carries unparsed. Raises WireError: what msgspec skips it has not checked, a number beyond
    all floats for one, and whoever decodes it later would fail."""
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(code, str(error), field) from None


def decode_batch(payload: bytes, events_max: int, bytes_max: int) -> list[Raw]:
    """The events of one batch, each as the very bytes that came. Raises WireError."""
    if len(payload) > bytes_max:
        raise WireError("PAYLOAD", f"a batch has at most {bytes_max} bytes, got {len(payload)}")
    try:
        check_utf8(payload)
        batch = _batch_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("PAYLOAD", f"the payload is not a JSON array: {error}") from None
    if not 1 <= len(batch) <= events_max:
        raise WireError("PAYLOAD", f"a batch has 1 to {events_max} events, got {len(batch)}")
    return batch


def check_utf8(data: bytes) -> None:
    """Raises UnicodeDecodeError. msgspec leaves strings that it skips (Raw, unknown fields) unchecked."""
    if not data.isascii():
        data.decode("utf-8")


def nests_too_deeply(text: bytes) -> bool:
    """Of JSON that has been decoded once, so that its brackets match. Fast for what has few of them."""
    if text.count(b"[") + text.count(b"{") <= NESTING_MAX:
        return False
    brackets = _STRINGS.sub(b"", text).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(NESTING_MAX):
        brackets = brackets.replace(b"[]", b"")  # takes the innermost level away
        if not brackets:
            return False
    return True


def field_of(error: msgspec.ValidationError) -> str | None:
    """`lines[0].quantity` out of msgspec's "... - at `$.lines[0].quantity`"; None where it names no place."""
    text = str(error)
    path = _PATH.search(text)
    missing = _MISSING.search(text)
    parts = [path.group(1) if path else "", missing.group(1) if missing else ""]
    return ".".join(part for part in parts if part) or None


def encode(header: commands.Header, payload: bytes | None = None) -> list[bytes]:
    frames = [_names[type(header)], _encoder.encode(header)]
    return frames if payload is None else [*frames, payload]


def encode_result(result: dict[str, object]) -> list[bytes]:
    """RESULT's fields depend on the verb, so it has no struct."""
    return [_RESULT, _encoder.encode(result)]


def join_batch(events: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(events) + b"]"


def _printable(data: bytes) -> str:
    """At most a few characters of what a peer sent, safe in a log line."""
    return repr(data[:COMMAND_BYTES_MAX])[1:]
