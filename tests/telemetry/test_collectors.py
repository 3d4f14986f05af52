"""Telemetry never stands in the way: whatever the collector does, the business history is the same."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

import invoices
from collector import Collector, Span, collector
from fleet import Fleet, fleet
from history import assert_books_balance
from measured import say
from polling import poll_until

INVOICES = 40
#: Draining what is in hand, then at most 2 s for the last spans: of all parts together, for they end side by side.
DOWN_SECONDS = 10
PROMISES = 3


def otlp_port(shop: Fleet) -> int:
    """Where every part sends its spans."""
    return int(json.loads((shop.state / "system.json").read_text())["ports"]["otlp_http"])


def one_that(behaviour: str, port: int) -> AbstractContextManager[Collector | None]:
    """A collector that behaves so, or none at all."""
    return nullcontext() if behaviour == "absent" else collector(port, behaviour)


@pytest.mark.parametrize("behaviour", ["absent", "takes", "refuses", "hangs"])
def test_the_business_is_the_same_whatever_the_collector_does(
    state: Path, tmp_path: Path, real_orders: Path, behaviour: str
) -> None:
    file = invoices.write(tmp_path / "some.csv", real_orders, INVOICES)
    book = invoices.read(file)
    with fleet(state) as shop, one_that(behaviour, otlp_port(shop)) as kept:
        shop.atoll("demo", str(file))
        assert_books_balance(shop, book)
        units = {key: sums.units for key, sums in book.sums("sku").items()}
        found = {row["key"]: row["units"] for row in shop.call("GET", "/sales?by=sku").body["rows"]}
        assert found == units
        if kept is not None:
            poll_until("an export to come", lambda: kept.requests, seconds=20)
        began = time.monotonic()
        shop.atoll("down")
        took = time.monotonic() - began
    say(f"down with a collector that {behaviour}: {took:.1f} s (promise {DOWN_SECONDS} s)")
    assert took < DOWN_SECONDS * PROMISES


def test_one_order_is_one_trace_through_every_part(state: Path, tmp_path: Path, real_orders: Path) -> None:
    """Client, gateway, orders, inventory, payments, sales: one trace, and no span whose parent is missing."""
    file = invoices.write(tmp_path / "one.csv", real_orders, 1)
    with fleet(state) as shop, collector(otlp_port(shop), "takes") as kept:
        shop.atoll("demo", str(file))
        crossed = {"gateway", "orders", "inventory", "payments", "sales"}

        def whole() -> list[Span]:
            return next((spans for spans in kept.traces().values() if crossed <= {one.service for one in spans}), [])

        spans = poll_until("one trace through every part, with every parent", whole, _has_its_parents, seconds=30)
        names = sorted({f"{span.service}: {span.name}" for span in spans})
        say(f"one order: {len(spans)} spans of {sorted({span.service for span in spans})}")
        assert any("orders.order.placed.v1" in name for name in names), names
        services = {span.service for span in kept.spans}
        assert {"auth", "demo"} <= services, services


def _has_its_parents(spans: list[Span]) -> bool:
    known = {span.id for span in spans}
    missing = [span for span in spans if span.parent and span.parent not in known]
    return bool(spans) and not missing
