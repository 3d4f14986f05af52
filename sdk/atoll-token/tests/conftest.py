import json
from pathlib import Path
from typing import Any

import pytest
from atoll_token import Claims, PublicKey, SigningKey, Verifier
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NOW = 1_795_400_000
VECTORS = Path(__file__).parents[3] / "auth" / "spec" / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))


@pytest.fixture(scope="session")
def other_key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))


@pytest.fixture
def keys(key: SigningKey, other_key: SigningKey) -> dict[str, PublicKey]:
    return {one.kid: one.public for one in (key, other_key)}


@pytest.fixture
def verifier(keys: dict[str, PublicKey], clock: Clock) -> Verifier:
    return Verifier(keys.get, issuer="atoll-auth", audience="atoll", typ="access", clock=clock)


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
