"""The operators' record as the tests read it: through the gateway, with an administrator's own token."""

from __future__ import annotations

from typing import Any

from browser.people import Person, token_of
from fleet import Fleet
from polling import poll_until


class Record:
    """The audit of a system."""

    def __init__(self, shop: Fleet, reader: Person) -> None:
        self._shop = shop
        self._token = token_of(shop, reader)

    def rows(self) -> list[dict[str, Any]]:
        """The newest page, newest first."""
        answer = self._shop.call("GET", "/ops/audit?limit=100", token=self._token)
        assert answer.status == 200, answer
        return list(answer.body["items"])

    def last_id(self) -> int:
        """Where the record stands; 0 while it is empty."""
        return max((int(row["id"]) for row in self.rows()), default=0)

    def since(self, last_id: int) -> list[dict[str, Any]]:
        """What was added after `last_id`, newest first."""
        return [row for row in self.rows() if int(row["id"]) > last_id]

    def wait_for(self, seconds: float = 10, **wanted: str) -> dict[str, Any]:
        """The newest row whose fields are these."""

        def found() -> dict[str, Any] | None:
            return next((row for row in self.rows() if all(row[key] == value for key, value in wanted.items())), None)

        row = poll_until(f"an audit row with {wanted}", found, seconds=seconds)
        assert row is not None
        return row
