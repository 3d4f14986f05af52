"""The files in contract/ are what the code says and does."""

from pathlib import Path

import pytest

from atoll_notifications import contract, messages
from atoll_notifications.handlers import subscriptions
from atoll_notifications.settings import Settings

CONTRACT = Path(__file__).parents[1] / "contract"


@pytest.mark.parametrize("path", contract.documents())
def test_schema_file_is_what_the_code_makes(path: str) -> None:
    assert (CONTRACT / path).read_text(encoding="utf-8") == contract.documents()[path], (
        "contract and code differ; if the change is meant, run: python -m atoll_notifications.contract"
    )


def test_no_schema_file_is_left_over() -> None:
    found = {path.relative_to(CONTRACT).as_posix() for path in CONTRACT.glob("*/*.schema.json")}
    assert found == set(contract.documents())


def test_every_consumed_topic_has_a_handler_of_its_type() -> None:
    handled = {
        subscription.topic: subscription.data_type
        for subscription in subscriptions(Settings(maildir=Path()), lambda: None)
    }
    assert handled == messages.CONSUMES
