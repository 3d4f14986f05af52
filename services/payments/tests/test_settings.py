import pytest

import atoll
from atoll_payments.settings import Settings


@pytest.mark.parametrize(("text", "limit"), [("", None), (" ", None), ("0", 0), ("1000.5", 10_005_000)])
def test_the_limit_is_read(text: str, limit: int | None) -> None:
    assert Settings.from_environment({"PAYMENTS_DECLINE_ABOVE": text}) == Settings(limit)


def test_without_a_limit_nothing_is_declined() -> None:
    assert Settings.from_environment({}).decline_above is None


@pytest.mark.parametrize("text", ["-1", "many", "1e3", "0.00001"])
def test_what_is_no_limit_stops_the_start_and_names_the_variable(text: str) -> None:
    with pytest.raises(atoll.ConfigurationError, match="PAYMENTS_DECLINE_ABOVE"):
        Settings.from_environment({"PAYMENTS_DECLINE_ABOVE": text})
