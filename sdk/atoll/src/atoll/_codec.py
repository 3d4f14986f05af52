"""Wire 1, the client's half: what we send as frames, what we get as Structs. `broker/spec/wire-1.md` has the last word.

    [ "A1" + command ][ header: JSON object ][ payload: CloudEvents JSON batch, with PUB and MSG alone ]

Pure functions over bytes. Unknown header fields and unknown commands are ignored, as the spec wants it of both sides.
`data` stays unparsed (`msgspec.Raw`) until a handler's own type reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import msgspec

VERSION = b"A1"
SeqFence = tuple[int, int]


class WireError(Exception):
    """A message from the broker does not follow wire 1. End the session; a new one may do better."""


# ---- client → broker -------------------------------------------------------------------------------------------


class Outgoing(msgspec.Struct, frozen=True):
    """Base of what a client sends; the fields are the header."""

    command: ClassVar[bytes]


class Route(msgspec.Struct, frozen=True):
    """One HTTP route as announced; a null scope means public."""

    method: str
    path: str
    scope: str | None


class Endpoints(msgspec.Struct, frozen=True):
    """Where and how this instance answers HTTP."""

    url: str
    prefixes: Sequence[str]
    routes: Sequence[Route]
    openapi: dict[str, Any] = {}


class Contracts(msgspec.Struct, frozen=True):
    """Topics published, each with the JSON Schema of its data, and topics consumed."""

    publishes: dict[str, Any] = {}
    consumes: Sequence[str] = ()


class Hello(Outgoing, frozen=True):
    command = b"A1HELLO"
    slot: str
    process: str
    sdk: str = ""
    version: str = ""
    producer: str | None = None
    endpoints: Endpoints | None = None
    contracts: Contracts = Contracts()
    resume: str | None = None


class Pub(Outgoing, frozen=True):
    command = b"A1PUB"
    producer: str
    first: int


class Sub(Outgoing, frozen=True):
    command = b"A1SUB"
    group: str
    topics: Sequence[str]
    max_in_flight: int


class Credit(Outgoing, frozen=True):
    command = b"A1CREDIT"
    group: str
    events: int
    bytes: int


class Ack(Outgoing, frozen=True):
    command = b"A1ACK"
    group: str
    done: Sequence[SeqFence] = ()
    duplicate: Sequence[SeqFence] = ()


class Nack(Outgoing, frozen=True):
    command = b"A1NACK"
    group: str
    messages: Sequence[SeqFence]
    delay_ms: int | None = None
    error: str = ""


class Term(Outgoing, frozen=True):
    command = b"A1TERM"
    group: str
    messages: Sequence[SeqFence]
    reason: str = ""
    error: str = ""


class Wip(Outgoing, frozen=True):
    command = b"A1WIP"
    group: str
    messages: Sequence[SeqFence]


class Watch(Outgoing, frozen=True):
    command = b"A1WATCH"
    kind: str


class Put(Outgoing, frozen=True):
    command = b"A1PUT"
    kind: str
    value: Any
    request: str | None = None


class Tap(Outgoing, frozen=True):
    """An ephemeral subscription; without topics its end."""

    command = b"A1TAP"
    tap: str
    topics: Sequence[str]
    after: int | None = None


class Admin(Outgoing, frozen=True, omit_defaults=True):
    """An operator's request: of the arguments those that its verb takes."""

    command = b"A1ADMIN"
    request: str
    verb: str
    group: str | None = None
    subject: str | None = None
    after: int = 0
    limit: int = 100
    seq: int | None = None
    first: int | None = None
    last: int | None = None
    event_id: str | None = None
    id: str | None = None
    dry_run: bool = False
    by: str = ""
    event: Any = None
    fault: Any = None


class Ping(Outgoing, frozen=True):
    command = b"A1PING"
    lag_ms: float = 0.0
    in_flight: int = 0
    oldest_ms: float = 0.0
    ready: bool = True
    why: str = ""


class Drain(Outgoing, frozen=True):
    command = b"A1DRAIN"
    group: str


class ClientBye(Outgoing, frozen=True):
    command = b"A1BYE"
    reason: str = ""


def encode(message: Outgoing, payload: bytes | None = None) -> list[bytes]:
    """The frames of a message."""
    frames = [message.command, msgspec.json.encode(message)]
    if payload is not None:
        frames.append(payload)
    return frames


def batch(events: Iterable[bytes]) -> bytes:
    """The payload of PUB from encoded events, each unchanged."""
    return b"[" + b",".join(events) + b"]"


# ---- broker → client -------------------------------------------------------------------------------------------


class Refusal(msgspec.Struct, frozen=True):
    """A final verdict on one event; its pseq is spent."""

    pseq: int
    code: str
    field: str | None = None
    text: str = ""


class ProducerMark(msgspec.Struct, frozen=True):
    """How far the broker has this producer's events."""

    mark: int
    last_id: str | None = None
    refused: list[Refusal] = []


