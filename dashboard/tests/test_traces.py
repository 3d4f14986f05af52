"""The traces page: what its fields mean, and what it says while there is no Jaeger."""

from __future__ import annotations

import time
from typing import Any

import pytest
import standin

from atoll_dashboard import snapshot
from atoll_dashboard.fleetview import View
from atoll_dashboard.gateway import Trouble
from atoll_dashboard.jaeger import Search, TraceHead
from atoll_dashboard.pages import traces

TROUBLE = Trouble("jaeger", "nobody answers at http://127.0.0.1:1")


def view(age: float = 0.0, **jaeger: Any) -> View:
    """A look at a fleet in which Jaeger is so."""
    found = snapshot.read(standin.snapshot("jaeger", **jaeger))
    now = time.time()
    return View(found, now - age, now, age, age)


def said(of: View) -> str:
    """The words of the note, without its advice."""
    return traces._without_jaeger(TROUBLE, of).split(">", 1)[1].split(". ")[0]


@pytest.mark.parametrize(
    ("asked", "means"),
    [
        ("", None),
        ("0b9c-7", ("cloudevents.event_subject", "0b9c-7")),
        ("http.route=/orders/{id}", ("http.route", "/orders/{id}")),
        ("a = b=c", ("a", "b=c")),
        ("=b", ("cloudevents.event_subject", "=b")),
    ],
)
def test_a_word_alone_is_an_order_and_a_pair_is_an_attribute(asked: str, means: tuple[str, str] | None) -> None:
    assert traces.attribute(asked) == means


def test_the_query_is_as_jaegers_api_takes_it() -> None:
    began = time.time()
    query = Search("orders", limit=5, lookback_seconds=900, min_ms=1.5, attribute=('a"', "b")).query()
    assert (query["service"], query["limit"], query["minDuration"], query["tags"]) == (
        "orders", "5", "1.5ms", '{"a\\"": "b"}',
    )  # fmt: skip
    assert int(query["start"]) / 1e6 == pytest.approx(began - 900, abs=5)
    assert int(query["end"]) / 1e6 == pytest.approx(began + 60, abs=5)
    assert {"minDuration", "tags"}.isdisjoint(Search("orders").query())
    assert Search("orders", limit=5, error=True).query()["limit"] == "200", "errors are picked out of many"


def test_a_jaeger_that_is_brought_just_now_is_not_called_gone() -> None:
    assert said(view(state="starting", why="building 38 %")) == "jaeger is on its way: building 38 %"
    assert said(view(state="absent", why="no `go` on PATH")) == "jaeger is absent: no `go` on PATH"


@pytest.mark.parametrize(
    "of", [view(), view(state="down"), view(state="starting"), view(age=7, state="starting", why="building 38 %"),
           View(None, None, time.time(), float("inf"), float("inf"))],
)  # fmt: skip
def test_one_that_was_there_or_of_which_nothing_is_known_is_gone(of: View) -> None:
    assert said(of) == "jaeger is gone: nobody answers at http://127.0.0.1:1"


def head(trace_id: str, spans: int = 1) -> TraceHead:
    """A trace in a list."""
    return TraceHead(trace_id, "gateway", "POST /orders", 0.0, 1.0, spans, ("gateway",), 0)


def test_a_list_that_stands_keeps_its_places_and_its_traces_grow() -> None:
    shown, newer = traces.steady([], [head("b"), head("a")])
    assert ([one.id for one in shown], newer) == (["b", "a"], 0)
    shown, newer = traces.steady(shown, [head("d"), head("c"), head("b", spans=19)])
    assert ([(one.id, one.spans) for one in shown], newer) == ([("b", 19), ("a", 1)], 2)
