"""What orders and returns do to the stock. A SKU opens with 100 here."""

from typing import Any

import pytest
from support import Bus

from atoll_inventory.handlers import subscriptions

PLACED, CANCELLED = "orders.order.placed.v1", "orders.order.cancelled.v1"
REFUNDED = "orders.return.refunded.v1"
RESERVED, REJECTED, RELEASED = (f"inventory.stock.{what}.v1" for what in ("reserved", "rejected", "released"))


def order(*wanted: tuple[str, int]) -> dict[str, Any]:
    return {"lines": [{"line": n, "sku": sku, "quantity": q} for n, (sku, q) in enumerate(wanted, start=1)]}


async def available(bus: Bus, sku: str) -> int:
    return int(await bus.count("SELECT coalesce(max(available), 100) FROM stock WHERE sku = ?", sku))


@pytest.fixture(autouse=True)
async def every_unit_is_accounted_for(bus: Bus) -> Any:
    """After each test: available is opening plus all movements, reserved is what orders took and did not give back."""
    yield
    wrong = await bus.count(
        "SELECT count(*) FROM stock s WHERE available <> opening +"
        " (SELECT coalesce(sum(quantity), 0) FROM movements m WHERE m.sku = s.sku) OR reserved <>"
        " (SELECT coalesce(-sum(quantity), 0) FROM movements m"
        " WHERE m.sku = s.sku AND kind IN ('reserved', 'released'))"
    )
    assert wrong == 0


async def test_an_order_reserves_all_its_lines(bus: Bus) -> None:
    await bus.deliver(PLACED, "o1", order(("A", 6), ("B", 100), ("A", 4)))
    assert [await available(bus, sku) for sku in "AB"] == [90, 0]
    assert await bus.count("SELECT count(*) FROM movements WHERE kind = 'reserved'") == 3
    assert await bus.published() == [(RESERVED, "o1", {"order_id": "o1"} | order(("A", 6), ("B", 100), ("A", 4)))]


async def test_an_order_that_is_short_of_one_sku_takes_nothing(bus: Bus) -> None:
    await bus.deliver(PLACED, "o1", order(("A", 6), ("B", 60), ("B", 41)))
    assert await bus.published() == [(REJECTED, "o1", {"order_id": "o1", "sku": "B", "wanted": 101, "available": 100})]
    assert await bus.count("SELECT count(*) FROM movements") == 0
    assert await bus.count("SELECT count(*) FROM stock") == 0


async def test_an_order_placed_twice_takes_once(bus: Bus) -> None:
    await bus.deliver(PLACED, "o1", order(("A", 6)))
    await bus.published()
    await bus.deliver(PLACED, "o1", order(("A", 6)))
    assert await available(bus, "A") == 94
    assert await bus.published() == []


async def test_a_rejected_order_stays_rejected_when_stock_has_come(bus: Bus) -> None:
    await bus.deliver(PLACED, "o1", order(("A", 101)))
    await bus.deliver(REFUNDED, "r1", order(("A", 50)))
    await bus.published()
    await bus.deliver(PLACED, "o1", order(("A", 101)))
    assert await bus.published() == []
    assert await available(bus, "A") == 150


async def test_a_cancelled_order_gives_back_once(bus: Bus) -> None:
    await bus.deliver(PLACED, "o1", order(("A", 6), ("A", 4)))
    await bus.published()
    await bus.deliver(CANCELLED, "o1", {})
    assert await bus.published() == [(RELEASED, "o1", {"order_id": "o1"} | order(("A", 6), ("A", 4)))]
    await bus.deliver(CANCELLED, "o1", {})
    await bus.deliver(PLACED, "o1", order(("A", 6), ("A", 4)))
    assert await bus.published() == []
    assert await available(bus, "A") == 100
    assert await bus.count("SELECT status FROM reservations") == "released"


async def test_a_rejected_order_has_nothing_to_give_back(bus: Bus) -> None:
    await bus.deliver(PLACED, "o1", order(("A", 101)))
    await bus.published()
    await bus.deliver(CANCELLED, "o1", {})
    assert await bus.published() == []
    assert await bus.count("SELECT status FROM reservations") == "rejected"


async def test_an_order_cancelled_before_it_was_placed_takes_nothing(bus: Bus) -> None:
    await bus.deliver(CANCELLED, "o1", {})
    await bus.deliver(PLACED, "o1", order(("A", 6)))
    await bus.deliver(CANCELLED, "o1", {})
    assert await bus.published() == []
    assert await bus.count("SELECT count(*) FROM movements") == 0


async def test_a_refunded_return_is_stock_again_once(bus: Bus) -> None:
    await bus.deliver(REFUNDED, "r1", order(("A", 1), ("NEW", 2)))
    await bus.deliver(REFUNDED, "r1", order(("A", 1), ("NEW", 2)))
    assert [await available(bus, sku) for sku in ("A", "NEW")] == [101, 102]
    assert await bus.published() == []


async def test_unknown_fields_of_others_are_ignored(bus: Bus) -> None:
    await bus.deliver(PLACED, "o1", order(("A", 6)) | {"order_id": "o1", "total": "1.00", "added_later": [1]})
    assert await available(bus, "A") == 94


async def test_stock_that_was_brought_in_can_be_sold(bus: Bus) -> None:
    empty = Bus(bus.database, subscriptions(opening_stock=0))
    await empty.deliver(REFUNDED, "r1", order(("A", 10)))
    await empty.deliver(PLACED, "o1", order(("A", 10)))
    assert [topic for topic, _, _ in await empty.published()] == [RESERVED]
    assert await available(bus, "A") == 0
