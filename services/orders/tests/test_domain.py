"""The rules: transitions, prices, limits, identity."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from atoll_orders import domain
from atoll_orders.domain import Fact, InvalidError, Invoice, Kind, Line, Status, money, status_after, unit_price

ORDER = Invoice(
    kind=Kind.ORDER,
    owner="shop",
    invoice="536365",
    customer="17850",
    country="United Kingdom",
    placed_at=datetime(2010, 12, 1, 8, 26, tzinfo=UTC),
    lines=(Line(1, "85123A", "HOLDER", 6, 25_500), Line(2, "71053", None, 6, 33_900)),
)

WHERE_EACH_FACT_LEADS = {
    (Status.PLACED, Fact.STOCK_REJECTED): Status.CANCELLED,
    (Status.PLACED, Fact.PAYMENT_CAPTURED): Status.CONFIRMED,
    (Status.PLACED, Fact.PAYMENT_DECLINED): Status.CANCELLED,
    (Status.PLACED, Fact.DEADLINE): Status.CANCELLED,
    (Status.PLACED, Fact.RETURN_REFUNDED): None,
    (Status.CONFIRMED, Fact.STOCK_REJECTED): None,
    (Status.CONFIRMED, Fact.PAYMENT_CAPTURED): None,
    (Status.CONFIRMED, Fact.PAYMENT_DECLINED): None,
    (Status.CONFIRMED, Fact.DEADLINE): None,
    (Status.CONFIRMED, Fact.RETURN_REFUNDED): None,
    (Status.CANCELLED, Fact.STOCK_REJECTED): None,
    (Status.CANCELLED, Fact.PAYMENT_CAPTURED): None,
    (Status.CANCELLED, Fact.PAYMENT_DECLINED): None,
    (Status.CANCELLED, Fact.DEADLINE): None,
    (Status.CANCELLED, Fact.RETURN_REFUNDED): None,
    (Status.RECEIVED, Fact.STOCK_REJECTED): None,
    (Status.RECEIVED, Fact.PAYMENT_CAPTURED): None,
    (Status.RECEIVED, Fact.PAYMENT_DECLINED): None,
    (Status.RECEIVED, Fact.DEADLINE): None,
    (Status.RECEIVED, Fact.RETURN_REFUNDED): Status.REFUNDED,
    (Status.REFUNDED, Fact.STOCK_REJECTED): None,
    (Status.REFUNDED, Fact.PAYMENT_CAPTURED): None,
    (Status.REFUNDED, Fact.PAYMENT_DECLINED): None,
    (Status.REFUNDED, Fact.DEADLINE): None,
    (Status.REFUNDED, Fact.RETURN_REFUNDED): None,
}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("fact", Fact)
def test_every_fact_leads_where_the_table_says(status: Status, fact: Fact) -> None:
    assert status_after(status, fact) == WHERE_EACH_FACT_LEADS[status, fact]


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("2.55", 25_500),
        ("0", 0),
        ("-0", 0),
        ("0.0001", 1),
        ("607.49", 6_074_900),
        ("1e2", 1_000_000),
        ("25.5E-1", 25_500),
        ("0e999", 0),
        ("1.10", 11_000),
        ("1000000000", 10**13),
        ("999999999.9999", 9_999_999_999_999),
    ],
)
def test_a_price_is_read_exactly(text: str, amount: int) -> None:
    assert unit_price("unit_price", text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "1 ", " 1", "1\n", "NaN", "Infinity", "-Infinity", "1e400", "1e999", "9" * 40, "1_000", "1,5", "0x1",
        "+1", "-0.01", "0.00001", "1.00000", "1e-5", ".5", "5.", "1e", "null", "true", "[1]", "{}", "١",
        "1000000000.0001",
    ],
)  # fmt: skip
def test_what_is_no_price_is_refused_with_its_field(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        unit_price("lines[3].unit_price", text)
    assert caught.value.field == "lines[3].unit_price"


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0.00"), (1, "0.0001"), (25_500, "2.55"), (25_000, "2.50"), (1_234_567, "123.4567")]
)
def test_money_has_two_to_four_places(amount: int, text: str) -> None:
    assert money(amount) == text


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("invoice", {"invoice": ""}),
        ("invoice", {"invoice": "  "}),
        ("invoice", {"invoice": "x" * 65}),
        ("invoice", {"invoice": "a\nb"}),
        ("customer", {"customer": "x" * 65}),
        ("customer", {"customer": "a\r\nBcc: b"}),
        ("country", {"country": ""}),
        ("country", {"country": "x" * 65}),
        ("lines", {"lines": ()}),
        ("lines", {"lines": ORDER.lines * 5_001}),
        ("lines", {"lines": (Line(1, "A", None, domain.QUANTITY_MAX, domain.UNIT_PRICE_MAX),)}),
    ],
)
def test_a_broken_rule_names_its_field(field: str, changed: dict[str, object]) -> None:
    with pytest.raises(InvalidError) as caught:
        domain.check_invoice(replace(ORDER, **changed))  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("lines[1].sku", Line(2, "", None, 1, 0)),
        ("lines[1].sku", Line(2, "-A", None, 1, 0)),
        ("lines[1].sku", Line(2, "A\n", None, 1, 0)),
        ("lines[1].sku", Line(2, "A" * 33, None, 1, 0)),
        ("lines[1].sku", Line(2, "Ä", None, 1, 0)),
        ("lines[1].quantity", Line(2, "A", None, 0, 0)),
        ("lines[1].quantity", Line(2, "A", None, -1, 0)),
        ("lines[1].quantity", Line(2, "A", None, 1_000_001, 0)),
        ("lines[1].description", Line(2, "A", "x" * 257, 1, 0)),
    ],
)
def test_a_broken_line_names_its_field(field: str, line: Line) -> None:
    with pytest.raises(InvalidError) as caught:
        domain.check_invoice(replace(ORDER, lines=(ORDER.lines[0], line)))
    assert caught.value.field == field


def test_what_keeps_the_rules_is_taken() -> None:
    for changed in (
        {},
        {"customer": None},
        {"customer": ""},
        {"lines": (Line(1, "BANK CHARGES", "", 1, 0), Line(2, "a.b_c-d", "x" * 256, 1_000_000, 10**13 // 100))},
    ):
        domain.check_invoice(replace(ORDER, **changed))


def test_total_and_units_are_sums_over_the_lines() -> None:
    assert (money(ORDER.total), ORDER.units) == ("35.64", 12)


def test_the_id_is_that_of_the_invoice_of_its_owner() -> None:
    assert replace(ORDER, country="France").id == ORDER.id
    others = {replace(ORDER, owner="other").id, replace(ORDER, invoice="1").id, replace(ORDER, kind=Kind.RETURN).id}
    assert len(others | {ORDER.id}) == 4


def test_the_id_never_changes_between_releases() -> None:
    assert ORDER.id == "73a3a7a1-b0a8-5581-87da-e8f798a6de75"


def test_a_moment_that_utc_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidError):
        domain.utc("placed_at", datetime.fromisoformat("0001-01-01T00:00:00+01:00"))
