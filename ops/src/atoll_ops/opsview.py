"""The operators' record, configurations and the alarms, as lines for people."""

from __future__ import annotations

import time
from typing import Any

from atoll_ops.logview import harmless


def audit(items: list[dict[str, Any]]) -> int:
    """A line a record, newest first."""
    if not items:
        print("no such record")
    for item in items:
        act = f"{item['act']} {item['target']}"
        trace = f"  trace {item['trace_id']}" if item["trace_id"] else ""
        ended = f"{item['result'] or 'goes on'}  ({item['reason']}){trace}"
        print(harmless(f"{_when(item['at'])}  {item['who']:<12}{act:<24}  {ended}"))
    return 0


def settings(items: list[dict[str, Any]]) -> int:
    """A line a setting, by name."""
    for item in items:
        print(harmless(f"{item['name']}={item['value']}"))
    return 0


def alarms(items: list[dict[str, Any]]) -> int:
    """A line an alarm, longest first."""
    if not items:
        print("no alarms")
    for item in items:
        print(harmless(f"since {_when(item['since'])}  {item['kind']:<20}{item['target']:<16}{item['text']}"))
    return 0


def _when(seconds: float) -> str:
    """Local time, as people at a terminal read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
