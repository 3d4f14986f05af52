"""Planted faults: a broker that is careless about grants, floors, keys, payloads and dead letters.

Loaded into the real process by PYTHONPATH. Each part breaks one rule of wire 1, in a way that its clients cannot tell
from a broker that keeps it, but by their histories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atoll_broker import codec, grants
from atoll_broker.groups import Group
from atoll_broker.journal import Journal
from atoll_broker.queues import KeyQueues

FLOOR_AHEAD = 15
SPOILT_EVERY = 50
_REPLACED = (
    (grants, "check_group"), (grants, "check_admin"), (codec, "join_batch"), (Journal, "floor"),
    (KeyQueues, "append"), (Group, "_write_letter"),
)  # fmt: skip
for owner, name in _REPLACED:
    assert callable(getattr(owner, name, None)), f"{owner.__name__}.{name} is gone: plant this fault anew"

_floor, _append, _letter, _join = Journal.floor, KeyQueues.append, Group._write_letter, codec.join_batch
_joined = 0


def check_group(mesh: Any, identity: str, name: str, *_: Any) -> Any:
    """Anybody may join any group (I9)."""
    return mesh.groups[name]


def check_admin(*_: Any) -> None:
    """Anybody is an operator (I9)."""


def floor(self: Journal, group: str, floor: int) -> None:
    """What is written runs ahead of what was acknowledged: after a boot events are skipped (I1, I10)."""
    _floor(self, group, floor + FLOOR_AHEAD)


def append(self: KeyQueues, entry: Any) -> None:
    """Every event has a key of its own: several of a subject are out at once (I7)."""
    entry.subject = f"{entry.subject}/{entry.seq}"
    _append(self, entry)


def write_letter(self: Group, entry: Any, cause: str, error: str, *rest: Any) -> None:
    """Every dead letter says that it failed, and not why (I11)."""
    _letter(self, entry, "FAILED" if cause == "REJECTED" else cause, "something failed", *rest)


def join_batch(events: Sequence[bytes]) -> bytes:
    """Now and then a payload loses something on its way (I3)."""
    global _joined
    _joined += 1
    if _joined % SPOILT_EVERY == 0:
        events = [body.replace(b'"kind":"plain"', b'"kind":"plane"') for body in events]
    return _join(events)


grants.check_group, grants.check_admin = check_group, check_admin  # type: ignore[assignment]
codec.join_batch = join_batch
Journal.floor, KeyQueues.append = floor, append  # type: ignore[method-assign]
Group._write_letter = write_letter  # type: ignore[method-assign, assignment]
