"""The rules: what becomes of an order, who is short, what an adjustment may say."""

import pytest

from atoll_inventory import domain
from atoll_inventory.domain import (
    Fact,
    InvalidError,
    Line,
    Shortage,
    Status,
    first_overdraft,
    first_shortage,
    status_after,
)

WHERE_EACH_FACT_LEADS = {
    (None, Fact.PLACED_COVERED): Status.RESERVED,
    (None, Fact.PLACED_SHORT): Status.REJECTED,
    (None, Fact.CANCELLED): Status.VOID,
    (Status.RESERVED, Fact.PLACED_COVERED): None,
    (Status.RESERVED, Fact.PLACED_SHORT): None,
    (Status.RESERVED, Fact.CANCELLED): Status.RELEASED,
    (Status.REJECTED, Fact.PLACED_COVERED): None,
    (Status.REJECTED, Fact.PLACED_SHORT): None,
    (Status.REJECTED, Fact.CANCELLED): None,
    (Status.RELEASED, Fact.PLACED_COVERED): None,
    (Status.RELEASED, Fact.PLACED_SHORT): None,
    (Status.RELEASED, Fact.CANCELLED): None,
    (Status.VOID, Fact.PLACED_COVERED): None,
    (Status.VOID, Fact.PLACED_SHORT): None,
    (Status.VOID, Fact.CANCELLED): None,
}


@pytest.mark.parametrize("status", [None, *Status])
@pytest.mark.parametrize("fact", Fact)
def test_every_fact_leads_where_the_table_says(status: Status | None, fact: Fact) -> None:
    assert status_after(status, fact) == WHERE_EACH_FACT_LEADS[status, fact]


def lines(*wanted: tuple[str, int]) -> list[Line]:
    return [Line(number, sku, quantity) for number, (sku, quantity) in enumerate(wanted, start=1)]


@pytest.mark.parametrize(
    ("wanted", "short"),
    [
        (lines(("A", 5)), None),
        (lines(("A", 6)), Shortage("A", 6, 5)),
        (lines(("A", 5), ("B", 1)), Shortage("B", 1, 0)),
        (lines(("A", 3), ("A", 2)), None),
        (lines(("A", 3), ("A", 3)), Shortage("A", 6, 5)),
        (lines(("A", 3), ("B", 1), ("A", 3)), Shortage("A", 6, 5)),
    ],
)
def test_lines_of_one_sku_want_it_together(wanted: list[Line], short: Shortage | None) -> None:
    assert first_shortage(wanted, {"A": 5, "B": 0}) == short


@pytest.mark.parametrize(
    ("adjusted", "line"),
    [
        (lines(("A", -5)), None),
        (lines(("A", -6)), 1),
        (lines(("A", -5), ("A", -1)), 2),
        (lines(("A", 1), ("A", -6)), None),
        (lines(("A", -6), ("A", 1)), 1),
    ],
)
def test_lines_of_an_adjustment_are_applied_one_after_the_other(adjusted: list[Line], line: int | None) -> None:
    over = first_overdraft(adjusted, {"A": 5})
    assert (over and over.line) == line


@pytest.mark.parametrize(
    ("field", "reference", "line"),
    [
        ("reference", "", Line(1, "A", 1, "count")),
        ("reference", "x" * 65, Line(1, "A", 1, "count")),
        ("reference", "a\tb", Line(1, "A", 1, "count")),
        ("lines[0].sku", "r", Line(1, "A\n", 1, "count")),
        ("lines[0].quantity", "r", Line(1, "A", 0, "count")),
        ("lines[0].quantity", "r", Line(1, "A", 10**9 + 1, "count")),
        ("lines[0].quantity", "r", Line(1, "A", -(10**30), "count")),
        ("lines[0].reason", "r", Line(1, "A", 1, " ")),
        ("lines[0].reason", "r", Line(1, "A", 1, "x" * 121)),
    ],
)
def test_a_broken_rule_names_its_field(field: str, reference: str, line: Line) -> None:
    with pytest.raises(InvalidError) as caught:
        domain.check_adjustment(reference, [line])
    assert caught.value.field == field


def test_an_adjustment_has_at_least_a_line() -> None:
    with pytest.raises(InvalidError) as caught:
        domain.check_adjustment("r", [])
    assert caught.value.field == "lines"
