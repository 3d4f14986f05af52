"""The demo's mapping: from a file in UCI Online Retail format to requests and sums."""

from __future__ import annotations

from decimal import Decimal
from importlib import resources
from pathlib import Path

import pytest

from atoll_ops.demo import mapping
from atoll_ops.errors import OperationError

HEAD = ",".join(mapping.COLUMNS)
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "online-retail-2010-12-01.csv"


def _parse(*lines: str) -> list[mapping.Invoice]:
    return mapping.parse("\n".join((HEAD, *lines)) + "\n", "file.csv")


def test_the_sample_has_one_of_everything() -> None:
    invoices = mapping.read(Path(str(resources.files("atoll_ops") / "sample.csv")))
    assert mapping.expected(invoices) == mapping.Expected(10, 2, 1, 343, Decimal("1233.4200"))
    assert any(line.unit_price == 0 for invoice in invoices for line in invoice.lines)


def test_the_real_day_adds_up() -> None:
    """279 orders, 29 returns, 2 write-offs of 1 December 2010; holds where that file lies beside the repository."""
    if REAL.exists():
        assert mapping.expected(mapping.read(REAL)) == mapping.Expected(279, 29, 2, 47885, Decimal("104842.84"))


def test_an_order_is_sent_as_it_stands() -> None:
    (order,) = _parse(
        "7,85123A, LANTERN ,6,2010-12-01T08:26:00Z,2.55,17850,United Kingdom",
        "7,85123A,,2,2010-12-02T00:00:00Z,2.5500,99,France",
    )
    assert order.path == "/orders"
    assert order.body == {
        "invoice": "7",
        "customer": "17850",
        "country": "United Kingdom",
        "placed_at": "2010-12-01T08:26:00Z",
        "lines": [
            {"sku": "85123A", "description": "LANTERN", "quantity": 6, "unit_price": "2.55"},
            {"sku": "85123A", "description": None, "quantity": 2, "unit_price": "2.5500"},
        ],
    }


def test_a_return_is_sent_with_positive_quantities_and_counted_off() -> None:
    invoices = _parse("C8,A,x,-3,2010-12-01T08:26:00Z,1.10,,France")
    assert invoices[0].path == "/returns"
    assert invoices[0].body["lines"][0]["quantity"] == 3
    assert invoices[0].body["customer"] is None
    assert mapping.expected(invoices) == mapping.Expected(0, 1, 0, -3, Decimal("-3.30"))


def test_a_write_off_adjusts_stock_and_sells_nothing() -> None:
    invoices = _parse("9,A,,-10,2010-12-01T08:26:00Z,0,,UK", "9,B,damaged,4,2010-12-01T08:26:00Z,0,,UK")
    assert invoices[0].path == "/stock/adjustments"
    assert invoices[0].body == {
        "reference": "9",
        "lines": [
            {"sku": "A", "quantity": -10, "reason": "write-off"},
            {"sku": "B", "quantity": 4, "reason": "damaged"},
        ],
    }
    assert mapping.expected(invoices) == mapping.Expected(0, 0, 1, 0, Decimal(0))


def test_lines_of_an_invoice_need_not_be_neighbours() -> None:
    invoices = _parse(*(f"{number},A,,1,2010-12-01T08:26:00Z,1,,UK" for number in (1, 2, 1)))
    assert [(one.number, len(one.lines)) for one in invoices] == [("1", 2), ("2", 1)]


@pytest.mark.parametrize("date", ["12/1/2010 8:26", "12/1/10 8:26", "2010-12-01T08:26:00Z", "2010-12-01 08:26:00"])
def test_both_ways_to_write_a_date_are_read(date: str) -> None:
    (order,) = _parse(f"1,A,,1,{date},1,17850.0,UK")
    assert order.body["placed_at"] == "2010-12-01T08:26:00Z"
    assert order.customer == "17850"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,A,,many,2010-12-01T08:26:00Z,1,,UK", "file.csv: line 2: Quantity"),
        ("1,A,,1,2010-12-01T08:26:00Z,dear,,UK", "file.csv: line 2: UnitPrice"),
        ("1,A,,1,yesterday,1,,UK", "file.csv: line 2: InvoiceDate"),
        (",A,,1,2010-12-01T08:26:00Z,1,,UK", "file.csv: line 2: InvoiceNo"),
        ("C1,A,,1,2010-12-01T08:26:00Z,1,,UK", "C1 is a return with a positive quantity"),
    ],
)
def test_a_bad_line_is_named(line: str, said: str) -> None:
    with pytest.raises(OperationError, match=said):
        _parse(line)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(OperationError, match="no column Country"):
        mapping.parse(HEAD.removesuffix(",Country") + "\n", "file.csv")


def test_the_original_code_page_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(f"{HEAD}\n1,A,£1 CAFÉ,1,12/1/2010 8:26,1,,UK\n".encode("cp1252"))
    assert mapping.read(path)[0].lines[0].description == "£1 CAFÉ"
