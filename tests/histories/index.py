"""The histories of a run in order of cause: what was published, sent, acknowledged, delivered, answered, counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from histories.plan import Plan
from histories.records import Logs, Record

BOOT_BITS = 32


class Delivery(NamedTuple):
    """One delivery as its consumer saw it. `fence` orders deliveries: boot × 2³² + a counter of the broker."""

    group: str
    session: str
    seq: int
    attempt: int
    fence: int
    id: str
    topic: str
    key: str
    digest: str
    trace: str | None


class Verdict(NamedTuple):
    """What a consumer was about to say of one delivery: ack, nack or term."""

    what: str
    group: str
    seq: int
    fence: int
    attempt: int
    error: str

    @property
    def boot(self) -> int:
        """In which the lease was given."""
        return self.fence >> BOOT_BITS


@dataclass(frozen=True)
class Published:
    """An event as its publisher made it. `producer` and `pseq` place it; the stranger's have none."""

    id: str
    producer: str
    pseq: int
    topic: str
    key: str
    digest: str
    trace: str | None
    kind: str
    causes: tuple[str, ...]

    @property
    def identity(self) -> str:
        """Whose outbox it was."""
        return self.producer.split("/")[0]


class Letter(NamedTuple):
    """A dead letter, as an operator read it at the end."""

    group: str
    seq: int
    id: str
    key: str
    cause: str
    behind: int | None
    error: str
    attempts: int


