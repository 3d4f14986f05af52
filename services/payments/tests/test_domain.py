"""The rules: what each fact asks for, who is declined, how money is read."""

import pytest

from atoll_payments import domain
from atoll_payments.domain import Fact, Status, Step, settled, step

WHAT_EACH_FACT_ASKS = {
    (None, Fact.PLACED): Step.REMEMBER,
    (None, Fact.RESERVED): Step.AWAIT,
    (None, Fact.CANCELLED): Step.VOID,
    (Status.DUE, Fact.PLACED): None,
    (Status.DUE, Fact.RESERVED): Step.SETTLE,
    (Status.DUE, Fact.CANCELLED): Step.VOID,
    (Status.AWAITED, Fact.PLACED): Step.SETTLE,
    (Status.AWAITED, Fact.RESERVED): None,
    (Status.AWAITED, Fact.CANCELLED): Step.VOID,
    (Status.CAPTURED, Fact.PLACED): None,
    (Status.CAPTURED, Fact.RESERVED): None,
    (Status.CAPTURED, Fact.CANCELLED): Step.REFUND,
    (Status.DECLINED, Fact.PLACED): None,
    (Status.DECLINED, Fact.RESERVED): None,
    (Status.DECLINED, Fact.CANCELLED): None,
    (Status.VOID, Fact.PLACED): None,
    (Status.VOID, Fact.RESERVED): None,
    (Status.VOID, Fact.CANCELLED): None,
    (Status.REFUNDED, Fact.PLACED): None,
    (Status.REFUNDED, Fact.RESERVED): None,
    (Status.REFUNDED, Fact.CANCELLED): None,
}


@pytest.mark.parametrize("status", [None, *Status])
@pytest.mark.parametrize("fact", Fact)
def test_every_fact_asks_for_what_the_table_says(status: Status | None, fact: Fact) -> None:
    assert step(status, fact) == WHAT_EACH_FACT_ASKS[status, fact]


@pytest.mark.parametrize(
    ("amount", "decline_above", "status"),
    [
        (0, None, Status.CAPTURED),
        (10**18, None, Status.CAPTURED),
        (0, 0, Status.CAPTURED),
        (1, 0, Status.DECLINED),
        (1_000_000, 1_000_000, Status.CAPTURED),
        (1_000_001, 1_000_000, Status.DECLINED),
    ],
)
def test_only_what_is_above_the_limit_is_declined(amount: int, decline_above: int | None, status: Status) -> None:
    assert settled(amount, decline_above) is status


@pytest.mark.parametrize(("text", "amount"), [("0", 0), ("0.00", 0), ("2.55", 25_500), ("0.0001", 1), ("12", 120_000)])
def test_an_amount_is_read_exactly(text: str, amount: int) -> None:
    assert domain.amount_of(text) == amount
    assert domain.amount_of(domain.money(amount)) == amount


@pytest.mark.parametrize("text", ["", "-1", "1.00001", "1e2", "NaN", "1.", ".5", "1\n", "١", "9" * 16])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a decimal"):
        domain.amount_of(text)


def test_ids_never_change_between_releases() -> None:
    assert domain.payment_id("o1") == "2813ee55-66bd-522f-a02a-704ffe718d13"
    assert domain.refund_id("o1") == "8aa4cf3b-05d9-51be-ab29-8561937483f1"
