"""The snapshot, put together from what is last known. Pure: whoever calls it has everything in hand, so it never waits.

Two answers to "not known" run through it. A number that is not known now is null, never an old one that looks fresh.
What changes with releases only (topics, version) is shown as last known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from atoll_ops.control.alarms import Alarm
from atoll_ops.control.rates import Window

#: The bus's numbers are of now if they are no older than this.
BUS_FRESH_SECONDS = 5.0
#: A part in one of these states does its work.
HEALTHY = ("running", "degraded")

Part = dict[str, Any]
Record = Mapping[str, Any]


class Known(msgspec.Struct, frozen=True):
    """Everything that the snapshot is made of."""

    agent: Mapping[str, Any]  # the agent's last snapshot
    agent_lost: str | None  # why there is no newer one
    windows: Mapping[tuple[str, int], Window]
    bus: Mapping[str, Any] | None  # the broker's last answers
    bus_why: str | None  # why there are no newer ones
    topics_of: Mapping[str, Mapping[str, list[str]]]
    last_acts: Mapping[str, Record]  # by target, from the audit
    alarms: list[Alarm]


def compose(known: Known, *, monotonic: float, wall: float) -> dict[str, Any]:
    """The snapshot, as `GET /ops/snapshot` answers it."""
    bus = _bus(known, wall)
    groups = bus["groups"] if bus["available"] else None
    states = [_state(part, known) for part in known.agent["parts"]]
    parts = [_part(part, states, known, groups, monotonic) for part in states]
    return {
        **known.agent,
        "agent": _agent(known),
        "figures": _figures(parts, groups, known),
        "parts": parts,
        "bus": bus,
        "faults": [*(fault for part in parts if (fault := _fault(part)) is not None), *_bus_faults(bus, wall)],
        "alarms": msgspec.to_builtins(known.alarms),
    }


def _agent(known: Known) -> dict[str, Any]:
    if known.agent_lost is None:
        return dict(known.agent["agent"])
    return {"state": "unknown", "pid": known.agent["agent"].get("pid"), "why": known.agent_lost}


def _state(part: Part, known: Known) -> Part:
    """Without an agent nobody knows how a part is: the last state is told as that, and is no state.

    Why there is no agent is said once, with the agent, and not of each part.
    """
    if known.agent_lost is None:
        return part | {"last_state": None}
    because = f": {part['why']}" if part["why"] else ""
    why = f"when last heard of: {part['state']}{because}"
    return part | {"state": "unknown", "why": why, "last_state": part["state"]}


def _part(
    part: Part, all_parts: list[Part], known: Known, groups: Mapping[str, Any] | None, monotonic: float
) -> dict[str, Any]:
    name, key = part["name"], (part["name"], part["instance"])
    window = known.windows.get(key)
    others = [one for one in all_parts if one["name"] == name and one["instance"] != part["instance"]]
    topics = known.topics_of.get(name, {})
    return {
        **part,
        "version": _version(name, window, known.bus),
        "rates": window.rates(monotonic) if window is not None and part["pid"] is not None else None,
        **_of_groups(name, groups),
        "topics": {"publishes": topics.get("publishes", []), "consumes": topics.get("consumes", [])},
        "last_act": _last_act(known.last_acts.get(f"{name}/{part['instance']}")),
        "alone": not any(one["state"] in HEALTHY for one in others),
    }


def _version(name: str, window: Window | None, bus: Mapping[str, Any] | None) -> str | None:
    """As its /metrics says; of a part of another make as it said to the broker."""
    if window is not None and window.last is not None and window.last.version:
        return window.last.version
    sessions = bus["sessions"] if bus is not None else []
    return next((one["version"] for one in sessions if one["identity"] == name and one["version"]), None)


def _of_groups(name: str, groups: Mapping[str, Any] | None) -> dict[str, Any]:
    """The numbers of a part's groups together (there is one as a rule); null without a bus, or without a group."""
    mine = [group for key, group in (groups or {}).items() if group.get("part", key) == name]
    if not mine:
        return {"lag": None, "dead_letters": None, "in_flight": None, "oldest_unacked_seconds": None}
    ages = [group["oldest_age_ms"] for group in mine if group["oldest_age_ms"] is not None]
    return {
        "lag": sum(group["lag"] for group in mine),
        "dead_letters": sum(group["dead"] for group in mine),
        "in_flight": sum(group["in_flight"] for group in mine),
        "oldest_unacked_seconds": round(max(ages) / 1000, 3) if ages else 0.0,
    }