class Producer:
    """What one outbox sent and heard, in its own order."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []
        self.sent_upto = 0
        self.heard: list[Record] = []
        """`welcome` and `puback`, each with `sent_upto`: the highest pseq sent before it came."""
        self.refused: dict[int, str] = {}
        self.acked = 0

    def send(self, first: int, last: int) -> None:
        """One PUB."""
        self.sent.append((first, last))
        self.sent_upto = max(self.sent_upto, last)

    def hear(self, record: Record) -> None:
        """One answer of the broker, in order."""
        self.heard.append(record | {"sent_upto": self.sent_upto})
        self.refused |= dict(record["refused"])
        self.acked = max(self.acked, int(record["upto"] if record["op"] == "puback" else record["mark"]))


class History:
    """Everything that the checker asks for. `logs` is left as it is."""

    def __init__(self, plan: Plan, logs: Logs) -> None:
        self.plan = plan
        self.logs = logs

    def each(self, *ops: str) -> Iterator[tuple[str, Record]]:
        """(role, record) of these operations, each role's in its order."""
        for role, records in self.logs.items():
            for record in records:
                if record["op"] in ops:
                    yield role, record

    def _one(self, op: str) -> Record | None:
        return next((record for _, record in self.each(op)), None)

    # ---- publishing ----------------------------------------------------------------------------------------------

    @cached_property
    def published(self) -> dict[str, Published]:
        """By id. The first record of an id counts; `contradictions` has those that say something else."""
        found: dict[str, Published] = {}
        for one in self._publications():
            found.setdefault(one.id, one)
        return found

    @cached_property
    def contradictions(self) -> list[Published]:
        """Records of one id that differ: a publisher that does not know what it said proves nothing."""
        return [one for one in self._publications() if self.published[one.id] != one]

    def _publications(self) -> Iterator[Published]:
        for _, r in self.each("pub"):
            yield Published(
                r["id"], r["producer"], r["pseq"], r["topic"], r.get("key", ""), r.get("digest", ""), r.get("trace"),
                r["kind"], tuple(r.get("causes", ())),
            )  # fmt: skip

    @cached_property
    def by_pseq(self) -> dict[tuple[str, int], Published]:
        """By outbox and number."""
        return {(one.producer, one.pseq): one for one in self.published.values()}

    @cached_property
    def producers(self) -> dict[str, Producer]:
        """By name; the raw ones, whose wire we saw."""
        found: dict[str, Producer] = {}
        for records in self.logs.values():
            name = ""
            for record in records:
                if record["op"] == "pub" and record["kind"] not in ("committed", "forged"):
                    name = record["producer"]
                elif name and record["op"] == "send":
                    found.setdefault(name, Producer()).send(record["first"], record["last"])
                elif record["op"] in ("welcome", "puback") and (record.get("producer") or name):
                    name = record.get("producer") or name
                    found.setdefault(name, Producer()).hear(record)
        return found

    def outcome(self, one: Published) -> str:
        """`ok` (on disk, the broker said so, or the SDK's outbox promised it), `failed` for good, or `unknown`."""
        if one.kind == "committed":
            return "ok"
        producer = self.producers.get(one.producer)
        if producer is None or one.kind == "forged":
            return "failed" if one.kind == "forged" else "unknown"
        if one.pseq in producer.refused:
            return "failed"
        return "ok" if one.pseq <= producer.acked else "unknown"

    # ---- consuming -----------------------------------------------------------------------------------------------

    @cached_property
    def deliveries(self) -> list[Delivery]:
        """All that were seen, by the order of fences."""
        found = [
            Delivery(record["group"], record["session"], *message)
            for _, record in self.each("deliver")
            for message in record["messages"]
        ]
        return sorted(found, key=lambda one: one.fence)

    @cached_property
    def by_group(self) -> dict[str, list[Delivery]]:
        """Deliveries of each group, by the order of fences."""
        found: dict[str, list[Delivery]] = defaultdict(list)
        for one in self.deliveries:
            found[one.group].append(one)
        return found

    @cached_property
    def seqs(self) -> dict[str, int]:
        """Event id -> seq, as first seen."""
        found: dict[str, int] = {}
        for one in self.deliveries:
            found.setdefault(one.id, one.seq)
        for letter in self.letters:
            found.setdefault(letter.id, letter.seq)
        return found

    @cached_property
    def topics(self) -> dict[int, str]:
        """Seq -> topic, as first seen."""
        found: dict[int, str] = {}
        for one in self.deliveries:
            found.setdefault(one.seq, one.topic)
        return found

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """Everything that consumers were about to say."""
        found = []
        for _, r in self.each("ack"):
            found += [Verdict("ack", r["group"], seq, fence, 0, "") for seq, fence in r["done"] + r["duplicate"]]
        for _, r in self.each("nack", "term"):
            found += [
                Verdict(r["op"], r["group"], seq, fence, r.get("attempt", 0), r["error"])
                for seq, fence in r["messages"]
            ]
        return found

    @cached_property
    def acked(self) -> dict[str, dict[int, int]]:
        """Group -> seq -> the first boot in whose lease it was acknowledged."""
        found: dict[str, dict[int, int]] = defaultdict(dict)
        for one in self.verdicts:
            if one.what == "ack":
                known = found[one.group].get(one.seq)
                found[one.group][one.seq] = one.boot if known is None else min(known, one.boot)
        return found

    @cached_property
    def effects(self) -> dict[str, list[str]]:
        """Group -> ids in the order of their effects, from its database."""
        return {record["group"]: record["ids"] for _, record in self.each("effects")}

    @cached_property
    def effect_ids(self) -> dict[str, set[str]]:
        """Group -> ids that have an effect."""
        return defaultdict(set, {group: set(ids) for group, ids in self.effects.items()})

    # ---- the end -------------------------------------------------------------------------------------------------

    @cached_property
    def letters(self) -> list[Letter]:
        """All dead letters at the end, doubles too."""
        return [
            Letter(r["group"], one["seq"], one["event_id"], one["subject"], one["cause"], one["behind"], one["error"],
                   one["attempts"])
            for _, r in self.each("letters")
            for one in r["letters"]
        ]  # fmt: skip

    @cached_property
    def dead(self) -> dict[str, dict[str, Letter]]:
        """Group -> id -> its dead letter."""
        found: dict[str, dict[str, Letter]] = defaultdict(dict)
        for letter in self.letters:
            found[letter.group][letter.id] = letter
        return found

    @cached_property
    def drained(self) -> Record | None:
        """What was seen when all was said to be empty."""
        return self._one("drained")

    @cached_property
    def healed(self) -> Record | None:
        """The end of the faults."""
        return self._one("healed")

    @property
    def acks(self) -> int:
        """Events that a group's members acknowledged and the broker took: distinct, below the floor at the end."""
        groups = self.drained["groups"] if self.drained else {}
        return sum(
            1 for group, seqs in self.acked.items() for seq in seqs if seq <= groups.get(group, [0])[0]
        )  # fmt: skip
