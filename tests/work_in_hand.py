"""Was a part in the middle of something just before the signal? A kill of an idle process proves nothing."""

from __future__ import annotations

import http.client
import sqlite3
import time

from fleet import Fleet
from mail import undelivered
from topology import GROUPS, SERVICES, TOPICS

PUBLISHERS = frozenset(TOPICS.values())


def evidence(shop: Fleet, part: str, ports: dict[str, int]) -> str:
    """What `part` has in hand now, in words, or "": an unacknowledged publish, a lease, an open request."""
    if part == "gateway":
        samples = shop.metrics("gateway", ports["gateway"])
        wanted = "atoll_gateway_requests_in_progress"
        open_now = sum(value for name, value in samples.items() if name.startswith(wanted))
        return f"{open_now:.0f} open requests" if open_now else ""
    broker = shop.metrics("broker", ports["broker"])
    if part == "broker":
        leases = sum(value for name, value in broker.items() if name.startswith("atoll_group_in_flight{"))
        waiting = {name: shop.outbox(name) for name in SERVICES if name in PUBLISHERS}
        unacked = sum(waiting.values())
        return f"{leases:.0f} leases, {unacked} unacknowledged publishes" if leases or unacked else ""
    if part in GROUPS:
        leases = broker.get(f'atoll_group_in_flight{{group="{part}"}}', 0)
        unacked = shop.outbox(part) if part in PUBLISHERS else 0
        if leases or unacked:
            return f"{leases:.0f} leases, {unacked} unacknowledged publishes"
        undone = undelivered(shop) if part == "notifications" else 0
        return f"{undone} mails to deliver" if undone else ""
    return ""


def wait_for_work(shop: Fleet, part: str, ports: dict[str, int], seconds: float) -> str:
    """Watch without a pause until `part` has work in hand; what it was, or "" when the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            found = evidence(shop, part, ports)
        except (
            OSError,
            sqlite3.Error,
            http.client.HTTPException,
        ):  # the watched part, or the broker that knows, is just coming back
            continue
        if found:
            return found
    return ""
