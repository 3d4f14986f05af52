"""What people see: aligned lines, with a shape and a word for every state, and colour only on a terminal."""

from __future__ import annotations

import sys
from typing import Any

from atoll_ops.logview import harmless, readable

SHAPES = {
    "running": "✓", "starting": "…", "degraded": "△", "paused": "‖", "stopped": "■", "down": "✕", "unknown": "?",
    "absent": "–",
}  # fmt: skip
_COLOURS = {"running": 32, "starting": 36, "degraded": 33, "paused": 34, "stopped": 34, "down": 31, "unknown": 35}
_WIDTH = 14


def say(name: str, text: str) -> None:
    """One line of progress."""
    print(f"{name:<{_WIDTH}} {text}", flush=True)


def problem(text: str) -> None:
    """One line about what went wrong."""
    print(f"atoll: {text}", file=sys.stderr, flush=True)


def event(happened: dict[str, Any]) -> None:
    """One line (or none) for an event of the agent."""
    name = _title(happened)
    match happened["event"]:
        case "ready":
            note = f"  (without {', '.join(happened['missing'])})" if happened["missing"] else ""
            ready = f"ready  {happened['seconds']:.1f} s"
            say(name, (f"adopted, pid {happened['pid']}" if happened["adopted"] else ready) + note)
        case "kept stopped":
            say(name, f"{happened['why']}; `./atoll start {happened['name']}` starts it")
        case "stopped":
            say(name, f"stopped  {happened['seconds']:.1f} s  ({happened['how']})")
        case "failed":
            problem(f"{name} did not come up: {happened['why']}")
            for line in happened["tail"]:
                print(f"    {readable(line, name)[1]}", file=sys.stderr)
            problem(f"the whole log: {happened['log']}")


def links(lines: dict[str, str], seconds: float) -> None:
    """What to do next, once everything is up: a line each, by name."""
    say("up", f"in {seconds:.1f} s")
    for name, text in lines.items():
        say(name, text)


def status(snapshot: dict[str, Any]) -> None:
    """The table of `./atoll status`; one line where nothing runs, which is no list of failures."""
    if snapshot["agent"]["state"] == "gone" and not any(_fills(part) for part in snapshot["parts"]):
        print(summary(snapshot))
        return
    header: tuple[str, ...] = ("", "part", "state", "pid", "port", "restarts", "memory")
    observed = "figures" in snapshot  # control has answered
    if observed:
        header += ("version", "req/s", "in/s", "out/s", "p95 ms", "lag")
    header += ("why",)
    rows = [_row(part, observed=observed) for part in snapshot["parts"]]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(_coloured(line, row[2]))
    for alarm in snapshot.get("alarms", ()):
        print(harmless(f"alarm: {alarm['kind']} {alarm['target']}: {alarm['text']}"))
    print(summary(snapshot))


def summary(snapshot: dict[str, Any]) -> str:
    """The fleet in one line."""
    parts = snapshot["parts"]
    up = sum(1 for part in parts if part["pid"])
    if snapshot["agent"]["state"] == "gone":
        return f"agent gone, {up} running; ./atoll up adopts them" if up else "nothing runs; ./atoll up starts it"
    if snapshot["agent"]["state"] == "unknown":
        pid = snapshot["agent"]["pid"]
        return f"the agent (pid {pid}) does not answer, {up} running; kill {pid} and ./atoll up adopts them"
    if not parts:
        return f"starting (pid {snapshot['agent']['pid']})"
    healthy = sum(1 for part in parts if part["state"] == "running")
    absent = [part["name"] for part in parts if part["state"] == "absent"]
    note = f", {', '.join(absent)} absent" if absent else ""
    return f"{healthy} of {len(parts) - len(absent)} running{note}; agent pid {snapshot['agent']['pid']}"


def _fills(part: dict[str, Any]) -> bool:
    """Whether some process is in its slot, known or not."""
    return part["pid"] is not None or part["state"] == "unknown"


def _row(part: dict[str, Any], *, observed: bool) -> tuple[str, ...]:
    memory = f"{part['memory_mb']:.0f} MB" if part["memory_mb"] is not None else "-"
    cells = (
        SHAPES[part["state"]], f"{part['name']}/{part['instance']}", part["state"], str(part["pid"] or "-"),
        str(part["port"]), str(part["restarts"]), memory,
    )  # fmt: skip
    return (*cells, *(_observed(part) if observed else ()), part["why"])


def _observed(part: dict[str, Any]) -> tuple[str, ...]:
    """What control adds: version, rates, lag; a dash for what is not known now."""
    rates = part.get("rates") or {}
    numbers = [rates.get(name) for name in ("requests", "events_in", "events_out", "p95_ms")]
    told = [f"{number:.1f}" if number is not None else "-" for number in numbers]
    lag = part.get("lag")
    return (part.get("version") or "-", *told, str(lag) if lag is not None else "-")


def _coloured(line: str, state: str) -> str:
    colour = _COLOURS.get(state)
    return f"\033[{colour}m{line}\033[0m" if colour and sys.stdout.isatty() else line


def _title(happened: dict[str, Any]) -> str:
    name = str(happened.get("name", ""))
    return name if happened.get("instance", 1) == 1 else f"{name}/{happened['instance']}"
