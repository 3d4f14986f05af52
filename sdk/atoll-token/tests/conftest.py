import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, settings
from samples import Clock

from atoll_token import PublicKey, SigningKey, Verifier

# A busy machine is no defect of what is tested; the rest stays as it is by default, or on CI.
settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


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