class Limits(msgspec.Struct, frozen=True):
    event_bytes: int
    batch_events: int
    batch_bytes: int


class Window(msgspec.Struct, frozen=True):
    """How much may be sent and not yet acked."""

    events: int
    bytes: int


class Incoming(msgspec.Struct, frozen=True):
    """Base of what the broker sends."""


class Welcome(Incoming, frozen=True):
    session: str
    log: str
    boot: int
    oldest: int
    heartbeat_ms: int
    limits: Limits
    credit: Window
    producer: ProducerMark | None = None


class PubAck(Incoming, frozen=True):
    producer: str
    upto: int
    credit: Window
    refused: list[Refusal] = []


class PubNack(Incoming, frozen=True):
    producer: str
    code: str
    retry_after_ms: int = 0
    expected: int = 0


class SubOk(Incoming, frozen=True):
    group: str
    lease_ms: int


class Msg(Incoming, frozen=True):
    group: str
    messages: list[tuple[int, int, int, int]]
    """(seq, attempt, lease in ms, fence), in the order of the batch; of a tap (seq, 0, 0, 0)."""
    lost: int = 0
    """Of a tap: how many events were dropped before these."""


class GapSaid(msgspec.Struct, frozen=True):
    """What will never come: the events of these seqs."""

    first: int
    last: int
    why: str = ""
    at_ms: int = 0


class Gap(Incoming, frozen=True):
    group: str
    gaps: list[GapSaid]


class Stale(Incoming, frozen=True):
    group: str
    messages: list[SeqFence]


class State(Incoming, frozen=True):
    kind: str
    version: tuple[int, int]
    settled: bool
    state: Any


class Result(Incoming, frozen=True):
    request: str | int | None
    fields: dict[str, Any]


class Pong(Incoming, frozen=True):
    pass


class Fenced(Incoming, frozen=True):
    reason: str = ""


class BrokerBye(Incoming, frozen=True):
    reason: str = ""


class Err(Incoming, frozen=True):
    code: str
    text: str = ""
    field: str | None = None
    closes: bool = False
    request: str | int | None = None


class Arrival(msgspec.Struct, frozen=True):
    """An event as delivered; `data` unparsed."""

    id: str
    source: str
    type: str
    subject: str
    time: str
    data: msgspec.Raw
    traceparent: str | None = None


_TYPES: dict[bytes, type[Incoming]] = {
    b"A1WELCOME": Welcome,
    b"A1PUBACK": PubAck,
    b"A1PUBNACK": PubNack,
    b"A1SUBOK": SubOk,
    b"A1MSG": Msg,
    b"A1GAP": Gap,
    b"A1STALE": Stale,
    b"A1STATE": State,
    b"A1PONG": Pong,
    b"A1FENCED": Fenced,
    b"A1BYE": BrokerBye,
    b"A1ERR": Err,
}
_DECODERS = {command: msgspec.json.Decoder(struct) for command, struct in _TYPES.items()}
_FIELDS = msgspec.json.Decoder(dict[str, Any])
_BATCH = msgspec.json.Decoder(list[msgspec.Raw])
_ARRIVAL = msgspec.json.Decoder(Arrival)


def decode(frames: Sequence[bytes]) -> Incoming | None:
    """The message, without its payload; None for a command that this library does not know. Raises WireError."""
    if len(frames) < 2 or not frames[0].startswith(VERSION):
        raise WireError(f"{len(frames)} frames, the first {bytes(frames[0][:16])!r}" if frames else "no frames")
    command, header = frames[0], frames[1]
    try:
        if command == b"A1RESULT":
            fields = _FIELDS.decode(header)
            return Result(fields.pop("request", None), fields)
        decoder = _DECODERS.get(command)
        return None if decoder is None else decoder.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"{command.decode(errors='replace')}: {error}") from None


def decode_raw(frames: Sequence[bytes], count: int) -> list[bytes]:
    """The events of a tap's MSG as they were published. Raises WireError unless there are `count` of them."""
    try:
        events = [bytes(one) for one in _BATCH.decode(frames[2])] if len(frames) == 3 else []
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"MSG: {error}") from None
    if len(events) != count:
        raise WireError(f"MSG: {len(events)} events for {count} deliveries")
    return events


def decode_batch(frames: Sequence[bytes], count: int) -> list[tuple[Arrival, int]]:
    """The events of MSG with the size of each in bytes. Raises WireError unless there are `count` of them."""
    if len(frames) != 3:
        raise WireError(f"MSG in {len(frames)} frames")
    try:
        raw = _BATCH.decode(frames[2])
        events = [(_ARRIVAL.decode(one), len(memoryview(one))) for one in raw]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"MSG: {error}") from None
    if len(events) != count:
        raise WireError(f"MSG: {len(events)} events for {count} deliveries")
    return events
