"""What becomes of orders and returns: every way through the saga, and every event that comes late or twice."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from support import Bus

import atoll
from atoll_orders import deadline, routes, store
from atoll_orders.domain import Invoice, Kind, Line, Status

ORDER = Invoice(
    kind=Kind.ORDER,
    owner="shop",
    invoice="536365",
    customer="17850",
    country="United Kingdom",
    placed_at=datetime(2010, 12, 1, 8, 26, tzinfo=UTC),
    lines=(Line(1, "85123A", "HOLDER", 6, 25_500), Line(2, "71053", None, 6, 33_900)),
)
RETURN = replace(ORDER, kind=Kind.RETURN, invoice="C536379", customer=None)

CAPTURED = ("payments.payment.captured.v1", {"order_id": ORDER.id, "payment_id": "p", "amount": "35.64"})
DECLINED = ("payments.payment.declined.v1", {"order_id": ORDER.id, "amount": "35.64", "reason": "above the limit"})
REJECTED = ("inventory.stock.rejected.v1", {"order_id": ORDER.id, "sku": "71053", "wanted": 6, "available": 2})
REFUNDED = ("payments.payment.refunded.v1", {"reference": "", "refund_id": "r", "amount": "35.64", "reason": "return"})

CONFIRMED_V1, CANCELLED_V1 = "orders.order.confirmed.v1", "orders.order.cancelled.v1"


async def accept(bus: Bus, invoice: Invoice, deadline_seconds: float = 300) -> None:
    await bus.database.write(lambda tx: routes.record(tx, invoice, deadline_seconds))


async def standing(bus: Bus, invoice: Invoice) -> store.Stored:
    stored = await bus.database.read(lambda reader: store.find(reader, invoice.kind, invoice.id))
    assert stored is not None
    return stored


async def test_an_accepted_order_is_stored_whole_and_told_of(bus: Bus) -> None:
    await accept(bus, ORDER)
    assert await standing(bus, ORDER) == store.Stored(ORDER, Status.PLACED, None, None)
    [(topic, subject, data)] = await bus.published()
    assert (topic, subject) == ("orders.order.placed.v1", ORDER.id)
    assert data == {
        "order_id": ORDER.id,
        "invoice": "536365",
        "customer": "17850",
        "country": "United Kingdom",
        "placed_at": "2010-12-01T08:26:00Z",
        "total": "35.64",
        "lines": [
            {"line": 1, "sku": "85123A", "description": "HOLDER", "quantity": 6, "unit_price": "2.55"},
            {"line": 2, "sku": "71053", "description": None, "quantity": 6, "unit_price": "3.39"},
        ],
    }


async def test_a_captured_order_is_confirmed(bus: Bus) -> None:
    await accept(bus, ORDER)
    placed = (await bus.published())[0][2]
    await bus.deliver(CAPTURED[0], ORDER.id, CAPTURED[1])
    assert (await standing(bus, ORDER)).status is Status.CONFIRMED
    assert await bus.published() == [(CONFIRMED_V1, ORDER.id, placed | {"units": 12})]


@pytest.mark.parametrize(
    ("event", "reason", "detail"),
    [
        (REJECTED, "stock_rejected", "71053: 6 wanted, 2 available"),
        (DECLINED, "payment_declined", "above the limit"),
    ],
)
async def test_an_order_that_cannot_be_met_is_cancelled_with_its_reason(
    bus: Bus, event: tuple[str, dict[str, object]], reason: str, detail: str
) -> None:
    await accept(bus, ORDER)
    await bus.published()
    await bus.deliver(event[0], ORDER.id, event[1])
    assert await standing(bus, ORDER) == store.Stored(ORDER, Status.CANCELLED, reason, detail)
    [(topic, subject, data)] = await bus.published()
    assert (topic, subject, data["reason"], data["detail"]) == (CANCELLED_V1, ORDER.id, reason, detail)


@pytest.mark.parametrize("first", [CAPTURED, DECLINED, REJECTED])
@pytest.mark.parametrize("second", [CAPTURED, DECLINED, REJECTED])
async def test_an_order_ends_once_whatever_comes_after(
    bus: Bus, first: tuple[str, dict[str, object]], second: tuple[str, dict[str, object]]
) -> None:
    await accept(bus, ORDER)
    await bus.deliver(first[0], ORDER.id, first[1])
    ended = await standing(bus, ORDER)
    await bus.published()
    await bus.deliver(second[0], ORDER.id, second[1])
    assert await standing(bus, ORDER) == ended
    assert await bus.published() == []


async def test_a_hanging_order_is_cancelled_at_its_deadline_and_not_before(bus: Bus) -> None:
    await accept(bus, ORDER, deadline_seconds=60)
    await bus.published()
    at_ms = await bus.count("SELECT deadline_ms FROM orders")
    assert await deadline.cancel_overdue(bus.database, at_ms - 1) == 0
    assert await deadline.cancel_overdue(bus.database, at_ms) == 1
    assert await deadline.cancel_overdue(bus.database, at_ms) == 0
    [(topic, _, data)] = await bus.published()
    assert (topic, data["reason"]) == (CANCELLED_V1, "deadline")


@pytest.mark.parametrize("late", [CAPTURED, DECLINED, REJECTED])
async def test_what_comes_after_the_deadline_changes_nothing(bus: Bus, late: tuple[str, dict[str, object]]) -> None:
    await accept(bus, ORDER, deadline_seconds=60)
    await deadline.cancel_overdue(bus.database, deadline.now_ms() + 61_000)
    await bus.published()
    await bus.deliver(late[0], ORDER.id, late[1])
    assert (await standing(bus, ORDER)).reason == "deadline"
    assert await bus.published() == []


async def test_an_order_that_ended_has_no_deadline_any_more(bus: Bus) -> None:
    await accept(bus, ORDER)
    await bus.deliver(CAPTURED[0], ORDER.id, CAPTURED[1])
    assert await deadline.cancel_overdue(bus.database, deadline.now_ms() + 10**9) == 0
    assert (await standing(bus, ORDER)).status is Status.CONFIRMED


async def test_more_overdue_orders_than_one_batch_are_all_cancelled(bus: Bus) -> None:
    for number in range(deadline.BATCH_MAX + 5):
        await accept(bus, replace(ORDER, invoice=f"{number}"))
    later = deadline.now_ms() + 10**9
    assert await deadline.cancel_overdue(bus.database, later) == deadline.BATCH_MAX
    assert await deadline.cancel_overdue(bus.database, later) == 5


async def test_a_return_is_refunded_once(bus: Bus) -> None:
    await accept(bus, RETURN)
    [(topic, subject, received)] = await bus.published()
    assert (topic, subject) == ("orders.return.received.v1", RETURN.id)
    await bus.deliver(REFUNDED[0], RETURN.id, REFUNDED[1])
    assert (await standing(bus, RETURN)).status is Status.REFUNDED
    assert await bus.published() == [("orders.return.refunded.v1", RETURN.id, received | {"units": 12})]
    await bus.deliver(REFUNDED[0], RETURN.id, REFUNDED[1])
    assert await bus.published() == []


async def test_the_refund_of_a_cancelled_order_is_no_return(bus: Bus) -> None:
    await accept(bus, ORDER)
    await bus.deliver(DECLINED[0], ORDER.id, DECLINED[1])
    await bus.published()
    await bus.deliver(REFUNDED[0], ORDER.id, REFUNDED[1] | {"reason": "order_cancelled"})
    assert await bus.published() == []


@pytest.mark.parametrize("event", [CAPTURED, DECLINED, REJECTED, REFUNDED])
async def test_an_event_about_nothing_that_is_known_is_rejected(bus: Bus, event: tuple[str, dict[str, object]]) -> None:
    with pytest.raises(atoll.Reject):
        await bus.deliver(event[0], "unknown", event[1])
    assert await bus.published() == []


async def test_a_capture_of_another_amount_is_rejected(bus: Bus) -> None:
    await accept(bus, ORDER)
    with pytest.raises(atoll.Reject, match=r"35\.64"):
        await bus.deliver(CAPTURED[0], ORDER.id, CAPTURED[1] | {"amount": "35.63"})
    assert (await standing(bus, ORDER)).status is Status.PLACED