def _last_act(record: Record | None) -> dict[str, Any] | None:
    return None if record is None else {name: record[name] for name in ("who", "act", "at", "reason", "result")}


def _bus(known: Known, wall: float) -> dict[str, Any]:
    """The broker's last answers. While it is away they stay, marked as of then and not available."""
    if known.bus is None:
        return {
            "available": False, "why": known.bus_why or "not asked yet", "as_of": None, "topics": {}, "groups": {},
            "sessions": [], "alarms": [],
        }  # fmt: skip
    lost = known.bus_why or _no_broker(known)
    fresh = lost is None and wall - known.bus["as_of"] <= BUS_FRESH_SECONDS
    why = {} if fresh else {"why": lost or "the broker has not been heard lately"}
    return {"available": fresh, **why, **known.bus}


def _no_broker(known: Known) -> str | None:
    """The agent knows at once that its process has ended; the next look at the bus may be a second away."""
    states = [part["state"] for part in known.agent["parts"] if part["name"] == "broker"]
    gone = known.agent_lost is None and states and all(state in ("down", "stopped") for state in states)
    return "the broker has no process" if gone else None


def _figures(parts: Iterable[Part], groups: Mapping[str, Any] | None, known: Known) -> dict[str, Any]:
    """The overview's four. Tools are no part of the fleet: the shop does not stand on them."""
    fleet = [part for part in parts if part["kind"] != "tool"]
    worst = max(groups.items(), key=lambda item: item[1]["lag"], default=None) if groups else None
    stored = [rates["events_in"] for part in fleet if part["name"] == "broker" and (rates := part["rates"])]
    return {
        "up": sum(part["state"] in HEALTHY for part in fleet) if known.agent_lost is None else None,
        "of": len(fleet),
        "events_per_second": stored[0] if stored else None,
        "worst_lag": {"group": worst[0], "lag": worst[1]["lag"]} if worst else None,
        "dead_letters": sum(group["dead"] for group in groups.values()) if groups is not None else None,
    }


def _bus_faults(bus: Mapping[str, Any], wall: float) -> list[dict[str, Any]]:
    """Those on a group's deliveries. The broker ends them by itself, whether or not it is heard."""
    ends = [(fault, bus["as_of"] + fault["left_ms"] / 1000) for fault in bus.get("faults", ())]
    return [
        {
            "id": fault["id"], "kind": fault["kind"], "until": until, "by": fault["by"], "reason": fault["reason"],
            "target": fault["group"] if fault["topic"] is None else f"{fault['group']}: {fault['topic']}",
            "share": fault["share"], "delay_ms": fault["delay_ms"] if fault["kind"] == "delay" else None,
            "hits": fault["hits"],
        }
        for fault, until in ends
        if until > wall
    ]  # fmt: skip


def _fault(part: Part) -> dict[str, Any] | None:
    """A pause, while it lasts: who asked for it, and when it ends by itself."""
    if part.get("paused_until") is None:
        return None
    target = f"{part['name']}/{part['instance']}"
    return {
        "id": f"pause:{target}", "kind": "pause", "target": target, "until": part["paused_until"],
        "by": part.get("paused_by") or "a signal from outside", "reason": part.get("paused_reason") or "",
        "share": None, "delay_ms": None, "hits": None,
    }  # fmt: skip
