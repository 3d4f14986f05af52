"""The arithmetic: what a document adds to which row."""

from datetime import datetime

import pytest

from atoll_sales import domain
from atoll_sales.domain import Dimension, Document, Figures, Kind, Line

LINES = (Line("A", 6, 25_500), Line("B", 1, 1), Line("A", 2, 0))


def document(kind: Kind, placed_at: str = "2010-12-01T08:26:00+00:00") -> Document:
    return Document(kind, "d1", "France", datetime.fromisoformat(placed_at), LINES)


def test_an_order_adds_to_each_row_once() -> None:
    assert list(document(Kind.ORDER).shares()) == [
        (Dimension.ALL, "", Figures(1, 9, 153_001)),
        (Dimension.COUNTRY, "France", Figures(1, 9, 153_001)),
        (Dimension.DAY, "2010-12-01", Figures(1, 9, 153_001)),
        (Dimension.SKU, "A", Figures(1, 8, 153_000)),
        (Dimension.SKU, "B", Figures(1, 1, 1)),
    ]


def test_a_return_takes_away_units_and_revenue_and_is_no_order() -> None:
    assert {share for _, key, share in document(Kind.RETURN).shares() if key != "A" and key != "B"} == {
        Figures(0, -9, -153_001)
    }


@pytest.mark.parametrize(
    ("placed_at", "day"),
    [
        ("2010-12-01T00:30:00+01:00", "2010-11-30"),
        ("2010-12-01T23:30:00-01:00", "2010-12-02"),
        ("2010-12-01T23:59:59.999999+00:00", "2010-12-01"),
    ],
)
def test_a_day_is_the_utc_date(placed_at: str, day: str) -> None:
    assert document(Kind.ORDER, placed_at).day == day


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0.00"), (1_048_428_400, "104842.84"), (-1, "-0.0001"), (-275_000, "-27.50"), (10**30, f"{10**26}.00")],
)
def test_money_has_two_to_four_places_and_a_sign(amount: int, text: str) -> None:
    assert domain.money(amount) == text


@pytest.mark.parametrize("text", ["", "-1", "1.00001", "1e2", "NaN", "1\n"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a decimal"):
        domain.amount_of(text)
