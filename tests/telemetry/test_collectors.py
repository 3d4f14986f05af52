"""I14: telemetry never stands in the way. On, off, refused, hung or killed in the middle, the business is the same."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

import invoices
from collector import Collector, Span, collector
from fleet import LAUNCHER, REPOSITORY, Fleet, fleet
from history import assert_books_balance
from jaeger import Jaeger, watched_fleet
from measured import say
from polling import poll_until
from topology import SERVICES

INVOICES = 40
#: Draining what is in hand, then at most 2 s for the last spans: of all parts together, for they end side by side.
DOWN_SECONDS = 10
PROMISES = 3
#: Parts that export spans.
EXPORTERS = ("gateway", "auth", "control", *SERVICES)


def otlp_port(shop: Fleet) -> int:
    """Where every part sends its spans."""
    return int(json.loads((shop.state / "system.json").read_text())["ports"]["otlp_http"])


def one_that(behaviour: str, port: int) -> AbstractContextManager[Collector | None]:
    """A collector that behaves so, or none at all."""
    return nullcontext() if behaviour in ("absent", "off") else collector(port, behaviour)


@pytest.mark.parametrize("behaviour", ["absent", "off", "takes", "refuses", "hangs"])
def test_the_business_is_the_same_whatever_the_collector_does(
    state: Path, tmp_path: Path, real_orders: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    if behaviour == "off":
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    file = invoices.write(tmp_path / "some.csv", real_orders, INVOICES)
    with fleet(state) as shop, one_that(behaviour, otlp_port(shop)) as kept:
        shop.atoll("demo", str(file))
        assert_same_history(shop, file)
        if kept is not None:
            poll_until("an export to come", lambda: kept.requests, seconds=20)
        spans = poll_until("the fate of the spans", lambda: fates(shop), FATES[behaviour], seconds=20)
        complaints = {part: of_telemetry(shop, part) for part in EXPORTERS}
        assert bool(spans["failed"]) == any(complaints.values()), complaints
        for part, said in complaints.items():
            assert len(said) <= 1 + lived_minutes(shop, part), f"{part} repeats itself: {said}"
        ended_in_time(shop, f"a collector that {behaviour}: spans {spans}")


#: What must be seen to have become of spans, or the run shows nothing about the collector that it is named for.
FATES: dict[str, Callable[[dict[str, int]], object]] = {
    "absent": lambda spans: spans["failed"] and not spans["exported"],
    "off": lambda spans: not any(spans.values()),
    "takes": lambda spans: spans["exported"] and not spans["failed"] and not spans["dropped"],
    "refuses": lambda spans: spans["failed"] and not spans["exported"],
    "hangs": lambda spans: spans["failed"] and not spans["exported"],
}


@pytest.mark.parametrize("fault", ["none", "killed", "stopped"])
def test_the_business_is_the_same_whatever_becomes_of_jaeger(
    state: Path, tmp_path: Path, real_orders: Path, jaeger_binary: Path, fault: str
) -> None:
    """The real Jaeger, under load: left alone, killed for the agent to start again, or stopped until the end."""
    assert jaeger_binary.exists()
    file = invoices.write(tmp_path / "some.csv", real_orders, INVOICES)
    with watched_fleet(state) as (shop, jaeger):
        demo = subprocess.Popen(
            [str(LAUNCHER), "demo", str(file), "--rate", "20", "--state", str(shop.state)],
            cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            poll_until("the first traces", lambda: jaeger.traces("orders"), seconds=60)
            strike(shop, fault)
            assert demo.wait(timeout=120) == 0, "the demo's sums are not the file's"
        finally:
            demo.kill()
            demo.wait(timeout=10)
        assert_same_history(shop, file)
        if fault == "killed":
            new_traces_come(shop, jaeger)
        ended_in_time(shop, f"Jaeger {fault}: spans {fates(shop)}")


def strike(shop: Fleet, fault: str) -> None:
    """Do to Jaeger what the case is named for."""
    if fault == "killed":
        shop.signal("jaeger", signal.SIGKILL)
    if fault == "stopped":
        shop.signal("jaeger", signal.SIGSTOP)


def new_traces_come(shop: Fleet, jaeger: Jaeger) -> None:
    """A Jaeger that was killed is back by itself, and an order that is placed now has its trace."""
    poll_until("Jaeger to be back", jaeger.services, lambda _: True, seconds=30)
    order_id = shop.place("after-the-kill")
    poll_until("the trace of a new order", lambda: jaeger.of_order(order_id).spans, seconds=20)


def assert_same_history(shop: Fleet, file: Path) -> None:
    """Every effect once, to the penny and to the unit of each article."""
    book = invoices.read(file)
    assert_books_balance(shop, book)
    units = {key: sums.units for key, sums in book.sums("sku").items()}
    found = {row["key"]: row["units"] for row in shop.call("GET", "/sales?by=sku").body["rows"]}
    assert found == units


def fates(shop: Fleet) -> dict[str, int]:
    """What became of the spans of all parts: exported, failed, dropped."""
    total = {"exported": 0, "failed": 0, "dropped": 0}
    for part in EXPORTERS:
        seen = shop.metrics(part)
        for outcome in total:
            total[outcome] += int(seen.get(f'atoll_otel_spans_total{{outcome="{outcome}"}}', 0))
    return total


def of_telemetry(shop: Fleet, part: str) -> list[str]:
    """What a part's log says of its exporter."""
    found = []
    for text in (shop.state / "logs" / f"{part}-1.log").read_text().splitlines():
        line: dict[str, Any] = json.loads(text) if text.startswith("{") else {}
        if str(line.get("logger", "")).startswith(("opentelemetry", "urllib3", "requests")):
            found.append(text)
    return found


def lived_minutes(shop: Fleet, part: str) -> int:
    """Whole minutes that a part has run for."""
    return int((time.time() - psutil.Process(shop.pid(part)).create_time()) // 60)


def ended_in_time(shop: Fleet, what: str) -> None:
    """`down` takes no longer for what has become of the collector."""
    began = time.monotonic()
    shop.atoll("down")
    took = time.monotonic() - began
    say(f"down with {what}: {took:.1f} s (promise {DOWN_SECONDS} s)")
    assert took < DOWN_SECONDS * PROMISES


def test_an_order_crosses_every_part_where_no_jaeger_is(state: Path, tmp_path: Path, real_orders: Path) -> None:
    """The little of test_one_order_one_trace that a machine without Jaeger can show: one trace, every parent there."""
    file = invoices.write(tmp_path / "one.csv", real_orders, 1)
    with fleet(state) as shop, collector(otlp_port(shop), "takes") as kept:
        shop.atoll("demo", str(file))
        crossed = {"gateway", "orders", "inventory", "payments", "sales", "notifications"}

        def whole() -> list[Span]:
            return next((spans for spans in kept.traces().values() if crossed <= {one.service for one in spans}), [])

        spans = poll_until("one trace through every part, with every parent", whole, _has_its_parents, seconds=30)
        names = sorted({f"{span.service}: {span.name}" for span in spans})
        say(f"one order: {len(spans)} spans of {sorted({span.service for span in spans})}")
        assert any("orders.order.placed.v1" in name for name in names), names
        poll_until(  # auth's token has a trace of its own, and its batch goes out by a clock of its own
            "spans of auth and of the demo",
            lambda: {span.service for span in list(kept.spans)},
            lambda services: {"auth", "demo"} <= services,
            seconds=10,
        )


def _has_its_parents(spans: list[Span]) -> bool:
    known = {span.id for span in spans}
    missing = [span for span in spans if span.parent and span.parent not in known]
    return bool(spans) and not missing
