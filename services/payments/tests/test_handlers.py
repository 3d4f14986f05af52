"""What orders, cancellations and returns do to the money, in every order that the bus might deliver them in."""

import itertools
from typing import Any

import pytest
from support import Bus

import atoll
from atoll_payments import domain
from atoll_payments.handlers import subscriptions

PLACED, CANCELLED = "orders.order.placed.v1", "orders.order.cancelled.v1"
RESERVED, RETURNED = "inventory.stock.reserved.v1", "orders.return.received.v1"
CAPTURED, DECLINED, REFUNDED = (f"payments.payment.{what}.v1" for what in ("captured", "declined", "refunded"))
DATA: dict[str, dict[str, Any]] = {
    PLACED: {"total": "35.64"},
    CANCELLED: {},
    RESERVED: {},
    RETURNED: {"total": "27.50"},
}


async def deliver(bus: Bus, *topics: str) -> None:
    for topic in topics:
        await bus.deliver(topic, "r1" if topic == RETURNED else "o1", DATA[topic])


def captured(amount: str = "35.64") -> tuple[str, str, dict[str, Any]]:
    return CAPTURED, "o1", {"order_id": "o1", "payment_id": domain.payment_id("o1"), "amount": amount}


def refunded(reference: str, amount: str, reason: str) -> tuple[str, str, dict[str, Any]]:
    refund_id = domain.refund_id(reference)
    data = {"reference": reference, "refund_id": refund_id, "amount": amount, "reason": reason}
    return REFUNDED, reference, data


async def test_an_order_is_captured_when_its_stock_is_reserved(bus: Bus) -> None:
    await deliver(bus, PLACED)
    assert await bus.published() == []
    await deliver(bus, RESERVED)
    assert await bus.published() == [captured()]
    assert await bus.count("SELECT sum(amount) FROM payments") == 356_400


async def test_a_total_of_nothing_is_captured_too(bus: Bus) -> None:
    await bus.deliver(PLACED, "o1", {"total": "0.00"})
    await deliver(bus, RESERVED)
    assert await bus.published() == [captured("0.00")]


async def test_a_captured_order_that_is_cancelled_is_refunded_once(bus: Bus) -> None:
    await deliver(bus, PLACED, RESERVED)
    await bus.published()
    await deliver(bus, CANCELLED, CANCELLED)
    assert await bus.published() == [refunded("o1", "35.64", "order_cancelled")]
    assert await bus.count("SELECT count(*) FROM refunds") == 1


async def test_a_cancelled_order_is_never_captured(bus: Bus) -> None:
    await deliver(bus, PLACED, CANCELLED, RESERVED)
    assert await bus.published() == []
    assert await bus.count("SELECT count(*) FROM payments") == 0


@pytest.mark.parametrize("topics", list(itertools.permutations([PLACED, RESERVED, CANCELLED])))
async def test_in_any_order_a_cancelled_order_costs_nothing(bus: Bus, topics: tuple[str, ...]) -> None:
    await deliver(bus, *topics, *topics)
    taken = await bus.count("SELECT coalesce(sum(amount), 0) FROM payments")
    given_back = await bus.count("SELECT coalesce(sum(amount), 0) FROM refunds")
    assert taken == given_back
    assert await bus.count("SELECT count(*) FROM payments") <= 1


@pytest.mark.parametrize("topics", list(itertools.permutations([PLACED, PLACED, RESERVED, RESERVED])))
async def test_in_any_order_and_twice_an_order_is_captured_once(bus: Bus, topics: tuple[str, ...]) -> None:
    await deliver(bus, *topics)
    assert await bus.published() == [captured()]


async def test_a_return_is_refunded_once(bus: Bus) -> None:
    await deliver(bus, RETURNED, RETURNED)
    assert await bus.published() == [refunded("r1", "27.50", "return")]


async def test_an_amount_that_is_none_is_rejected(bus: Bus) -> None:
    with pytest.raises(atoll.Reject, match="total"):
        await bus.deliver(PLACED, "o1", {"total": "many"})
    assert await bus.count("SELECT count(*) FROM orders") == 0


async def test_what_is_above_the_limit_is_declined_and_not_refunded(bus: Bus) -> None:
    strict = Bus(bus.database, subscriptions(decline_above=356_399))
    await deliver(strict, PLACED, RESERVED, RESERVED)
    reason = "35.64 is above the limit of 35.6399"
    assert await strict.published() == [(DECLINED, "o1", {"order_id": "o1", "amount": "35.64", "reason": reason})]
    await deliver(strict, CANCELLED)
    assert await strict.published() == []
