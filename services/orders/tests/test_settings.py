import pytest

import atoll
from atoll_orders.settings import Settings


@pytest.mark.parametrize(("text", "seconds"), [("", 300), ("300", 300), ("0.5", 0.5), ("86400", 86_400)])
def test_the_deadline_is_read(text: str, seconds: float) -> None:
    assert Settings.from_environment({"ORDERS_SAGA_DEADLINE_SECONDS": text}) == Settings(seconds)


@pytest.mark.parametrize("text", ["0", "-1", "86401", "soon", "nan", "inf"])
def test_what_is_no_deadline_stops_the_start_and_names_the_variable(text: str) -> None:
    with pytest.raises(atoll.ConfigurationError, match="ORDERS_SAGA_DEADLINE_SECONDS"):
        Settings.from_environment({"ORDERS_SAGA_DEADLINE_SECONDS": text})
