"""Who takes part: topics, groups, grants, slots and regions, as data. The checker reads the same from `plan.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

ORDER, STOCK, ECHO = "shop.order.placed.v1", "depot.stock.moved.v1", "island.order.echoed.v1"
ALL = (ORDER, STOCK, ECHO)
EVENT_BYTES_MAX = 16_384
KEYS = 120
#: Beyond it a lease is over; five heartbeats of silence end a session. Faults last up to twice as long.
LEASE_SECONDS = 2.0
HEARTBEAT_SECONDS = 0.8


@dataclass(frozen=True)
class Group:
    """One durable group, as [group.NAME] has it. `fails`: its members fail on poison and rejected events."""

    part: str
    topics: tuple[str, ...]
    attempts_max: int
    on_dead: str
    members: tuple[tuple[str, str], ...] = ()
    """(slot number, region) of each raw member; the island has none, it is the SDK's."""
    fails: bool = False


@dataclass(frozen=True)
class Least:
    """When a run may end: all of these are reached, or the faults have lasted for `seconds_max`."""

    seconds: float
    faults: int
    events: int
    """Acknowledged to the raw publishers. What decides on a slow machine is work done, not time."""
    boots: int
    seconds_max: float
    drain_seconds_max: float = 60.0
    """When nobody waits any longer for the backlog; the checker has called it broken long before."""

    def write(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Least:
        """From a command line."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Plan:
    """What the checker has to know beside the histories."""

    seed: str
    groups: dict[str, Group]
    publishes: dict[str, tuple[str, ...]]
    """Identity -> the topics that it may publish."""
    drain_seconds: float = 10.0
    """T of I12, the promise: after the heal everything is sent and handled within this. Three times as long fails."""
    rates: dict[str, float] = field(default_factory=dict)
    """Events a second of each raw publisher."""

    def write(self, folder: Path) -> None:
        """As `plan.json`."""
        (folder / "plan.json").write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """From `plan.json`."""
        found = json.loads((folder / "plan.json").read_text())
        found["groups"] = {
            name: Group(**{
                **group, "topics": tuple(group["topics"]), "members": tuple(tuple(one) for one in group["members"])
            })
            for name, group in found["groups"].items()
        }  # fmt: skip
        found["publishes"] = {name: tuple(topics) for name, topics in found["publishes"].items()}
        return cls(**found)


REGIONS = ("east", "west", "south")
PUBLISHERS = {"shop": (ORDER, "east"), "depot": (STOCK, "west")}
GROUPS = {
    "ledger": Group("ledger", ALL, 5, "park", (("1", "east"), ("2", "west"), ("3", "south")), fails=True),
    "mail": Group("mail", (ORDER,), 4, "skip", (("1", "east"), ("2", "west")), fails=True),
    "witness": Group("witness", ALL, 1000, "park", (("1", "west"), ("2", "south"))),
    "island": Group("island", (ORDER,), 1000, "park"),
}
PUBLISHES: dict[str, tuple[str, ...]] = {"shop": (ORDER,), "depot": (STOCK,), "island": (ECHO,)}
IDENTITIES = ("shop", "depot", "island", "ledger", "mail", "witness", "stranger", "control")


def make(seed: str) -> Plan:
    """The one of the suite."""
    return Plan(seed, GROUPS, PUBLISHES, rates={"shop": 120.0, "depot": 80.0})


def mesh() -> str:
    """The broker's mesh.toml."""
    lines = [
        '[system]\nname = "histories"',
        '[grant.shop]\npublish = ["shop.*"]',
        '[grant.depot]\npublish = ["depot.*"]',
        '[grant.island]\npublish = ["island.*"]',
        '[grant.stranger]\npublish = ["stranger.*"]',
        "[grant.control]\nadmin = true",
        f'[group_defaults]\nfirst = "earliest"\nlease_seconds = {LEASE_SECONDS}\nbackoff_seconds = [0.05, 0.5]',
        f"[bus]\nheartbeat_seconds = {HEARTBEAT_SECONDS}\nevent_bytes_max = {EVENT_BYTES_MAX}",
    ]
    for name, group in GROUPS.items():
        lines.append(
            f'[group.{name}]\npart = "{group.part}"\ntopics = {json.dumps(group.topics)}\n'
            f'attempts_max = {group.attempts_max}\non_dead = "{group.on_dead}"'
        )
    return "\n".join(lines) + "\n"
