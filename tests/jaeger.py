"""Traces, read back from a real Jaeger through its query API, as edges that can be compared and a tree to look at."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet import REPOSITORY, Answer, Fleet, fleet, http, parts_of
from polling import poll_until

#: A span's place: its service and its name.
Place = tuple[str, str]
#: Parent and child.
Edge = tuple[Place, Place]

#: A service's batch goes out twice a second, Jaeger's own takes 200 ms more; three times that on a busy machine.
WHOLE_SECONDS = 15.0
_LIMIT = 1500


@dataclass(frozen=True)
class Span:
    """One span as Jaeger has it."""

    trace: str
    id: str
    service: str
    name: str
    parent: str
    links: tuple[tuple[str, str], ...]
    begin_us: int
    duration_us: int
    tags: dict[str, Any]
    resource: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def place(self) -> Place:
        return self.service, self.name

    @property
    def kind(self) -> str:
        """client, server, producer, consumer or internal."""
        return str(self.tags.get("span.kind", "internal"))

    @property
    def failed(self) -> bool:
        return self.tags.get("otel.status_code") == "ERROR"

    @property
    def attempt(self) -> int:
        """Which delivery of its event a consumer span is of; 0 for any other span."""
        return int(self.tags.get("atoll.attempt", 0))


@dataclass(frozen=True)
class Trace:
    """All spans of one trace that have come so far."""

    id: str
    spans: tuple[Span, ...] = field(repr=False)

    @property
    def edges(self) -> set[Edge]:
        """Parent and child, by service and name. A root has no edge, and a span without its parent neither."""
        known = {span.id: span for span in self.spans}
        return {(known[span.parent].place, span.place) for span in self.spans if span.parent in known}

    @property
    def roots(self) -> list[Place]:
        """Spans that name no parent."""
        return [span.place for span in self.spans if not span.parent]

    @property
    def orphans(self) -> list[Place]:
        """Spans that name a parent which is not there."""
        known = {span.id for span in self.spans}
        return [span.place for span in self.spans if span.parent and span.parent not in known]

    @property
    def services(self) -> set[str]:
        return {span.service for span in self.spans}

    def of(self, service: str, name: str) -> list[Span]:
        """The spans of one place, in the order of their beginning."""
        found = [span for span in self.spans if span.place == (service, name)]
        return sorted(found, key=lambda span: span.begin_us)

    def tree(self) -> str:
        """The trace to look at: indented by parent, with milliseconds from the beginning."""
        zero = min((span.begin_us for span in self.spans), default=0)
        known = {span.id for span in self.spans}
        children: dict[str, list[Span]] = {}
        for span in sorted(self.spans, key=lambda span: span.begin_us):
            children.setdefault(span.parent if span.parent in known else "", []).append(span)
        lines: list[str] = []

        def draw(span: Span, depth: int) -> None:
            notes = [f"attempt {span.attempt}"] * (span.attempt > 1)
            notes += [f"FAILED {span.tags.get('otel.status_description', '')}"] * span.failed
            notes += ["its parent is missing"] * bool(span.parent and span.parent not in known)
            if outcome := span.tags.get("atoll.outcome"):
                notes.append(str(outcome))
            begin, took = (span.begin_us - zero) / 1000, span.duration_us / 1000
            text = f"{'  ' * depth}{span.service}: {span.name} [{span.kind}]"
            lines.append(f"{text:<72} {begin:9.1f} ms +{took:8.1f} ms  {'; '.join(notes)}".rstrip())
            for child in children.get(span.id, []):
                draw(child, depth + 1)

        for root in children.get("", []):
            draw(root, 0)
        return "\n".join(lines)


class Jaeger:
    """The query API of a running Jaeger."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @classmethod
    def of(cls, shop: Fleet) -> Jaeger:
        """The one that `./atoll up` started with a shop; waits until it answers."""
        found = cls(shop.credentials["jaeger"])
        poll_until("Jaeger to answer", found.services, lambda _: True, seconds=60)
        return found

    def services(self) -> set[str]:
        """Everybody who has sent a span."""
        return set(self._get("/api/services") or [])

    def traces(self, service: str, *, operation: str | None = None, tags: dict[str, str] | None = None) -> list[Trace]:
        """The newest traces with a span of a service, of an operation's name, and with these attributes on it."""
        asked: dict[str, Any] = {"service": service, "limit": _LIMIT, "lookback": "1h"}
        if operation is not None:
            asked["operation"] = operation
        if tags:
            asked["tags"] = json.dumps(tags)
        return [_trace(one) for one in self._get("/api/traces?" + urllib.parse.urlencode(asked)) or []]

    def trace(self, trace_id: str) -> Trace:
        """One trace; without spans as long as Jaeger knows none of it."""
        answer = self._ask(f"/api/traces/{trace_id}")
        if answer.status == 404:
            return Trace(trace_id, ())
        return _trace(_data(answer)[0])

    def of_order(self, order_id: str) -> Trace:
        """The trace of an order, found as an engineer finds it: by the order's id on the span that published it.

        Raises AssertionError if the order is in more than one trace.
        """
        tags = {"cloudevents.event_subject": order_id}
        found = self.traces("orders", operation="publish orders.order.placed.v1", tags=tags)
        assert len(found) < 2, f"order {order_id} is in {len(found)} traces: {[one.id for one in found]}"
        return found[0] if found else Trace("", ())

    def links(self, trace_id: str) -> dict[str, list[tuple[str, str]]]:
        """Span -> (trace, span) that it links to. From the API's third version: the first merges links into parents."""
        found = json.loads(self._ask(f"/api/v3/traces/{trace_id}").raw)["result"]["resourceSpans"]
        return {
            span["spanId"]: [(link["traceId"], link["spanId"]) for link in span.get("links", [])]
            for resource in found
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        }

    def _get(self, path: str) -> Any:
        return _data(self._ask(path))

    def _ask(self, path: str) -> Answer:
        answer = http("GET", self.url + path, seconds=5)
        # Jaeger answers 200 with a page to a path that it does not know, and calls the JSON of its third version text.
        assert answer.raw.startswith(b"{"), f"{path} is not of the query API: {answer.raw[:200]!r}"
        return answer


