"""The real shop's invoices, through everything, in peace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

import invoices
from fleet import Fleet, fleet
from history import assert_books_balance
from measured import say


@pytest.fixture(scope="module")
def sold(real_orders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A system that the real file has crossed once."""
    with fleet(tmp_path_factory.mktemp("demo") / "state") as running:
        ran = running.atoll("demo", str(real_orders), seconds=300)
        print(ran.output[-1500:])
        say(f"demo of 310 invoices: {ran.seconds:.1f} s")
        yield running


def test_the_sums_are_the_files_to_the_penny(sold: Fleet) -> None:
    sold.wait_settled()
    for pause in (0, 5):
        time.sleep(pause)  # read again 5 s later: nothing may still be on its way
        total = sold.call("GET", "/sales?by=country").body["total"]
        assert Decimal(total["revenue"]) == invoices.REAL_REVENUE
        assert total["units"] == invoices.REAL_UNITS
        assert total["orders"] == invoices.REAL_ORDERS


def test_the_days_are_the_files(sold: Fleet) -> None:
    rows = sold.call("GET", "/sales?by=day").body["rows"]
    assert {row["key"]: Decimal(row["revenue"]) for row in rows} == invoices.REAL_REVENUE_BY_DAY


@pytest.mark.parametrize("by", ["country", "day", "sku"])
def test_every_row_is_the_files(sold: Fleet, real_orders: Path, by: str) -> None:
    expected = invoices.read(real_orders).sums(by)
    rows = sold.call("GET", f"/sales?by={by}").body["rows"]
    found = {row["key"]: (row["orders"], row["units"], Decimal(row["revenue"])) for row in rows}
    wanted = {key: (len(sums.orders), sums.units, sums.revenue) for key, sums in expected.items()}
    assert found == wanted


def test_every_effect_happened_once(sold: Fleet, real_orders: Path) -> None:
    assert_books_balance(sold, invoices.read(real_orders))


def test_the_same_file_again_changes_nothing(sold: Fleet, real_orders: Path) -> None:
    before = sold.call("GET", "/sales?by=sku").body
    stock = sold.call("GET", "/stock/85123A").body
    sold.atoll("demo", str(real_orders), seconds=300)
    sold.wait_settled()
    assert sold.call("GET", "/sales?by=sku").body == before
    assert sold.call("GET", "/stock/85123A").body == stock


def test_the_fleet_is_small(sold: Fleet) -> None:
    megabytes = sold.pss_bytes() / 2**20
    say(f"Σ PSS of the fleet after the demo: {megabytes:.0f} MiB in {len(sold.processes())} processes")
    assert megabytes < 1024
