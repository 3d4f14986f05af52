import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from samples import claims

from atoll_token import PublicKey, SigningKey, TokenError, mint, open_key_set, sign_key_set

ROOT = SigningKey.generate()
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


def test_keys_survive_pem(key: SigningKey) -> None:
    assert SigningKey.from_pem(key.to_pem()).public == key.public
    assert PublicKey.from_pem(key.public.to_pem()) == key.public
    assert hash(PublicKey.from_raw(key.public.raw)) == hash(key.public)


def test_secrets_do_not_show(key: SigningKey) -> None:
    assert repr(key) == f"SigningKey({key.kid})"


def test_keys_of_other_kinds_are_refused() -> None:
    other = generate_private_key(SECP256R1())
    plain = other.private_bytes(PEM, PKCS8, serialization.NoEncryption())
    public = other.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    locked = Ed25519PrivateKey.generate().private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"secret"))
    for pem in (plain, locked, b"nothing"):
        with pytest.raises(ValueError):  # noqa: PT011 - three texts, one kind
            SigningKey.from_pem(pem)
    for pem in (public, b"nothing"):
        with pytest.raises(ValueError):  # noqa: PT011
            PublicKey.from_pem(pem)


def test_what_is_signed_is_what_is_opened(key: SigningKey, other_key: SigningKey) -> None:
    opened = open_key_set(sign_key_set(3, [key.public, other_key.public], ROOT), ROOT.public)
    assert (opened.version, dict(opened.keys)) == (3, {one.kid: one.public for one in (key, other_key)})


def test_key_set_cannot_go_back(key: SigningKey) -> None:
    document = sign_key_set(3, [key.public], ROOT)
    assert open_key_set(document, ROOT.public, minimum_version=3).version == 3
    with pytest.raises(TokenError, match="old_version"):
        open_key_set(document, ROOT.public, minimum_version=4)


def test_opened_set_cannot_be_changed(key: SigningKey) -> None:
    opened = open_key_set(sign_key_set(1, [key.public], ROOT), ROOT.public)
    with pytest.raises(TypeError):
        opened.keys["other"] = key.public  # type: ignore[index]


@pytest.mark.parametrize(("version", "count"), [(0, 1), (-1, 1), (2**53, 1), (1, 33)])
def test_sets_out_of_bounds_are_not_signed(key: SigningKey, version: int, count: int) -> None:
    with pytest.raises(ValueError, match="version"):
        sign_key_set(version, [key.public] * count, ROOT)


def test_every_alteration_of_a_set_is_refused(key: SigningKey) -> None:
    document = sign_key_set(1, [key.public], ROOT)
    for place, character in enumerate(document):
        altered = document[:place] + ("A" if character != "A" else "B") + document[place + 1 :]
        with pytest.raises(TokenError):
            open_key_set(altered, ROOT.public)


def test_token_of_the_root_is_no_key_set() -> None:
    with pytest.raises(TokenError, match="bad_signature"):
        open_key_set(mint(claims(), ROOT), ROOT.public)
