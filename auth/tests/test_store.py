import sqlite3

import pytest
from world import NOW

from atoll_auth import store
from atoll_auth.commands import Direct
from atoll_token import SigningKey


def test_one_name_is_one_subject(db: Direct) -> None:
    store.add_user(db, "anna", "hash", "admin", NOW)
    with pytest.raises(store.RefusedError, match="taken"):
        store.add_client(db, "anna", "hash", "orders:*", NOW)
    with pytest.raises(store.RefusedError, match="reserved"):
        store.add_client(db, "anonymous", "hash", "", NOW)


def test_last_admin_stays(db: Direct) -> None:
    store.add_user(db, "anna", "hash", "admin", NOW)
    store.add_user(db, "bert", "hash", "viewer", NOW)
    with pytest.raises(store.RefusedError, match="last admin"):
        store.remove(db, "anna", "user", NOW)
    with pytest.raises(store.RefusedError, match="last admin"):
        store.set_role(db, "anna", "operator", NOW)
    with pytest.raises(sqlite3.IntegrityError, match="last admin"):
        db.execute("DELETE FROM accounts WHERE role = 'admin'")
    store.set_role(db, "bert", "admin", NOW)
    store.remove(db, "anna", "user", NOW)
    assert [account.name for account in store.accounts(db, "user")] == ["bert"]


def test_other_integrity_errors_are_not_taken_for_it(db: Direct) -> None:
    store.add_user(db, "bert", "hash", "viewer", NOW)
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        store.set_role(db, "bert", "king", NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["user", "client"])
def test_nobody_cannot_be_changed(db: Direct, kind: str) -> None:
    with pytest.raises(store.RefusedError, match="no bert"):
        store.remove(db, "bert", kind, NOW)
    with pytest.raises(store.RefusedError, match="no bert"):
        store.set_secret(db, "bert", kind, "hash", NOW)


def test_client_is_not_changed_as_a_user(db: Direct) -> None:
    store.add_client(db, "demo", "hash", "orders:*", NOW)
    with pytest.raises(store.RefusedError):
        store.remove(db, "demo", "user", NOW)


def family(db: Direct) -> store.Family:
    opened = store.open_family(db, "anna", "ops:read")
    store.add_refresh(db, opened, "r1", NOW + 1000, "a1", NOW + 600)
    return opened


def test_refresh_token_works_once_and_ends_its_family_the_second_time(db: Direct) -> None:
    opened = family(db)
    assert store.use_refresh(db, "r1", NOW) == opened
    store.add_refresh(db, opened, "r2", NOW + 1000, "a2", NOW + 600)
    assert store.family_of(db, "r2", unused=True) == opened
    assert store.family_of(db, "r1", unused=True) is None
    assert store.use_refresh(db, "r1", NOW) is None
    assert store.use_refresh(db, "r2", NOW) is None
    assert store.revocations(db, NOW)[0] == {"a1": NOW + 600, "a2": NOW + 600}


def test_unknown_refresh_token_changes_nothing(db: Direct) -> None:
    opened = family(db)
    assert store.use_refresh(db, "r0", NOW) is None
    assert store.use_refresh(db, "r1", NOW) == opened


def test_changed_secret_ends_logins_and_tokens(db: Direct) -> None:
    store.add_user(db, "anna", "hash", "admin", NOW)
    family(db)
    store.set_secret(db, "anna", "user", "other", NOW)
    assert store.use_refresh(db, "r1", NOW) is None
    assert store.revocations(db, NOW)[1] == {"anna": NOW + 1}
    account = store.account(db, "anna")
    assert account is not None
    assert account.not_before == NOW + 1


def test_not_before_never_falls(db: Direct) -> None:
    store.revoke_subject(db, "anna", NOW)
    store.revoke_subject(db, "anna", NOW - 100)
    assert store.revocations(db, NOW)[1] == {"anna": NOW + 1}


def test_revocations_are_bounded_on_the_safe_side(db: Direct) -> None:
    for number in range(store.REVOKED_TOKENS_MAX):
        store.revoke_token(db, str(number), "demo", NOW + 600, NOW)
    store.revoke_token(db, "one more", "anna", NOW + 600, NOW)
    tokens, subjects = store.revocations(db, NOW)
    assert len(tokens) == store.REVOKED_TOKENS_MAX
    assert subjects == {"anna": NOW + 1}


def test_tidy_deletes_what_no_longer_matters_and_nothing_else(db: Direct) -> None:
    family(db)
    store.revoke_token(db, "a1", "anna", NOW + 600, NOW)
    store.revoke_subject(db, "bert", NOW)
    store.tidy(db, NOW + 605)
    assert store.revocations(db, NOW + 604) == ({"a1": NOW + 600}, {"bert": NOW + 1})
    assert store.family_of(db, "r1") is not None
    store.tidy(db, NOW + 100_000)
    for table in ("families", "refresh_tokens", "revoked_tokens", "revoked_subjects"):
        assert db.all(f"SELECT * FROM {table}") == []


def test_retired_key_loses_its_private_half(db: Direct) -> None:
    key = SigningKey.generate()
    store.add_key(db, key, NOW, active=True)
    assert store.signing_keys(db)[0].private == key.to_pem()
    store.retire_key(db, key.kid, NOW)
    stored = store.signing_keys(db)[0]
    assert (stored.private, stored.public, stored.record.state) == (None, key.public.raw, "retired")
    with pytest.raises(store.RefusedError, match="no key"):
        store.withdraw_key(db, "0" * 16)


def test_versions_rise_even_over_a_lost_database(db: Direct) -> None:
    assert store.next_version(db, NOW) == NOW
    assert store.next_version(db, NOW) == NOW + 1
    assert store.next_version(db, NOW - 5000) == NOW + 2
