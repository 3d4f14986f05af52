import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_vectors import NOW
from samples import Clock, claims

from atoll_token import TOKEN_CHARS_MAX, Claims, PublicKey, SigningKey, TokenError, Verifier, mint

KEY = SigningKey.generate()
NAMES = st.text(min_size=1, max_size=200).filter(lambda text: text.isprintable())
SCOPES = st.lists(st.from_regex(r"[a-z0-9]{1,9}(:[a-z0-9][a-z0-9._-]{0,9}){0,3}(:\*)?", fullmatch=True), max_size=9)


def code_of(verifier: Verifier, token: str) -> str:
    with pytest.raises(TokenError) as caught:
        verifier.verify(token)
    return caught.value.code


def test_every_alteration_of_every_character_is_refused(verifier: Verifier, key: SigningKey) -> None:
    token = mint(claims(), key)
    alphabet = string.ascii_letters + string.digits + "-_."
    for place, character in enumerate(token):
        for other in alphabet:
            if other != character:
                assert code_of(verifier, token[:place] + other + token[place + 1 :])


def test_every_truncation_and_extension_is_refused(verifier: Verifier, key: SigningKey) -> None:
    token = mint(claims(), key)
    for length in range(len(token)):
        assert code_of(verifier, token[:length])
    for more in string.printable:
        assert code_of(verifier, token + more) == "malformed"
        assert code_of(verifier, more + token) == "malformed"


def test_each_type_is_refused_as_each_other(keys: dict[str, PublicKey], key: SigningKey, clock: Clock) -> None:
    for typ in ("access", "refresh", "assertion"):
        token = mint(claims(typ=typ), key)
        for expected in ("access", "refresh", "assertion"):
            verifier = Verifier(keys.get, issuer="atoll-auth", audience="atoll", typ=expected, clock=clock)
            if expected == typ:
                assert verifier.verify(token).typ == typ
            else:
                assert code_of(verifier, token) == "wrong_type"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"typ": "refresh"}, "this is of type refresh; expected one of type access"),
        ({"iss": "somebody"}, "not issued by atoll-auth"),
        ({"aud": "orders"}, "for somebody other than atoll"),
        ({"iat": NOW - 700, "nbf": NOW - 700, "exp": NOW - 100}, "the token expired 100 s ago"),
    ],
)
def test_refusals_read_as_sentences(verifier: Verifier, key: SigningKey, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TokenError) as refused:
        verifier.verify(mint(claims(**changes), key))
    assert words in refused.value.text


def test_swapped_kid_is_refused(verifier: Verifier, key: SigningKey, other_key: SigningKey) -> None:
    token = mint(claims(), key)
    assert code_of(verifier, token.replace(key.kid, other_key.kid)) == "bad_signature"


def test_foreign_key_is_refused_before_any_signature_check(verifier: Verifier) -> None:
    assert code_of(verifier, mint(claims(), SigningKey.generate())) == "unknown_key"


def test_length_is_checked_first(keys: dict[str, PublicKey]) -> None:
    def asked(kid: str) -> PublicKey | None:
        raise AssertionError("the key set was asked about a token that is too long")

    verifier = Verifier(asked, issuer="atoll-auth", audience="atoll", typ="access")
    assert code_of(verifier, "v1." + "0" * 10_000_000) == "too_long"


@pytest.mark.parametrize(
    ("offset", "code"),
    [(-5.1, "clock_skew"), (-5.0, None), (0, None), (604.9, None), (605.0, "expired"), (10**9, "expired")],
)
def test_time_boundaries(verifier: Verifier, key: SigningKey, clock: Clock, offset: float, code: str | None) -> None:
    token = mint(claims(), key)
    clock.now = NOW + offset
    if code is None:
        assert verifier.verify(token) == claims()
    else:
        assert code_of(verifier, token) == code


def test_not_before_has_a_code_of_its_own(verifier: Verifier, key: SigningKey, clock: Clock) -> None:
    token = mint(claims(nbf=NOW + 100), key)
    assert code_of(verifier, token) == "not_yet_valid"
    clock.now = NOW + 95
    assert verifier.verify(token).nbf == NOW + 100


@pytest.mark.parametrize(
    "changes",
    [{"sub": ""}, {"sub": "x" * 201}, {"iat": -1}, {"exp": 2**53}, {"typ": "id"}, {"client_id": ""}, {"jti": None}],
)
def test_nonsense_is_not_minted(key: SigningKey, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\$\."):
        mint(claims(**changes), key)


@pytest.mark.parametrize("changes", [{"exp": NOW}, {"nbf": NOW + 600}, {"scope": "orders:* "}, {"scope": "Orders"}])
def test_claims_that_contradict_themselves_cannot_be_made(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"exp must be later|not a scope"):
        claims(**changes)


def test_token_longer_than_verifiers_accept_is_not_minted(key: SigningKey) -> None:
    with pytest.raises(ValueError, match=str(TOKEN_CHARS_MAX)):
        mint(claims(sub="\x01" * 200, jti="\x01" * 200, scope="a" * 2000), key)


@given(
    sub=NAMES,
    jti=NAMES,
    scope=SCOPES,
    client_id=st.none() | NAMES,
    iat=st.integers(0, 2**52),
    nbf=st.integers(0, 2**52),
    life=st.integers(1, 2**40),
)
def test_what_is_minted_is_what_is_verified(
    sub: str, jti: str, scope: list[str], client_id: str | None, iat: int, nbf: int, life: int
) -> None:
    content = Claims(
        iss="atoll-auth",
        sub=sub,
        aud="atoll",
        scope=" ".join(scope),
        jti=jti,
        iat=iat,
        nbf=nbf,
        exp=max(iat, nbf) + life,
        typ="access",
        client_id=client_id,
    )
    now = Clock(max(iat, nbf))
    verifier = Verifier({KEY.kid: KEY.public}.get, issuer="atoll-auth", audience="atoll", typ="access", clock=now)
    assert verifier.verify(mint(content, KEY)) == content


@given(st.text(max_size=300) | st.from_regex(r"v1\.[0-9a-f]{16}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}", fullmatch=True))
def test_any_text_is_refused_by_a_token_error(text: str) -> None:
    verifier = Verifier(lambda kid: KEY.public, issuer="atoll-auth", audience="atoll", typ="access")
    with pytest.raises(TokenError):
        verifier.verify(text)
