import pytest

from atoll_auth import domain

ALLOWED = frozenset({"orders:*", "stock:read"})


@pytest.mark.parametrize(
    ("requested", "granted"),
    [
        (None, "orders:* stock:read"),
        ("", ""),
        ("orders:read", "orders:read"),
        ("stock:read orders:read:all orders:*", "orders:* orders:read:all stock:read"),
    ],
)
def test_what_is_allowed_is_granted(requested: str | None, granted: str) -> None:
    assert domain.grant(requested, ALLOWED) == granted


@pytest.mark.parametrize(
    "requested", ["stock:write", "stock:*", "orders:read ops:admin", "*", "orders:read  stock:read", " "]
)
def test_more_than_allowed_is_refused(requested: str) -> None:
    with pytest.raises(domain.ScopeError):
        domain.grant(requested, ALLOWED)


def test_roles_include_one_another() -> None:
    viewer, operator, admin = (domain.SCOPES_OF_ROLE[role] for role in ("viewer", "operator", "admin"))
    assert viewer < operator < admin
    assert domain.still_allowed("ops:admin ops:read", viewer) == "ops:read"


@pytest.mark.parametrize("name", ["", "anonymous", "-a", "a b", "a:b", "a" * 65, "a\n", "å"])
def test_names_that_nobody_may_have(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        domain.check_name(name)


@pytest.mark.parametrize("secret", ["short", "x" * 257])
def test_secrets_that_are_not_taken(secret: str) -> None:
    with pytest.raises(ValueError, match="8 to 256"):
        domain.check_secret(secret)
