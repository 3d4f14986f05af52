"""What the tests share: a clock, claims, the vectors."""

import json
from typing import Any

from make_vectors import NOW, VECTORS

from atoll_token import Claims


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def claims(**changes: Any) -> Claims:
    base: dict[str, Any] = {
        "iss": "atoll-auth",
        "sub": "anna",
        "aud": "atoll",
        "scope": "orders:*",
        "jti": "one",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 600,
        "typ": "access",
    }
    return Claims(**{**base, **changes})
