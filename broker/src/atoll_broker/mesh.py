"""The broker's tables of mesh.toml: [bus], [grant.*], [group.*], [group_defaults]. Tables of others are not read.

Strict: an unknown or wrong field stops the start, and the error names it (`group.orders.topics[1]`).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from .codec import field_of
from .commands import IDENTITY_RE, Pattern, Prefix, Topic
from .errors import ConfigurationError

_T = TypeVar("_T")
_S = TypeVar("_S", bound=msgspec.Struct)

Identity = Annotated[str, Meta(pattern=IDENTITY_RE)]
Rate = Annotated[float, Meta(ge=0, le=1_000_000)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Bytes = Annotated[int, Meta(ge=1024, le=1 << 40)]
Events = Annotated[int, Meta(ge=1, le=1_000_000)]


class Bus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[bus]: every bound of the broker. Sizes in bytes, durations in seconds."""

    heartbeat_seconds: Annotated[float, Meta(ge=0.05, le=60)] = 1.0
    event_bytes_max: Bytes = 262_144
    batch_events_max: Annotated[int, Meta(ge=1, le=4096)] = 128
    batch_bytes_max: Annotated[int, Meta(ge=1024, le=67_108_864)] = 1_048_576
    # What one publisher may have unacked; the window in WELCOME.
    publish_events_max: Events = 1024
    publish_bytes_max: Bytes = 8_388_608
    # What may wait for the disk from all publishers together.
    pending_events_max: Events = 16_384
    pending_bytes_max: Bytes = 67_108_864
    # At half of it an alarm names the slowest group; at the bound publishers get BUSY.
    log_bytes_max: Bytes = 1_073_741_824
    # Events that every group has finished are kept up to this size, so that a group added later finds history.
    log_bytes_kept: Bytes = 268_435_456
    # And no longer than this (by the wall clock), and no more of them than this. Never past what a group has to handle.
    log_seconds_kept: Annotated[float, Meta(ge=1, le=3_153_600_000)] = 604_800
    log_events_kept: Annotated[int, Meta(ge=1, le=1 << 40)] = 1_000_000
    # A group with events to handle that makes no progress for so long is an alarm.
    stalled_seconds: Annotated[float, Meta(ge=0.5, le=3600)] = 3.0
    # The tail of the log held in memory for the groups that keep up.
    cache_bytes_max: Bytes = 33_554_432
    # How far a group reads ahead of its oldest unfinished event.
    window_events_max: Events = 4096
    window_bytes_max: Bytes = 16_777_216
    dead_letters_max: Events = 100_000
    sessions_max: Annotated[int, Meta(ge=1, le=10_000)] = 256
    sessions_per_identity_max: Annotated[int, Meta(ge=1, le=10_000)] = 64
    producers_max: Annotated[int, Meta(ge=1, le=100_000)] = 1024

    @property
    def log_bytes_trimmed(self) -> int:
        """What a log is cut back to. Below the bound whatever log_bytes_kept says, or publishers would stay BUSY."""
        return min(self.log_bytes_kept, self.log_bytes_max // 2)

    def __post_init__(self) -> None:
        if self.event_bytes_max + 2 > self.batch_bytes_max:
            # Else an event that is allowed could never be sent: "[" event "]" is longer than it.
            raise ValueError("event_bytes_max must leave room for two brackets in batch_bytes_max")
        if self.batch_events_max > min(self.publish_events_max, self.pending_events_max):
            raise ValueError("batch_events_max must be at most publish_events_max and pending_events_max")
        if self.batch_bytes_max > min(self.publish_bytes_max, self.pending_bytes_max):
            raise ValueError("batch_bytes_max must be at most publish_bytes_max and pending_bytes_max")


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[grant.IDENTITY]: what the holder of that key may say. Nothing is granted by default."""

    publish: list[Pattern] = []
    announce: list[Prefix] = []
    public: bool = False
    watch: list[Literal["registry", "keys", "revocations"]] = []
    put: list[Literal["keys", "revocations"]] = []
    tap: list[Pattern] = []
    admin: bool = False
    # What each of its outboxes may publish; 0: no bound.
    events_per_second_max: Rate = 0


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[group.NAME] over [group_defaults]: a durable subscription that exists with members or without."""

    part: Identity
    topics: Annotated[list[Topic], Meta(min_length=1, max_length=256)]
    first: Literal["earliest", "latest"] = "earliest"
    lease_seconds: Seconds = 30
    attempts_max: Annotated[int, Meta(ge=1, le=1000)] = 8
    backoff_seconds: tuple[Seconds, Seconds] = (0.1, 30)
    in_flight_max: Annotated[int, Meta(ge=1, le=65_536)] = 256
    on_dead: Literal["park", "skip"] = "park"
    # What its members together are sent; 0: no bound.
    events_per_second_max: Rate = 0


class Mesh(msgspec.Struct, frozen=True):
    bus: Bus
    grants: dict[str, Grant]
    groups: dict[str, Group]

    @property
    def identities(self) -> frozenset[str]:
        """Everyone who has anything to say here; a key of anyone else is refused at HELLO."""
        return frozenset(self.grants) | {group.part for group in self.groups.values()}


def load(path: Path) -> Mesh:
    """Raises ConfigurationError, naming the file or the field."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"ATOLL_MESH: can not read {path}: {error}") from None


def parse(text: str) -> Mesh:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"mesh.toml: {error}") from None
    defaults = _table(document, "group_defaults")
    if unfit := sorted({"part", "topics"} & set(defaults)):
        raise ConfigurationError(f"mesh.toml: group_defaults.{unfit[0]}: belongs to a group of its own")
    mesh = Mesh(
        bus=_convert(Bus, _table(document, "bus"), "bus"),
        grants={name: _convert(Grant, table, f"grant.{name}") for name, table in _named(document, "grant")},
        groups={name: _convert(Group, defaults | table, f"group.{name}") for name, table in _named(document, "group")},
    )
    _check_prefixes(mesh)
    return mesh


def _convert(kind: type[_T], table: dict[str, Any], where: str) -> _T:
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        field = field_of(error)
        raise ConfigurationError(f"mesh.toml: {where}{'.' + field if field else ''}: {error}") from None


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise ConfigurationError(f"mesh.toml: {name}: expected a table")
    return table


def _named(document: dict[str, Any], name: str) -> list[tuple[str, dict[str, Any]]]:
    """The tables [name.X], their X checked to be usable as a name."""
    tables = _table(document, name)
    for key in tables:
        _convert(Identity, key, f"{name}.{key}")  # type: ignore[arg-type]
        _table(tables, key)
    return list(tables.items())


def _check_prefixes(mesh: Mesh) -> None:
    """One prefix, one service: two owners would let either take the other's requests."""
    owners: dict[str, str] = {}
    for name, grant in mesh.grants.items():
        for prefix in grant.announce:
            other = owners.setdefault(prefix, name)
            if other != name:
                raise ConfigurationError(f"mesh.toml: grant.{name}.announce: {prefix} is granted to {other} already")


# What may change while the broker runs. The rest of a group is what leases and rows on disk rest on.
HOT_GROUP: Final = ("attempts_max", "backoff_seconds", "in_flight_max", "on_dead", "events_per_second_max")
HOT_BUS: Final = (
    "log_bytes_max", "log_bytes_kept", "log_seconds_kept", "log_events_kept", "dead_letters_max", "stalled_seconds",
)  # fmt: skip


def merge(old: Mesh, new: Mesh) -> tuple[Mesh, list[str]]:
    """What holds from now on while the broker runs, and the fields of `new` that wait for its restart."""
    waiting = [f"group.{name}" for name in sorted(old.groups.keys() ^ new.groups.keys())]
    groups = {}
    for name, group in old.groups.items():
        wanted = new.groups.get(name, group)
        groups[name] = _hot(group, wanted, HOT_GROUP)
        waiting += [f"group.{name}.{field}" for field in _differing(groups[name], wanted)]
    bus = _hot(old.bus, new.bus, HOT_BUS)
    waiting += [f"bus.{field}" for field in _differing(bus, new.bus)]
    return Mesh(bus, new.grants, groups), waiting


def _hot(old: _S, new: _S, fields: tuple[str, ...]) -> _S:
    return msgspec.structs.replace(old, **{field: getattr(new, field) for field in fields})


def _differing(one: msgspec.Struct, other: msgspec.Struct) -> list[str]:
    return [field for field in one.__struct_fields__ if getattr(one, field) != getattr(other, field)]
