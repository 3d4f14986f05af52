"""Jaeger's query API, as much of it as the pages show. The real one: every shape here was read off its answers.

A page renews itself every two seconds, and a run that takes longer is cut off by the next before it has drawn anything.
So no page waits for Jaeger for long: a few threads ask, once for all viewers; what comes late is there next time.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests

from atoll_dashboard.gateway import Trouble

_SECONDS = (0.5, 8.0)  # to connect, to answer
_PATIENCE_SECONDS = 0.8  # of a page
_THREADS = 3
_UI_KNOWN_SECONDS = 10.0
_FRESH_SECONDS = 2.0
_GONE_SECONDS = 3.0  # nobody asks again so soon what did not answer: it would be one wait a viewer
_KEPT_MAX = 64
_ATTRIBUTES_MAX = 40
_ERRORS_AMONG = 200
#: Of an answer. The most that a page asks for, 200 traces of 20 spans, has 5 MB; read, each byte takes seven of memory.
_ANSWER_BYTES_MAX = 32 * 1024 * 1024
#: Of the page at its address, which tells whether there are pages: Jaeger's own has a few KiB.
_PAGE_BYTES_MAX = 64 * 1024
_PIECE_BYTES = 64 * 1024
#: A binary that was built from source has a page that says so, in place of the pages.
_NO_UI = "This is not the Jaeger UI"


class TooMuch(Trouble):
    """It answers, with more than is read here."""

    def __init__(self) -> None:
        mib = _ANSWER_BYTES_MAX / 1024**2
        why = f"Jaeger's answer has more than {mib:.0f} MiB, too much to read here"
        super().__init__("jaeger", f"{why}: narrow the search, or look in Jaeger's own pages")


@dataclass(frozen=True)
class TraceHead:
    """A trace in a list; `started_at` in seconds since the epoch."""

    id: str
    root_service: str
    root_name: str
    started_at: float
    duration_ms: float
    spans: int
    services: tuple[str, ...]
    errors: int


@dataclass(frozen=True)
class SpanRow:
    """A span; `kind` is client, server, producer, consumer or internal."""

    id: str
    parent: str | None
    service: str
    name: str
    kind: str
    started_at: float
    duration_ms: float
    error: bool
    attributes: dict[str, str]
    links: tuple[str, ...]


@dataclass(frozen=True)
class Trace:
    """A whole trace, its spans by their start."""

    id: str
    spans: tuple[SpanRow, ...]

    @property
    def head(self) -> TraceHead:
        """The trace as a list shows it: by its first span, and by the first that serves, which knows the route."""
        known = {span.id for span in self.spans}
        root = next((span for span in self.spans if span.parent not in known), self.spans[0])
        serving = next((span for span in self.spans if span.kind == "server"), root)
        name = serving.name if root.kind == "client" else root.name
        begin = min(span.started_at for span in self.spans)
        end = max(span.started_at + span.duration_ms / 1000 for span in self.spans)
        services = tuple(sorted({span.service for span in self.spans}))
        errors = sum(span.error for span in self.spans)
        return TraceHead(
            self.id, root.service, name, begin, 1000 * (end - begin), len(self.spans), services, errors
        )  # fmt: skip


@dataclass(frozen=True)
class Search:
    """What a list of traces asks for: traces that touch a service; with `error` those of the newest 200 that have one.

    `attribute` is a name and a value that one span of the service bears.
    """

    service: str
    limit: int = 20
    lookback_seconds: float = 3600.0
    error: bool = False
    min_ms: float | None = None
    attribute: tuple[str, str] | None = None

    def query(self) -> dict[str, str]:
        """As Jaeger's API takes it; times in microseconds, the end a minute ahead of clocks that differ."""
        now = time.time()
        asked = {
            "service": self.service,
            "limit": str(_ERRORS_AMONG if self.error else self.limit),
            "start": str(int((now - self.lookback_seconds) * 1e6)),
            "end": str(int((now + 60) * 1e6)),
        }
        if self.min_ms:
            asked["minDuration"] = f"{self.min_ms:g}ms"
        if self.attribute:
            asked["tags"] = json.dumps(dict([self.attribute]))
        return asked


