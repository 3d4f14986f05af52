"""What a client may say, and what the broker answers: one struct a command, as in spec/wire-1.md.

The structs hold headers alone; a batch of events travels beside them as bytes. Bounds on names and lists are part of
the types, so that a header that decodes is within its bounds, and an error names the field that was not.
Unknown header fields are ignored, which is what lets a newer client speak to an older broker.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw

SEGMENT = r"[a-z][a-z0-9_-]{0,39}"
TOPIC_RE = rf"^{SEGMENT}(\.{SEGMENT}){{1,6}}\.v[1-9][0-9]{{0,2}}\Z"
PATTERN_RE = rf"^(({SEGMENT}\.){{0,7}}\*|{SEGMENT}(\.{SEGMENT}){{1,6}}\.v[1-9][0-9]{{0,2}})\Z"
TAP_RE = r"^~[a-z0-9-]{1,31}\Z"  # no group's name begins so
IDENTITY_RE = r"^[a-z][a-z0-9-]{0,31}\Z"
SLOT_RE = r"^[a-z][a-z0-9-]{0,31}/[0-9]{1,4}\Z"
PRODUCER_RE = r"^[a-z][a-z0-9-]{0,31}/[A-Za-z0-9-]{1,64}\Z"
PREFIX_RE = r"^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}){1,4}\Z"
ROUTE_RE = r"^(/(\.?[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}|\{[A-Za-z_][A-Za-z0-9_]{0,31}\})){1,16}\Z"

# \Z and not $: the latter would let a trailing newline through.
Topic = Annotated[str, Meta(pattern=TOPIC_RE, max_length=200)]
Slot = Annotated[str, Meta(pattern=SLOT_RE)]
Producer = Annotated[str, Meta(pattern=PRODUCER_RE)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Text = Annotated[str, Meta(max_length=4096)]
Prefix = Annotated[str, Meta(pattern=PREFIX_RE)]
Pattern = Annotated[str, Meta(pattern=PATTERN_RE, max_length=200)]
TapName = Annotated[str, Meta(pattern=TAP_RE)]
RoutePath = Annotated[str, Meta(pattern=ROUTE_RE, max_length=400)]
Method = Annotated[str, Meta(pattern=r"^[A-Z]{1,16}\Z")]
Scope = Annotated[str, Meta(min_length=1, max_length=64)]
# 2**53 - 1: JSON numbers above it are not exact in every language.
Count = Annotated[int, Meta(ge=0, le=9_007_199_254_740_991)]
Positive = Annotated[int, Meta(ge=1, le=9_007_199_254_740_991)]
Duration = Annotated[int, Meta(ge=0, le=86_400_000)]
Delivery = tuple[Count, Count]
Deliveries = Annotated[list[Delivery], Meta(max_length=4096)]

NULL = Raw(b"null")

WATCH_KINDS = ("registry", "keys", "revocations")


class Header(msgspec.Struct, gc=False):
    """The base of every header: plain data, made once, never part of a cycle."""


# ---- client to broker ------------------------------------------------------------------------------------------------


class Route(Header):
    """One HTTP route, in aiohttp/OpenAPI path form. A null scope means public, which needs the grant."""

    method: Method
    path: RoutePath
    scope: Scope | None = None


class Endpoints(Header):
    url: Annotated[str, Meta(pattern=r"^https?://[^/\s]{1,255}\Z")]
    prefixes: Annotated[list[Prefix], Meta(max_length=32)]
    routes: Annotated[list[Route], Meta(max_length=256)]
    openapi: Raw = Raw(b"{}")


class Contracts(Header):
    publishes: Annotated[dict[Topic, Raw], Meta(max_length=256)] = {}
    consumes: Annotated[list[Topic], Meta(max_length=256)] = []


class Hello(Header):
    slot: Slot
    process: Name
    sdk: Annotated[str, Meta(max_length=64)] = ""
    version: Annotated[str, Meta(max_length=64)] = ""
    producer: Producer | None = None
    endpoints: Endpoints | None = None
    contracts: Contracts = msgspec.field(default_factory=Contracts)
    resume: Name | None = None


class Pub(Header):
    producer: Producer
    first: Positive


class Sub(Header):
    group: Name
    topics: Annotated[list[Topic], Meta(min_length=1, max_length=256)]
    max_in_flight: Annotated[int, Meta(ge=1, le=65_536)]


class Credit(Header):
    group: Name
    events: Annotated[int, Meta(ge=0, le=1_000_000)]
    bytes: Annotated[int, Meta(ge=0, le=1_073_741_824)]


class Ack(Header):
    group: Name
    done: Deliveries = []
    duplicate: Deliveries = []


class Nack(Header):
    group: Name
    messages: Deliveries
    delay_ms: Duration | None = None
    error: Text = ""


class Term(Header):
    group: Name
    messages: Deliveries
    reason: Text = ""
    error: Text = ""


class Wip(Header):
    group: Name
    messages: Deliveries


class Watch(Header):
    kind: Literal["registry", "keys", "revocations"]


class Put(Header):
    kind: Literal["keys", "revocations"]
    value: Raw
    request: Name | None = None


class Tap(Header):
    """An ephemeral look at the log. No topics end it; without `after` it begins with the next commit."""

    tap: TapName
    topics: Annotated[list[Pattern], Meta(max_length=64)]
    after: Count | None = None


class Admin(Header):
    """`request` and `verb`, and of the rest what the verb takes. `fault` is decoded by its verb."""

    request: Name
    verb: Name
    group: Name | None = None
    subject: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    after: Count = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    seq: Count | None = None
    first: Count | None = None
    last: Count | None = None
    event_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    id: Name | None = None
    dry_run: bool = False
    by: Annotated[str, Meta(max_length=256)] = ""
    event: Raw = NULL
    fault: Raw = NULL


class Ping(Header):
    lag_ms: Annotated[float, Meta(ge=0)] = 0
    in_flight: Count = 0
    oldest_ms: Annotated[float, Meta(ge=0)] = 0
    ready: bool = True
    why: Text = ""


class Drain(Header):
    group: Name


class Bye(Header):
    """Said by either side: the session ends, nothing more comes."""

    reason: Text = ""


ClientCommand = Hello | Pub | Sub | Credit | Ack | Nack | Term | Wip | Tap | Watch | Put | Admin | Ping | Drain | Bye

CLIENT_COMMANDS: dict[bytes, type[ClientCommand]] = {
    b"HELLO": Hello,
    b"PUB": Pub,
    b"SUB": Sub,
    b"CREDIT": Credit,
    b"ACK": Ack,
    b"NACK": Nack,
    b"TERM": Term,
    b"WIP": Wip,
    b"TAP": Tap,
    b"WATCH": Watch,
    b"PUT": Put,
    b"ADMIN": Admin,
    b"PING": Ping,
    b"DRAIN": Drain,
    b"BYE": Bye,
}

# ---- broker to client ------------------------------------------------------------------------------------------------


class Window(Header):
    """How many events, and how many bytes of them, may be unacknowledged at a time."""

    events: int
    bytes: int


class Refusal(Header):
    """A final verdict on one event: its pseq is spent."""

    pseq: int
    code: str
    field: str
    text: str


class ProducerMark(Header):
    mark: int
    last_id: str | None
    refused: list[Refusal] = []


class Limits(Header):
    event_bytes: int
    batch_events: int
    batch_bytes: int


class Welcome(Header):
    session: str
    log: str
    boot: int
    producer: ProducerMark | None
    oldest: int
    heartbeat_ms: int
    limits: Limits
    credit: Window


class PubAck(Header):
    producer: str
    upto: int
    refused: list[Refusal]
    credit: Window


class PubBusy(Header):
    producer: str
    retry_after_ms: int
    code: Literal["BUSY"] = "BUSY"


class PubExpected(Header):
    producer: str
    expected: int
    code: Literal["EXPECTED"] = "EXPECTED"


class SubOk(Header):
    group: str
    lease_ms: int


class Msg(Header):
    """Deliveries [seq, attempt, lease_ms, fence], in the order of the events in the payload."""

    group: str
    messages: list[tuple[int, int, int, int]]


class TapMsg(Header):
    """A MSG of a tap: [seq, 0, 0, 0], and how many matching events were dropped before these."""

    group: str
    messages: list[tuple[int, int, int, int]]
    lost: int


class GapSaid(Header):
    first: int
    last: int
    why: str
    at_ms: int


class Gap(Header):
    """What a group, or a tap, will never get."""

    group: str
    gaps: list[GapSaid]


class Stale(Header):
    group: str
    messages: list[tuple[int, int]]


class State(Header):
    kind: str
    version: tuple[int, int]
    settled: bool
    state: Raw


class Pong(Header):
    pass


class Fenced(Header):
    reason: str


class Err(Header):
    code: str
    text: str
    field: str | None
    closes: bool
    request: str | None = None


BROKER_COMMANDS: dict[type[Header], bytes] = {
    Welcome: b"WELCOME",
    PubAck: b"PUBACK",
    PubBusy: b"PUBNACK",
    PubExpected: b"PUBNACK",
    SubOk: b"SUBOK",
    Msg: b"MSG",
    TapMsg: b"MSG",
    Gap: b"GAP",
    Stale: b"STALE",
    State: b"STATE",
    Pong: b"PONG",
    Fenced: b"FENCED",
    Bye: b"BYE",
    Err: b"ERR",
}
