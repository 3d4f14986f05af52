import msgspec
import pytest
from make_vectors import NOW
from samples import Clock, claims

from atoll_token import RevocationList, Revocations


def value(beat: int, boot: str = "b", **lists: dict[str, int]) -> object:
    return msgspec.to_builtins(Revocations(boot=boot, beat=beat, **lists))


def test_revoked_by_jti_and_by_subject() -> None:
    revoked = RevocationList()
    assert not revoked.is_revoked(claims())
    revoked.update(value(1, tokens={"one": NOW + 600}, subjects={"bert": NOW}))
    assert revoked.is_revoked(claims(jti="one"))
    assert not revoked.is_revoked(claims(jti="two"))
    assert revoked.is_revoked(claims(jti="two", sub="bert", iat=NOW - 1))
    assert not revoked.is_revoked(claims(jti="two", sub="bert", iat=NOW))


def test_newest_list_replaces_the_one_before() -> None:
    revoked = RevocationList()
    revoked.update(value(1, tokens={"one": NOW}))
    revoked.update(value(2))
    assert not revoked.is_revoked(claims())


def test_only_a_new_beat_is_a_sign_of_life() -> None:
    clock = Clock(100)
    revoked = RevocationList(clock)
    revoked.update(value(41))
    assert revoked.silent_seconds() == float("inf"), "the broker may have repeated an old value"
    revoked.update(value(42))
    clock.now = 116
    assert revoked.silent_seconds() == 16
    revoked.update(value(42))
    assert revoked.silent_seconds() == 16, "a repeated beat is no sign of life"
    revoked.update(value(1, boot="c"))
    assert revoked.silent_seconds() == 0, "another process of auth is"


def test_list_from_the_disk_revokes_but_makes_nothing_a_sign_of_life() -> None:
    revoked = RevocationList(Clock())
    revoked.restore(value(7, tokens={"one": NOW}))
    assert revoked.is_revoked(claims())
    revoked.update(value(41))
    assert revoked.silent_seconds() == float("inf"), "the broker may have repeated an old value"
    revoked.update(value(42))
    assert revoked.silent_seconds() == 0


@pytest.mark.parametrize("nonsense", [None, [], {}, {"boot": "b", "beat": "1"}, {"boot": "b", "beat": 1, "tokens": []}])
def test_nonsense_changes_nothing(nonsense: object) -> None:
    revoked = RevocationList()
    revoked.update(value(1, tokens={"one": NOW}))
    with pytest.raises(ValueError, match=r"Expected|missing"):
        revoked.update(nonsense)
    assert revoked.is_revoked(claims())
