import pytest

import atoll
from atoll_inventory.settings import Settings


@pytest.mark.parametrize(("text", "units"), [("", 0), ("0", 0), ("1000000", 1_000_000)])
def test_the_opening_stock_is_read(text: str, units: int) -> None:
    assert Settings.from_environment({"INVENTORY_OPENING_STOCK": text}) == Settings(units)


@pytest.mark.parametrize("text", ["-1", "many", "1e3", "1.0", "9999999999", "9" * 5000, "١"])
def test_what_is_no_stock_stops_the_start_and_names_the_variable(text: str) -> None:
    with pytest.raises(atoll.ConfigurationError, match="INVENTORY_OPENING_STOCK"):
        Settings.from_environment({"INVENTORY_OPENING_STOCK": text})
