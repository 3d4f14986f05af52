"""What is counted, and that it is counted once."""

from typing import Any

import pytest
from support import Bus

import atoll
from atoll_sales import messages, routes
from atoll_sales.domain import Dimension

CONFIRMED, REFUNDED = "orders.order.confirmed.v1", "orders.return.refunded.v1"


def sold(*lines: tuple[str, int, str], country: str = "France", day: str = "2010-12-01") -> dict[str, Any]:
    return {
        "country": country,
        "placed_at": f"{day}T08:26:00Z",
        "lines": [{"sku": sku, "quantity": quantity, "unit_price": price} for sku, quantity, price in lines],
    }


async def rows(bus: Bus, dimension: Dimension) -> dict[str, tuple[int, int, str]]:
    report = await bus.database.read(lambda reader: routes.report(reader, dimension))
    return {row.key: (row.orders, row.units, row.revenue) for row in report.rows}


async def total(bus: Bus) -> messages.Total:
    return (await bus.database.read(lambda reader: routes.report(reader, Dimension.DAY))).total


async def test_before_the_first_order_all_is_nothing(bus: Bus) -> None:
    assert await total(bus) == messages.Total(orders=0, units=0, revenue="0.00")
    assert await rows(bus, Dimension.SKU) == {}


async def test_orders_less_returns_by_country_day_and_sku(bus: Bus) -> None:
    await bus.deliver(CONFIRMED, "o1", sold(("A", 6, "2.55"), ("B", 1, "0.00"), ("A", 1, "2.55")))
    await bus.deliver(CONFIRMED, "o2", sold(("A", 10, "0.0001"), country="EIRE", day="2010-12-02"))
    await bus.deliver(REFUNDED, "r1", sold(("B", 3, "27.50"), country="EIRE", day="2010-12-01"))
    assert await rows(bus, Dimension.COUNTRY) == {"EIRE": (1, 7, "-82.499"), "France": (1, 8, "17.85")}
    assert await rows(bus, Dimension.DAY) == {"2010-12-01": (1, 5, "-64.65"), "2010-12-02": (1, 10, "0.001")}
    assert await rows(bus, Dimension.SKU) == {"A": (2, 17, "17.851"), "B": (1, -2, "-82.50")}
    assert await total(bus) == messages.Total(orders=2, units=15, revenue="-64.649")


async def test_rows_are_sorted_by_key(bus: Bus) -> None:
    await bus.deliver(CONFIRMED, "o1", sold(("b", 1, "1.00"), ("A", 1, "1.00"), ("10", 1, "1.00")))
    assert list(await rows(bus, Dimension.SKU)) == ["10", "A", "b"]


async def test_a_document_that_comes_again_is_counted_once_and_loudly(bus: Bus) -> None:
    await bus.deliver(CONFIRMED, "o1", sold(("A", 6, "2.55")))
    await bus.deliver(REFUNDED, "r1", sold(("A", 1, "2.55")))
    for topic, subject in ((CONFIRMED, "o1"), (REFUNDED, "r1")):
        with pytest.raises(atoll.Reject, match="was counted before"):
            await bus.deliver(topic, subject, sold(("A", 1, "2.55")))
    assert await total(bus) == messages.Total(orders=1, units=5, revenue="12.75")
    assert await bus.count("SELECT count(*) FROM documents") == 2


async def test_sums_beyond_64_bits_stay_exact(bus: Bus) -> None:
    for number in range(10):
        await bus.deliver(CONFIRMED, f"o{number}", sold(("A", 1_000_000, "100000000.00")))
    await bus.deliver(CONFIRMED, "small", sold(("A", 1, "0.0001")))
    assert (await total(bus)).revenue == "1000000000000000.0001"


async def test_a_price_that_is_none_is_rejected_and_nothing_is_counted(bus: Bus) -> None:
    with pytest.raises(atoll.Reject, match="lines"):
        await bus.deliver(CONFIRMED, "o1", sold(("A", 1, "1.00"), ("B", 1, "x")))
    assert (await total(bus)).orders == 0
