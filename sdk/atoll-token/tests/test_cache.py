import pytest
from make_vectors import NOW
from samples import Clock, claims

from atoll_token import PublicKey, SigningKey, TokenError, VerifiedCache, Verifier, mint


class Counting(Verifier):
    """A Verifier that counts the signatures it checks."""

    checked = 0

    def verify(self, token: str) -> object:  # type: ignore[override]
        self.checked += 1
        return super().verify(token)


@pytest.fixture
def counting(keys: dict[str, PublicKey], clock: Clock) -> Counting:
    return Counting(lambda kid: keys.get(kid), issuer="atoll-auth", audience="atoll", typ="access", clock=clock)


def test_second_time_skips_the_signature(counting: Counting, key: SigningKey) -> None:
    cache = VerifiedCache(counting)
    token = mint(claims(), key)
    assert cache.verify(token) == cache.verify(token) == claims()
    assert counting.checked == 1


def test_hit_still_expires(counting: Counting, key: SigningKey, clock: Clock) -> None:
    cache = VerifiedCache(counting)
    token = mint(claims(), key)
    cache.verify(token)
    clock.now = NOW + 605
    for _ in range(2):
        with pytest.raises(TokenError, match="expired"):
            cache.verify(token)
    assert len(cache) == 0


def test_key_that_left_the_set_ends_its_tokens(counting: Counting, key: SigningKey, keys: dict[str, PublicKey]) -> None:
    cache = VerifiedCache(counting)
    token = mint(claims(), key)
    cache.verify(token)
    del keys[key.kid]
    with pytest.raises(TokenError, match="unknown_key"):
        cache.verify(token)


def test_other_key_under_the_same_kid_is_not_believed(
    counting: Counting, key: SigningKey, other_key: SigningKey, keys: dict[str, PublicKey]
) -> None:
    cache = VerifiedCache(counting)
    token = mint(claims(), key)
    cache.verify(token)
    keys[key.kid] = other_key.public
    with pytest.raises(TokenError, match="bad_signature"):
        cache.verify(token)


def test_altered_token_does_not_hit(counting: Counting, key: SigningKey) -> None:
    cache = VerifiedCache(counting)
    token = mint(claims(), key)
    cache.verify(token)
    altered = token[:-5] + ("A" if token[-5] != "A" else "B") + token[-4:]
    with pytest.raises(TokenError, match="bad_signature"):
        cache.verify(altered)


def test_it_is_bounded_and_forgets_the_least_recently_used(counting: Counting, key: SigningKey) -> None:
    cache = VerifiedCache(counting, entries_max=2)
    first, second, third = (mint(claims(jti=jti), key) for jti in ("1", "2", "3"))
    for token in (first, second, first, third):
        cache.verify(token)
    assert (len(cache), counting.checked) == (2, 3)
    cache.verify(first)
    assert counting.checked == 3
    cache.verify(second)
    assert counting.checked == 4
    cache.clear()
    assert len(cache) == 0


def test_refused_tokens_take_no_room(counting: Counting, key: SigningKey) -> None:
    cache = VerifiedCache(counting, entries_max=1)
    token = mint(claims(), key)
    cache.verify(token)
    for number in range(20):
        with pytest.raises(TokenError):
            cache.verify(mint(claims(jti=str(number)), SigningKey.generate()))
    cache.verify(token)
    assert counting.checked == 1
