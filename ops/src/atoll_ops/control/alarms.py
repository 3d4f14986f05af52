"""Alarms: what an operator should look at now. Conditions are pure; the book keeps since when each holds.

    slow_group          a group's oldest unfinished event waits for 10 s or more, until it is under 5 s
    crash_loop          a part died young four times in a row, until one of its processes lives for 5 s
    disk_half_full      a file system that a part writes to is more than half used and has under 10 GiB left
    refused_outbox_row  the broker refused an event of a part's for good: each wants a human
    others              the broker's own, under the names that it gives them (broker/spec/wire-1.md §9)

Half of a large disk in use is no news, and 10 GiB free of a small one may be plenty: so both must hold.

An alarm is cleared by knowledge, never by silence: while a part or the bus is not heard, what was raised for it stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

SLOW_SECONDS = 10.0
SLOW_CLEARED_SECONDS = 5.0
CRASH_LOOP_DEATHS = 4
CRASH_LOOP_CLEARED_SECONDS = 5.0
DISK_USED_SHARE = 0.5
DISK_FREE_BYTES = 10 * 1024**3

KINDS = ("slow_group", "crash_loop", "disk_half_full", "refused_outbox_row")
Key = tuple[str, str]
"""Kind and target."""


class Alarm(msgspec.Struct, frozen=True):
    """One alarm that is on. `since`: seconds since the epoch."""

    kind: str
    target: str
    text: str
    since: float


class Book:
    """The alarms that are on."""

    def __init__(self) -> None:
        self._on: dict[Key, Alarm] = {}

    def listed(self) -> list[Alarm]:
        """Longest first."""
        return sorted(self._on.values(), key=lambda alarm: (alarm.since, alarm.kind, alarm.target))

    def on(self, kind: str, target: str) -> bool:
        """Whether this one is on: some clear at another threshold than they are raised at."""
        return (kind, target) in self._on

    def enter(self, found: Iterable[Alarm], heard: Callable[[str], bool]) -> list[tuple[bool, Alarm]]:
        """What holds now. What held before and is not found is cleared, if its kind is `heard` of at present.

        Returns the changes as (raised, alarm). The text of one that goes on is the newest; its `since` the first.
        """
        new = {(alarm.kind, alarm.target): alarm for alarm in found}
        changes: list[tuple[bool, Alarm]] = []
        for key, alarm in new.items():
            before = self._on.get(key)
            self._on[key] = alarm if before is None else msgspec.structs.replace(alarm, since=before.since)
            if before is None:
                changes.append((True, alarm))
        for key in self._on.keys() - new.keys():
            if heard(key[0]):
                changes.append((False, self._on.pop(key)))
        return changes


def of_parts(parts: Iterable[Mapping[str, Any]], now: float) -> list[Alarm]:
    """crash_loop, by the agent's snapshot."""
    found = []
    for part in parts:
        target = f"{part['name']}/{part['instance']}"
        deaths = int(part.get("failures", 0))
        lives = part["state"] in ("running", "degraded", "paused")
        settled = lives and (part["uptime_seconds"] or 0) >= CRASH_LOOP_CLEARED_SECONDS
        ended_by_hand = part.get("wanted") == "stopped"
        if deaths >= CRASH_LOOP_DEATHS and not settled and not ended_by_hand:
            last = part["exits"][-1]["meaning"] if part["exits"] else part["why"]
            found.append(Alarm("crash_loop", target, f"{deaths} deaths in a row; the last: {last}", now))
    return found


def of_gauges(gauges: Mapping[str, Mapping[str, float]], now: float) -> list[Alarm]:
    """refused_outbox_row and disk_half_full, by what each slot's /metrics said last."""
    found = []
    disks: dict[float, tuple[list[str], float]] = {}
    for target, said in sorted(gauges.items()):
        if refused := int(said.get("atoll_outbox_refused", 0)):
            events = "event was" if refused == 1 else "events were"
            text = f"{refused} {events} refused by the broker; the log of {target} says why"
            found.append(Alarm("refused_outbox_row", target, text, now))
        size, free = said.get("atoll_disk_bytes", 0.0), said.get("atoll_disk_free_bytes", 0.0)
        if size > 0 and 1 - free / size > DISK_USED_SHARE and free < DISK_FREE_BYTES:
            disks.setdefault(size, ([], free))[0].append(target)
    for size, (targets, free) in disks.items():  # parts that see a disk of one size share it: one alarm, not ten
        text = f"{1 - free / size:.0%} used, {free / 1024**3:.1f} GiB left; {', '.join(targets)} write to it"
        found.append(Alarm("disk_half_full", targets[0], text, now))
    return found


def of_bus(groups: Mapping[str, Any], own: Iterable[Mapping[str, Any]], book: Book, now: float) -> list[Alarm]:
    """slow_group, and the broker's own."""
    found = []
    for name, group in groups.items():
        waits = (group["oldest_age_ms"] or 0) / 1000
        if waits >= (SLOW_CLEARED_SECONDS if book.on("slow_group", name) else SLOW_SECONDS):
            found.append(Alarm("slow_group", name, f"{group['lag']} events wait, the oldest for {waits:.0f} s", now))
    for alarm in own:
        since = now - (alarm.get("for_ms") or 0) / 1000
        found.append(Alarm(str(alarm["name"]), str(alarm["subject"]), str(alarm["text"]), since))
    return found