def _data(answer: Answer) -> Any:
    assert answer.status == 200, f"{answer.status}: {answer.raw[:500]!r}"
    return answer.body["data"]


def _trace(found: dict[str, Any]) -> Trace:
    processes = {
        name: (one["serviceName"], {tag["key"]: tag["value"] for tag in one.get("tags", [])})
        for name, one in found["processes"].items()
    }
    return Trace(str(found["traceID"]), tuple(_span(one, processes[one["processID"]]) for one in found["spans"]))


def _span(found: dict[str, Any], process: tuple[str, dict[str, Any]]) -> Span:
    references = [(one["refType"], one["traceID"], one["spanID"]) for one in found.get("references", [])]
    return Span(
        trace=found["traceID"],
        id=found["spanID"],
        service=process[0],
        name=found["operationName"],
        parent=next((span for kind, trace, span in references if (kind, trace) == ("CHILD_OF", found["traceID"])), ""),
        links=tuple((trace, span) for kind, trace, span in references if kind != "CHILD_OF"),
        begin_us=found["startTime"],
        duration_us=found["duration"],
        tags={tag["key"]: tag["value"] for tag in found.get("tags", [])},
        resource=process[1],
        warnings=tuple(found.get("warnings") or ()),
    )


def wait_whole(
    look: Callable[[], Trace],
    wanted: Iterable[Edge],
    *,
    holds: Callable[[Trace], object] = lambda _: True,
    seconds: float = WHOLE_SECONDS,
) -> Trace:
    """Wait until a trace has exactly these edges, no span without its parent, and `holds`; the trace.

    Raises AssertionError that names every missing and every unexpected edge, and draws the tree.
    """
    expected = set(wanted)
    last = Trace("", ())

    def whole() -> bool:
        nonlocal last
        last = look()
        return last.edges == expected and not last.orphans and bool(holds(last))

    try:
        poll_until("the trace to be whole", whole, seconds=seconds, every=0.2)
    except AssertionError as error:
        raise AssertionError(f"{difference(last, expected)}\n{last.tree()}\n({error})") from None
    return last


def difference(trace: Trace, expected: set[Edge]) -> str:
    """What a trace lacks and what it has too much."""
    lines = [f"trace {trace.id or '(none)'} of {len(trace.spans)} spans"]
    for word, edges in (("missing", expected - trace.edges), ("unexpected", trace.edges - expected)):
        lines += [f"  {word}: {_drawn(edge)}" for edge in sorted(edges)]
    lines += [f"  its parent is missing: {service}: {name}" for service, name in trace.orphans]
    return "\n".join(lines)


def _drawn(edge: Edge) -> str:
    (parent, parent_name), (child, child_name) = edge
    return f"{parent}: {parent_name} → {child}: {child_name}"


@contextmanager
def watched_fleet(state: Path, mesh: Path | None = None) -> Iterator[tuple[Fleet, Jaeger]]:
    """A running system with its own Jaeger, without the dashboard. Who calls it has asked for `jaeger_binary`."""
    page = mesh or REPOSITORY / "mesh.toml"
    less = ("--without", "dashboard") if "dashboard" in parts_of(page) else ()
    with fleet(state, page, *less, whole=True) as shop:
        yield shop, Jaeger.of(shop)
