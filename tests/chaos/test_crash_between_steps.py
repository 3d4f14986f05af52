"""A crash between any two steps of the saga: every passing of every crash point of every service, one after another.

For each service and kind of point the process dies at the first passing, then (in another order) at the second, and so
on, until an order goes through without reaching the n-th: then there are no more. Each order must still end as it
should, with each effect once. See planted/crash_points for where the points lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest

from fleet import Fleet, fleet, write_mesh
from history import captured, refunded
from mail import mails, undelivered
from measured import say
from polling import poll_until
from topology import SDK_SERVICES, SERVICES
from witness import assert_witness_has_all, assert_witness_is_complete

PLANTED = Path(__file__).parent / "planted" / "crash_points"
POINTS = ("before_commit", "after_commit", "after_ack", "before_publish", "after_publish")
PATHS = ("confirmed", "cancelled")
#: Of notifications alone: between a mail's commit, its file, and the note of it.
MAIL_POINTS = ("before_file", "after_file")
#: Of the witness, which has no SDK to plant them in, and treats all events alike.
JOURNAL_POINTS = ("before_commit", "after_commit", "after_ack")
CASES = [(service, point, path) for path in PATHS for service in SDK_SERVICES for point in POINTS]
CASES += [("notifications", point, path) for path in PATHS for point in MAIL_POINTS]
CASES += [("journal", point, "confirmed") for point in JOURNAL_POINTS]
OPENING_STOCK = 100
DECLINE_ABOVE = 100
#: More passings than one order has: reaching it means that the loop does not end by itself.
PASSINGS_MAX = 30


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Path]]:
    """A system whose services carry crash points, and the folder that arms them."""
    folder = tmp_path_factory.mktemp("mined")
    armed = folder / "armed"
    armed.mkdir()
    planted = {"PYTHONPATH": str(PLANTED), "PLANTED_CRASH": str(armed)}
    settings = {name: dict(planted) for name in SERVICES}
    settings["inventory"]["INVENTORY_OPENING_STOCK"] = str(OPENING_STOCK)
    settings["payments"]["PAYMENTS_DECLINE_ABOVE"] = str(DECLINE_ABOVE)
    mesh = write_mesh(folder / "mesh.toml", settings=settings, changes={"lease_seconds = 30": "lease_seconds = 2"})
    with fleet(folder / "state", mesh) as shop:
        yield shop, armed


@pytest.mark.parametrize(("service", "point", "path"), CASES, ids=str)
def test_an_order_ends_well_wherever_a_service_crashes(
    mined: tuple[Fleet, Path], service: str, point: str, path: str
) -> None:
    shop, armed = mined
    for number in range(1, PASSINGS_MAX):
        file = armed / service
        file.write_text(f"{point} {number}")
        sku = f"S-{uuid4().hex[:12]}"
        _order_ends_well(shop, sku, path)
        with suppress(AssertionError):  # a passing may be on its way: its ack is out, its death is not
            poll_until("the n-th passing", file.exists, lambda there: not there, seconds=0.5)
        if file.exists():  # the order went through without a n-th passing
            file.unlink()
            say(f"{service} {point} ({path}): {number - 1} crash points")
            # Sales publishes nothing, and hears nothing of an order that is cancelled; notifications publishes nothing.
            silent = service in ("sales", "notifications") and "publish" in point
            idle = silent or (service == "sales" and path == "cancelled")
            assert idle == (number == 1), "a point that nothing passes tests nothing"
            assert_witness_is_complete(shop, seconds=20)
            return
        _wait_back(shop, service)
    raise AssertionError(f"{service} passes {point} without end")


def _wait_back(shop: Fleet, service: str) -> None:
    """Wait for the service, and have the agent forget the deaths that this test arranged: it takes them for a crash
    loop, and after eight of them it would wait longer than the next order may take. `start` does both.
    """
    shop.atoll("start", service)
    poll_until(
        f"{service} to be back",
        lambda: str(shop.seen()[service]["state"]),
        lambda found: found in ("running", "degraded"),
        seconds=20,
    )


def _order_ends_well(shop: Fleet, sku: str, path: str) -> None:
    """Place an order (again and again, as a client would) and check its end and its effects."""
    price = Decimal(10) if path == "confirmed" else Decimal(DECLINE_ABOVE + 1)
    invoice = f"crash-{uuid4()}"
    order_id = poll_until(
        "the order to be accepted", lambda: shop.place(invoice, sku=sku, quantity=3, price=str(price)), seconds=20
    )
    shop.wait_order(order_id, path, seconds=30)
    shop.wait_settled(30)
    left = poll_until("stock to answer", lambda: shop.call("GET", f"/stock/{sku}").body["available"], seconds=10)
    assert not [name for name in shop.lags() if "dead" in name]
    assert refunded(shop, order_id) == []
    if path == "confirmed":
        assert captured(shop, order_id) == [3 * price]
        assert left == OPENING_STOCK - 3
    else:
        assert captured(shop, order_id) == []
        assert left == OPENING_STOCK
    with shop.database("sales") as database:
        counted = database.execute("SELECT count(*) FROM documents WHERE id = ?", (order_id,)).fetchone()[0]
    assert counted == (1 if path == "confirmed" else 0)
    poll_until("its mail to be delivered", lambda: undelivered(shop), lambda undone: undone == 0, seconds=20)
    assert len(mails(shop)[order_id]) == 1
    assert_witness_has_all(shop, seconds=20)
