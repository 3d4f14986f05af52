"""The public face is what `__all__` says, documented, and no private module is needed to name it."""

from __future__ import annotations

import inspect

import pytest

import atoll
from atoll import web


@pytest.mark.parametrize("module", [atoll, web])
def test_every_public_name_exists_and_is_documented(module: object) -> None:
    for name in module.__all__:  # type: ignore[attr-defined]
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name} has no docstring"


def test_the_public_face_is_the_one_that_services_are_written_against() -> None:
    promised = {"Options", "ConfigurationError", "Database", "Reader", "Transaction", "SubscriptionTable", "Event"}
    assert promised | {"Reject", "Retry", "Session", "logs", "telemetry"} <= set(atoll.__all__)
    assert set(web.__all__) >= {"attach", "Attachment", "requires", "public", "SUBJECT", "SCOPES", "Problem"}
    assert set(web.__all__) >= {"read_json", "idempotent", "serve"}


def test_public_methods_have_the_promised_signatures() -> None:
    assert list(inspect.signature(atoll.Database.__init__).parameters) == ["self", "path", "migrations"]
    assert list(inspect.signature(atoll.Transaction.publish).parameters) == ["self", "topic", "subject", "data"]
    assert list(inspect.signature(web.Problem.__init__).parameters)[1:] == [
        "status",
        "code",
        "detail",
        "field",
        "headers",
    ]
    attach = inspect.signature(web.attach).parameters
    assert list(attach) == ["app", "options", "events", "database", "prefixes", "session_hooks", "version"]
