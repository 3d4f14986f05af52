"""What the broker says about groups, topics, sessions and alarms: asked on a timer, remembered while it is away.

Which part speaks of what and listens to what changes with releases only, so that is kept on disk too: an operator who
comes while the broker is down, after a restart of control, still sees what a kill would touch.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

import atoll
from atoll_ops.control import audit, memory

EVERY_SECONDS = 1.0
_ANSWER_SECONDS = 1.0
#: What is asked, and the field of the answer.
_VERBS = {"groups": "groups", "topics": "topics", "sessions": "sessions", "alarms": "alarms", "fault.list": "faults"}
#: What a broker of an earlier release does not know: nothing else is to be lost with it.
_NEWER = frozenset({"fault.list"})
_REASONS_MAX = 100
_TOPICS_KEY = "topics"
_RATE_SECONDS = 10.0
_SAMPLES_MAX = 32

Topics = dict[str, dict[str, list[str]]]
"""By part: {"publishes": […], "consumes": […]}."""


class BusWatch:
    """The last answers. `session` is set once the application is attached to the bus."""

    session: atoll.Session

    def __init__(self, database: atoll.Database) -> None:
        self.seen: dict[str, Any] | None = None
        """{"as_of", "groups", "topics" with rates, "sessions", "alarms", "faults" with reasons} as last known."""
        self.why: str | None = "not asked yet"
        """Why nothing newer is known, or None."""
        self.topics_of: Topics = {}
        self._database = database
        self._stored: list[tuple[float, dict[str, int]]] = []
        self._reasons: dict[str, str] = {}

    async def restore(self) -> None:
        """What was known before control's restart. A damaged memory is none."""
        kept = await self._database.read(lambda reader: memory.load(reader, _TOPICS_KEY))
        if kept is not None:
            self.topics_of = msgspec.json.decode(kept, type=Topics)
        # Faults outlive control: their reasons are in its audit.
        query = audit.Query(act="fault.put")
        for record in reversed(await self._database.read(lambda reader: audit.page(reader, query, _REASONS_MAX, None))):
            self.note_fault(str(record["result"]).removeprefix("fault "), record["reason"])

    def note_fault(self, fault_id: str, reason: str) -> None:
        """Why a fault was put: the broker knows by whom alone."""
        self._reasons[fault_id] = reason
        while len(self._reasons) > _REASONS_MAX:
            del self._reasons[next(iter(self._reasons))]

    async def look(self) -> None:
        """Ask once; what is known stays if there is no answer."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                answers = await asyncio.gather(*(self._ask(verb) for verb in _VERBS))
        except (TimeoutError, atoll.AtollError) as error:
            self.why = str(error) or "no answer in time"
            return
        seen = {field: answer[field] for field, answer in zip(_VERBS.values(), answers, strict=True)}
        self._add_rates(seen["topics"], time.monotonic())
        for fault in seen["faults"]:
            fault["reason"] = self._reasons.get(fault["id"], "")
        self.seen, self.why = {"as_of": time.time(), **seen}, None
        await self._learn(seen)

    async def _ask(self, verb: str) -> dict[str, Any]:
        try:
            return await self.session.admin(verb)
        except atoll.BusRefusedError:
            if verb not in _NEWER:
                raise
            return {_VERBS[verb]: []}

    def _add_rates(self, topics: dict[str, Any], now: float) -> None:
        """Events a second by topic, over ten seconds. A broker that began anew counts from nought."""
        stored = {name: int(topic.get("stored", 0)) for name, topic in topics.items()}
        if self._stored and any(stored.get(name, 0) < count for name, count in self._stored[-1][1].items()):
            self._stored.clear()
        self._stored = [*self._stored[-_SAMPLES_MAX:], (now, stored)]
        while len(self._stored) > 2 and self._stored[1][0] <= now - _RATE_SECONDS:
            self._stored.pop(0)
        since, before = self._stored[0]
        for name, topic in topics.items():
            seconds = now - since
            topic["rate"] = round((stored[name] - before.get(name, 0)) / seconds, 3) if seconds > 0 else None

    async def _learn(self, seen: dict[str, Any]) -> None:
        """A part that is away keeps what it was last seen with; one that is here says what it is now."""
        learnt = topics_by_part(seen["groups"], seen["sessions"])
        merged: Topics = {name: dict(topics) for name, topics in self.topics_of.items()}
        for name, topics in learnt.items():
            merged.setdefault(name, {"publishes": [], "consumes": []}).update(topics)
        if merged != self.topics_of:
            self.topics_of = merged
            value = msgspec.json.encode(merged)
            await self._database.write(lambda tx: memory.keep(tx, _TOPICS_KEY, value))


def topics_by_part(groups: dict[str, Any], sessions: list[dict[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """What is known of each part just now: `consumes` from its groups, `publishes` from its sessions."""
    found: dict[str, dict[str, set[str]]] = {}
    for name, group in groups.items():
        found.setdefault(group.get("part", name), {}).setdefault("consumes", set()).update(group.get("topics", ()))
    for session in sessions:
        if "publishes" in session:
            found.setdefault(session["identity"], {}).setdefault("publishes", set()).update(session["publishes"])
    return {part: {kind: sorted(names) for kind, names in kinds.items()} for part, kinds in found.items()}
