"""The waterfall: every span has its row, whatever the spans say of one another."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from atoll_dashboard import waterfall
from atoll_dashboard.jaeger import SpanRow, Trace
from atoll_dashboard.pages.operations import _csv


def span(name: str, parent: str | None = None, began: float = 0.0, ms: float = 10.0) -> SpanRow:
    """A span named by its id."""
    return SpanRow(name, parent, "orders", name, "internal", 1000.0 + began, ms, False, {}, ())


def order(*spans: SpanRow) -> list[tuple[str, int]]:
    """Names and depths, downwards."""
    return [(bar.span.id, bar.depth) for bar in waterfall.bars(spans)]


def test_children_stand_below_their_parent_by_their_start() -> None:
    assert order(span("c", "a", 0.002), span("b", "a", 0.001), span("a"), span("d", "b", 0.003)) == [
        ("a", 0), ("b", 1), ("d", 2), ("c", 1),
    ]  # fmt: skip


def test_a_span_without_its_parent_is_not_lost() -> None:
    assert order(span("a"), span("orphan", "never came", 0.001)) == [("a", 0), ("orphan", 0)]


def test_circles_are_cut_and_not_lost() -> None:
    assert sorted(order(span("own", "own"))) == [("own", 0)]
    assert sorted(name for name, _ in order(span("a", "b"), span("b", "a"), span("c", "b"))) == ["a", "b", "c"]
    whole = order(span("root"), span("x", "z", 1), span("y", "x", 2), span("z", "y", 3), span("leaf", "z", 4))
    assert sorted(name for name, _ in whole) == ["leaf", "root", "x", "y", "z"]


def test_two_spans_of_one_id_have_two_rows() -> None:
    assert [name for name, _ in order(span("a"), span("a", began=0.001), span("b", "a", 0.002))].count("a") == 2


def test_bars_stay_within_the_trace() -> None:
    for spans in ([span("a", ms=0.0)], [span("a", ms=0.0), span("b", "a", 0.0, 0.0)], [span("a"), span("b", "a", 5.0)]):
        for bar in waterfall.bars(spans):
            assert 0 <= bar.left <= 100
            assert 0 <= bar.width <= 100 - bar.left + 1e-9
    assert waterfall.bars([]) == []


def test_a_thousand_spans_in_a_chain_or_a_fan_are_drawn_soon() -> None:
    chain = [span(f"{n:04}", f"{n - 1:04}" if n else None, n / 1000) for n in range(1000)]
    fan = [span("root"), *(span(f"{n:04}", "root", n / 1000) for n in range(999))]
    circle = [span(f"{n:04}", f"{(n + 1) % 1000:04}", n / 1000) for n in range(1000)]
    for spans in (chain, fan, circle):
        began = time.monotonic()
        drawn = waterfall.render(Trace("t", tuple(spans)), {"orders"})
        took = time.monotonic() - began
        assert drawn.count("<li ") == 1000
        print(f"» 1,000 spans drawn in {took:.3f} s, {len(drawn) / 1e6:.2f} MB")
        assert took < 1


def test_a_span_leads_to_the_log_of_its_part_and_nowhere_where_it_is_of_none() -> None:
    foreign = "somebody's <b>client</b>"
    spans = (span("a"), replace(span("b", "a"), service=foreign), span("c", "b"))
    drawn = waterfall.render(Trace("t", spans), {"orders", "payments"})
    assert re.findall(r'<a [^>]*href="([^"]*)"[^>]*>(.*?)</a>', drawn) == [
        ("/service?name=orders", "Log of orders"), ("/service?name=orders", "Log of orders"),
    ]  # fmt: skip
    assert "<b>client" not in waterfall.render(Trace("t", spans), {foreign})


def test_no_cell_of_the_csv_is_a_formula() -> None:
    starts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＠x"]
    item = {"at": 1.0, "who": "amy", "act": "kill", "target": "payments/1", "result": None}
    for start in starts:
        line = _csv([{**item, "reason": start}])
        assert "'" + start in line, start
    assert _csv([{**item, "reason": "drill = test"}]).splitlines()[1] == "1.0,amy,kill,payments/1,drill = test,,,"
