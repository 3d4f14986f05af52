"""Which (state, command) pairs there are, and which of them can not be, with the reason. Counted at each step.

A pair that is possible and was reached fewer than REACHED_MIN times fails the run: what was not tried was not tested.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Final

from .rules import CLAIMS, COMMANDS, ENDS, MEMBER_ACTS, PUBLISHES, STEERING, VERDICTS
from .world import Pair

REACHED_MIN: Final = 100

HELD: Final = ("leased", "leased at the last attempt", "leased in a replay")
FREE: Final = (
    "no such event", "unread", "waiting", "queued", "delayed", "finished", "dead", "behind", "waiting in a replay",
    "delayed in a replay", "held for a slot",
)  # fmt: skip
_JUDGEMENTS: Final = tuple(f"{verdict} {claim}" for verdict, claim in product(VERDICTS, CLAIMS))
_AGAIN: Final = ("dlq.replay", "replay of a range", "group.detach")
_BROKER_ENDS: Final = ("crash", "stop")
_DISK: Final = ("idle", "a commit under way", "a commit under way, more waits")
_BUSY: Final = ("next, BUSY", "across, BUSY")

#: table: (states, commands); the possible pairs are their product, less IMPOSSIBLE.
TABLES: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "event": ((*FREE, *HELD), (*_JUDGEMENTS, "lease over", *ENDS, *_BROKER_ENDS, *_AGAIN)),
    "session": (("no session", "alive", "suspect"), (*COMMANDS, "a frame of another key")),
    "producer": (
        ("nothing yet", "on disk", "taken", "committing", "committing, and more taken"),
        (*dict.fromkeys(PUBLISHES), *_BUSY),
    ),
    "member": (("able", "no credit", "no bytes", "full", "draining", "suspect"), MEMBER_ACTS),
    "disk": (_DISK, ("crash before the flush", "crash after the flush", "stop", "full")),
    "tap": (("none", "without credit", "with credit"), ("TAP", "TAP with history", "TAP ends", "CREDIT")),
    "steering": (("alive", "suspect"), STEERING),
}

#: (table, states, commands): why they never meet.
IMPOSSIBLE: Final[list[tuple[str, tuple[str, ...], tuple[str, ...], str]]] = [
    (
        "event",
        FREE,
        tuple(f"{verdict} {CLAIMS[0]}" for verdict in VERDICTS),
        "nobody holds it: no fence is present",
    ),
    ("event", tuple(state for state in FREE if state != "held for a slot"), ("lease over",), "it is not leased"),
    ("event", FREE, ENDS, "the end of a session changes only what it holds"),
    (
        "event",
        tuple(state for state in (*FREE, *HELD) if state not in ("dead", "behind")),
        ("dlq.replay",),
        "it is not dead",
    ),
    ("event", ("no such event",), (*_BROKER_ENDS, *_AGAIN[1:]), "there is nothing of it"),
    ("event", HELD, ("group.detach",), "a group with members is not detached"),
    ("disk", ("idle",), ("full",), "the disk is asked by a commit alone"),
]


def pairs() -> Iterator[Pair]:
    """Every pair that is possible."""
    excluded = {(table, *pair) for table, states, commands, _ in IMPOSSIBLE for pair in product(states, commands)}
    for table, (states, commands) in TABLES.items():
        yield from ((table, *pair) for pair in product(states, commands) if (table, *pair) not in excluded)


def too_rare(reached: Counter[Pair], least: int = REACHED_MIN) -> list[str]:
    """The possible pairs that were reached less often."""
    return [f"{' | '.join(pair)}: {reached[pair]}" for pair in pairs() if reached[pair] < least]


def unknown(reached: Counter[Pair]) -> list[str]:
    """Pairs that were reached and are in no table, or were held to be impossible."""
    known = set(pairs())
    return [" | ".join(pair) for pair in reached if pair not in known]
