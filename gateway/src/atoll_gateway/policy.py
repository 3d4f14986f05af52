"""The table `[gateway]` of mesh.toml: every knob with its unit, default and bound.

A field that nobody knows, or a value out of its bound, stops the start with the field's name: a mistyped limit must
never turn into the default in silence. The tables of other parts are not looked at.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Prefix = Annotated[str, msgspec.Meta(pattern=r"^/[a-z0-9][a-z0-9-]*$")]


class PolicyError(Exception):
    """mesh.toml cannot be used; the text names the field and what was expected."""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the gateway allows a client and asks of a service."""

    # Owners of these prefixes may announce routes without a scope; anybody else's are refused (default deny).
    public_prefixes: tuple[Prefix, ...] = ("/auth",)

    # ---- towards clients
    # Open client connections; one more is closed at once. Each may cost two file descriptors.
    connections_max: Count = 4096
    # One header line, and the request line. aiohttp refuses more than 128 headers by itself.
    head_line_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=65536)] = 8190
    # From a connection's first byte to a complete head: what half-sent headers may hold a connection for.
    head_seconds_max: Seconds = 10.0
    # Idle between two requests. Longer than clients keep theirs, or they send into a closing connection.
    keepalive_seconds: Seconds = 75.0
    body_bytes_max: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)] = 1 << 20
    # Between two chunks of a body, either way: a client that stops reading holds a service's connection too.
    body_idle_seconds_max: Seconds = 10.0
    # From the head until the whole request body has come, however steadily it trickles.
    request_seconds_max: Seconds = 30.0

    # ---- towards services
    connect_seconds_max: Seconds = 2.0
    # From the whole request sent to the head of the answer; the service is told (`Atoll-Deadline-Ms`).
    upstream_seconds_max: Seconds = 10.0
    # A body that stays silent this long is cut; an event stream must send a comment more often.
    stream_idle_seconds_max: Seconds = 60.0
    # Requests in progress for one service: its stall must not take the others' share (bulkhead).
    concurrency_max: Count = 256
    # Retries per request; above it a failing service would get its load doubled when it can bear it least.
    retry_ratio_max: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    # An instance that refused a connection is left out this long, unless it is the only one. Without it the
    # instance that fails fastest has the fewest in flight and draws all the traffic.
    eject_seconds: Seconds = 1.0
    # Without word from auth for this long nobody can be revoked: `ops:*` is refused, the rest goes on.
    heartbeat_seconds_max: Seconds = 15.0

    # ---- traces: all of the first so many a second, then one in so many
    trace_all_per_second: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 20
    trace_one_in: Count = 20
    # A request that took longer has its span even if it was not sampled; so has one that ended with 5xx. An endless
    # stream is slow by this measure, and is kept once it ends.
    trace_slow_seconds: Seconds = 2.0


class _Mesh(msgspec.Struct):
    """The file, of which only one table is read here."""

    gateway: Policy = msgspec.field(default_factory=Policy)


def load(path: Path) -> Policy:
    """The policy in the file; raises PolicyError naming the field."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyError(f"ATOLL_MESH: {path} cannot be read: {error}") from error
    return parse(document)


def parse(document: dict[str, object]) -> Policy:
    """The policy in a decoded mesh.toml; raises PolicyError naming the field."""
    try:
        return msgspec.convert({"gateway": document.get("gateway", {})}, _Mesh).gateway
    except msgspec.ValidationError as error:
        raise PolicyError(f"mesh.toml: {_located(str(error))}") from error


def _located(text: str) -> str:
    """`Expected … - at `$.gateway.x`` turned so that the field comes first."""
    what, _, where = text.partition(" - at `$.")
    return f"{where.rstrip('`')}: {what}" if where else what