class Jaeger:
    """The query API at `url`. An answer is shared by all viewers for two seconds."""

    def __init__(self, url: str, link: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.link = (link or url).rstrip("/")  # where a browser finds its pages
        self._http = requests.Session()
        self._http.trust_env = False
        self._kept: dict[tuple[object, ...], tuple[float, Any]] = {}
        self._lock = threading.Lock()
        self._ui: tuple[float, bool] = (0.0, False)
        self._gone: tuple[float, str] = (float("-inf"), "")
        self._asked: dict[tuple[object, ...], Future[Any]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="jaeger")

    def page_of(self, trace_id: str) -> str:
        """Where a browser finds a trace."""
        return f"{self.link}/trace/{quote(trace_id, safe='')}"

    def has_ui(self) -> bool:
        """Whether there are pages to link to; asked again now and then."""
        asked, known = self._ui
        if time.monotonic() - asked > _UI_KNOWN_SECONDS or not asked:
            try:
                known = bool(self._shared(("ui",), self._look_for_pages))
            except Trouble:
                return known
            self._ui = (time.monotonic(), known)
        return known

    def _look_for_pages(self) -> bool:
        try:
            with self._get("/") as page:
                if page.status_code != 200 or "html" not in page.headers.get("Content-Type", ""):
                    return False
                return _NO_UI.encode() not in _first(page, _PAGE_BYTES_MAX)
        except requests.RequestException:
            return False  # the link comes back with the pages

    def search(self, asked: Search) -> list[TraceHead]:
        """The newest traces that match, newest first. Raises Trouble.

        Errors are picked out here: Jaeger's memory store finds nothing by `error=true`.
        """
        found: list[Trace] = self._shared(("search", asked), lambda: _traces(self._data("/api/traces", asked.query())))
        heads = (one.head for one in found)
        chosen = (one for one in heads if one.errors or not asked.error)
        return sorted(chosen, key=lambda head: -head.started_at)[: asked.limit]

    def trace(self, trace_id: str) -> Trace | None:
        """A trace; None if Jaeger does not know it (yet). Raises Trouble."""
        path = f"/api/traces/{quote(trace_id, safe='')}"
        found: list[Trace] = self._shared(("trace", trace_id), lambda: _traces(self._data(path, {})))
        return found[0] if found else None

    def _shared(self, key: tuple[object, ...], fetch: Callable[[], Any]) -> Any:
        """What `fetch` yields, shared by all who ask. Raises Trouble if it is not there soon; it may be next time."""
        value = self._known_or_asked(key, fetch)
        if isinstance(value, TooMuch):
            raise TooMuch
        return value

    def _known_or_asked(self, key: tuple[object, ...], fetch: Callable[[], Any]) -> Any:
        with self._lock:
            known = self._kept.get(key)
            if known is not None and time.monotonic() - known[0] < _FRESH_SECONDS:
                return known[1]
            noticed, why = self._gone
            if time.monotonic() - noticed < _GONE_SECONDS:
                raise Trouble("jaeger", why)
            asked = self._asked.get(key)
            if asked is None:
                asked = self._asked[key] = self._threads.submit(self._fetch, key, fetch)
        try:
            return asked.result(_PATIENCE_SECONDS)
        except TimeoutError:
            return self._late()

    def _late(self) -> Any:
        why = f"no answer in time from {self.url}"
        self._gone = (time.monotonic(), why)
        raise Trouble("jaeger", why)

    def _fetch(self, key: tuple[object, ...], fetch: Callable[[], Any]) -> Any:
        try:
            try:
                value = fetch()
            except TooMuch as error:  # kept as an answer is: it may come too late for who asked, and cost as much
                value = error
            with self._lock:
                if len(self._kept) >= _KEPT_MAX:
                    del self._kept[min(self._kept, key=lambda one: self._kept[one][0])]
                self._kept[key] = (time.monotonic(), value)
            return value
        finally:
            with self._lock:
                self._asked.pop(key, None)

    def _data(self, path: str, asked: dict[str, str]) -> Any:
        try:
            with self._get(path, asked) as answer:
                return _data_of(answer, self.url)
        except requests.RequestException as error:
            silent = isinstance(error, requests.Timeout)
            why = f"no answer in time from {self.url}" if silent else f"nobody answers at {self.url}"
            self._gone = (time.monotonic(), why)
            raise Trouble("jaeger", why) from error

    def _get(self, path: str, asked: dict[str, str] | None = None) -> requests.Response:
        """An answer, its body unread. A redirect is one too: nobody but who was named in the settings is asked."""
        return self._http.get(self.url + path, params=asked, timeout=_SECONDS, allow_redirects=False, stream=True)


def _data_of(answer: requests.Response, url: str) -> Any:
    """What it tells; None where it knows nothing. Raises Trouble, and TooMuch."""
    if answer.status_code in (400, 404):
        return None
    if "json" not in answer.headers.get("Content-Type", ""):
        raise Trouble("jaeger", f"{url} answers, but not as Jaeger does")
    if answer.status_code != 200:
        raise Trouble("jaeger", f"it answers {answer.status_code}")
    body = _first(answer, _ANSWER_BYTES_MAX + 1)
    if len(body) > _ANSWER_BYTES_MAX:
        raise TooMuch
    try:
        return json.loads(body)["data"]
    except (ValueError, TypeError, LookupError) as error:
        raise _not_jaeger() from error


def _first(answer: requests.Response, count: int) -> bytes:
    """So many bytes of a body, or all where it has fewer; what comes after them is not read."""
    found = bytearray()
    for piece in answer.iter_content(_PIECE_BYTES):
        found += piece
        if len(found) >= count:
            break
    return bytes(found[:count])


def _not_jaeger() -> Trouble:
    return Trouble("jaeger", "what answers at its address does not answer as Jaeger does")


def _traces(found: Any) -> list[Trace]:
    """The traces of an answer that have spans. Raises Trouble if it has another shape."""
    try:
        return [_trace(one) for one in found or [] if one.get("spans")]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise _not_jaeger() from error


def _trace(found: dict[str, Any]) -> Trace:
    services = {key: str(process.get("serviceName", "")) for key, process in found.get("processes", {}).items()}
    spans = [_span(span, services) for span in found["spans"]]
    return Trace(str(found["traceID"]), tuple(sorted(spans, key=lambda span: (span.started_at, span.id))))


def _span(span: dict[str, Any], services: dict[str, str]) -> SpanRow:
    tags = {str(tag["key"]): str(tag["value"]) for tag in span.get("tags", [])}
    own = [one for one in span.get("references", []) if one.get("traceID") == span.get("traceID")]
    parent = next((str(one["spanID"]) for one in own if one.get("refType") == "CHILD_OF"), None)
    links = tuple(str(one["spanID"]) for one in span.get("references", []) if one.get("refType") == "FOLLOWS_FROM")
    return SpanRow(
        id=str(span["spanID"]), parent=parent, service=services.get(span.get("processID", ""), "?"),
        name=str(span["operationName"]), kind=tags.pop("span.kind", "internal"), started_at=span["startTime"] / 1e6,
        duration_ms=span["duration"] / 1e3,
        error=tags.get("error") == "true" or tags.get("otel.status_code") == "ERROR",
        attributes=dict(list(tags.items())[:_ATTRIBUTES_MAX]), links=tuple(one for one in links if one != parent),
    )  # fmt: skip
