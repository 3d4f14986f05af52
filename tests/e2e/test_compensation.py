"""What cannot be done is undone: cancelled, stock back, money back exactly once."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from decimal import Decimal

import pytest

from fleet import Fleet, fleet, write_mesh
from history import captured, refunded
from measured import say
from polling import poll_until

OPENING_STOCK = 10
DECLINE_ABOVE = Decimal(100)
DEADLINE_SECONDS = 6  # also what the orders that end before it have, on a busy machine


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A shop with little stock, small payments and a short saga deadline."""
    folder = tmp_path_factory.mktemp("poor")
    mesh = write_mesh(
        folder / "mesh.toml",
        changes={"lease_seconds = 30": "lease_seconds = 2"},
        settings={
            "inventory": {"INVENTORY_OPENING_STOCK": str(OPENING_STOCK)},
            "payments": {"PAYMENTS_DECLINE_ABOVE": str(DECLINE_ABOVE)},
            "orders": {"ORDERS_SAGA_DEADLINE_SECONDS": str(DEADLINE_SECONDS)},
        },
    )
    with fleet(folder / "state", mesh) as running:
        yield running


def available(shop: Fleet, sku: str) -> int:
    """Stock of a SKU, through the gateway."""
    return int(shop.call("GET", f"/stock/{sku}").body["available"])


def test_stock_too_small_cancels_and_takes_nothing(poor: Fleet) -> None:
    order_id = poor.place("small-stock", sku="RARE", quantity=OPENING_STOCK + 1, price="1")
    seen = poor.wait_order(order_id, "cancelled")
    assert seen.body["reason"] == "stock_rejected"
    assert "RARE" in seen.raw.decode(), "the detail must name the SKU"
    poor.wait_settled()
    assert available(poor, "RARE") == OPENING_STOCK
    assert captured(poor, order_id) == []


def test_a_declined_payment_cancels_and_stock_is_back(poor: Fleet) -> None:
    order_id = poor.place("too-dear", sku="DEAR", quantity=1, price=str(DECLINE_ABOVE + 1))
    assert poor.wait_order(order_id, "cancelled").body["reason"] == "payment_declined"
    poor.wait_settled()
    assert available(poor, "DEAR") == OPENING_STOCK
    assert captured(poor, order_id) == []
    assert refunded(poor, order_id) == []


def test_exactly_the_limit_is_not_declined(poor: Fleet) -> None:
    poor.wait_order(poor.place("just-right", sku="FAIR", quantity=1, price=str(DECLINE_ABOVE)), "confirmed")


def test_the_deadline_cancels_and_a_late_capture_is_refunded_once(poor: Fleet) -> None:
    """Payments are down past the deadline; back again they capture (the log says reserved), and refund once."""
    poor.atoll("stop", "payments")
    began = time.monotonic()
    order_id = poor.place("late", sku="LATE", quantity=2, price="3")
    seen = poor.wait_order(order_id, "cancelled", seconds=DEADLINE_SECONDS * 3)
    say(f"saga deadline {DEADLINE_SECONDS} s: cancelled after {time.monotonic() - began:.1f} s")
    assert seen.body["reason"] == "deadline"
    poll_until("stock to be back", lambda: available(poor, "LATE"), lambda left: left == OPENING_STOCK, seconds=10)
    poor.atoll("start", "payments")
    poor.wait_settled()
    assert captured(poor, order_id) == [Decimal(6)], "the capture comes late, from the log"
    assert refunded(poor, order_id) == [Decimal(6)]
    assert poor.order_status(order_id) == "cancelled"


def test_an_order_that_nobody_reserved_is_cancelled_and_never_charged(poor: Fleet) -> None:
    poor.atoll("stop", "inventory")
    order_id = poor.place("unreserved", sku="NONE", quantity=1, price="3")
    assert poor.wait_order(order_id, "cancelled", seconds=DEADLINE_SECONDS * 3).body["reason"] == "deadline"
    poor.atoll("start", "inventory")
    poor.wait_settled()
    assert available(poor, "NONE") == OPENING_STOCK
    assert sum(captured(poor, order_id)) == sum(refunded(poor, order_id))


def test_the_deadline_survives_the_death_of_orders(poor: Fleet) -> None:
    poor.atoll("stop", "payments")
    order_id = poor.place("deadline-death", sku="DEATH", quantity=1, price="3")
    poor.wait_back("orders", poor.signal("orders", signal.SIGKILL))
    poor.wait_order(order_id, "cancelled", seconds=DEADLINE_SECONDS * 3)
    poor.atoll("start", "payments")
    poor.wait_settled()
    assert available(poor, "DEATH") == OPENING_STOCK
