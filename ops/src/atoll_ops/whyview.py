"""One event's story, as lines for people: when, how long after it was made, where, what, and how it stands now."""

from __future__ import annotations

import datetime
import http.client
import urllib.request
from collections.abc import Iterator
from typing import Any

from atoll_ops.errors import OperationError
from atoll_ops.logview import harmless
from atoll_ops.state import State

_SECONDS = 0.5
#: A Jaeger that was built from source has a page that says so, in place of its pages.
_NO_PAGES = b"This is not the Jaeger UI"
_PAGE_BYTES_MAX = 65_536
_WORDS = {
    "leased": "delivered to {slot}, attempt {attempt}",
    "done": "handled by {slot}",
    "duplicate": "known already to {slot}: no second effect (deduplicated)",
    "nack": "failed at {slot}, attempt {attempt}",
    "expired": "not answered by {slot} within its lease, attempt {attempt}",
    "died": "lost with {slot}, attempt {attempt}",
    "term": "rejected by {slot}, attempt {attempt}",
    "dead": "dead letter after {attempt} attempts",
    "behind": "parked unattempted behind an earlier dead letter of its key",
    "replayed": "to be delivered again",
    "let_go": "let go",
    "fault": "hit by a fault at {slot}, attempt {attempt}",
}
_MARKS = {"handled": "✓", "in hand": "…", "waits": "…", "dead": "✕", "let go": "✕"}


def show(answer: dict[str, Any], pages: str | None) -> int:
    """Print it. `pages`: where Jaeger's pages are, if it has any."""
    for line in lines(answer, pages):
        print(harmless(line))
    return 0


def lines(answer: dict[str, Any], pages: str | None) -> Iterator[str]:
    """The story. Pure."""
    event = answer["event"]
    yield f"{event['topic']}  {event['subject']}  (seq {event['seq']}, id {event['event_id']})"
    yield from _trace(answer["trace_id"], pages)
    yield ""
    made = _made_ms(event)
    yield _step(made, made, "", f"made, number {event['pseq']} of {event['producer']}")
    yield _step(event["stored_ms"], made, "", "committed by the broker")
    for step in answer["steps"]:
        yield _step(step["at_ms"], made, step["group"], _told(step))
    if answer["complete_since_ms"] > event["stored_ms"]:
        since = _clock(answer["complete_since_ms"])
        yield f"(deliveries and acks before {since} are not remembered; failures, dead letters and replays are)"
    yield ""
    for name, now in answer["groups"].items():
        why = f": {now['why']}" if now["why"] else ""
        yield f"{_MARKS.get(now['state'], '?')} {name:<16}{now['state']}{why}"
    dead = [name for name, now in answer["groups"].items() if now["state"] == "dead"]
    if dead:
        yield f"once it is mended: ./atoll dlq replay {dead[0]} --key {event['subject']}"


def _trace(trace_id: str | None, pages: str | None) -> Iterator[str]:
    if trace_id is not None:
        yield f"trace {trace_id}" + (f"  {pages}/trace/{trace_id}" if pages else "")


def _made_ms(event: dict[str, Any]) -> int:
    """When it was made by its publisher's clock; by the broker's, if that is no time."""
    try:
        return round(datetime.datetime.fromisoformat(event["time"]).timestamp() * 1000)
    except (TypeError, ValueError):
        return int(event["stored_ms"])


def _step(at_ms: int, made_ms: int, group: str, text: str) -> str:
    return f"{_clock(at_ms)}  {(at_ms - made_ms) / 1000:>+9.3f} s  {group:<14}{text}"


def _clock(at_ms: int) -> str:
    """Local time, as people at a terminal read it."""
    moment = datetime.datetime.fromtimestamp(at_ms / 1000)
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{at_ms % 1000:03}"


def _told(step: dict[str, Any]) -> str:
    words = _WORDS.get(step["what"], step["what"]).format(slot=step["slot"] or "nobody", attempt=step["attempt"])
    return f"{words}: {step['text']}" if step["text"] else words


def pages_of(state: State) -> str | None:
    """Where this system's Jaeger shows its pages, if it does now."""
    try:
        address = state.read_credentials().get("jaeger", "").rstrip("/")
        if not address.startswith(("http://", "https://")):
            return None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{address}/", timeout=_SECONDS) as page:
            html = "html" in page.headers.get("Content-Type", "")
            return address if html and _NO_PAGES not in page.read(_PAGE_BYTES_MAX) else None
    except (OperationError, OSError, ValueError, http.client.HTTPException):
        return None
