"""All SQL. Functions over one transaction, each usable from the service and from the commands.

Times are whole seconds since 1970, given by the caller.
"""

import secrets
import sqlite3
from typing import Literal, Protocol

import msgspec

from atoll_token import LEEWAY_SECONDS, SigningKey, parse_scopes

from .domain import ACCESS_SECONDS_MAX, SCOPES_OF_ROLE, Role, check_name
from .lifecycle import KeyRecord

FILE_NAME = "auth.db"
# How long a revocation of a subject matters at most: no access token issued before it lives longer.
_SUBJECT_SECONDS = ACCESS_SECONDS_MAX + 2 * int(LEEWAY_SECONDS)
# The list goes over the bus each second. Beyond this a single token's revocation becomes its subject's.
REVOKED_TOKENS_MAX = 2_000


class Reader(Protocol):
    def one(self, sql: str, *params: object) -> sqlite3.Row | None: ...
    def all(self, sql: str, *params: object) -> list[sqlite3.Row]: ...


class Writer(Reader, Protocol):
    def execute(self, sql: str, *params: object) -> int: ...


class RefusedError(Exception):
    """A rule of the store forbids it; the text says which. Nothing has changed."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: Literal["user", "client"]
    secret_hash: str
    role: Role | None
    scope: str | None
    not_before: int  # its tokens must not be issued before; 0 mostly

    @property
    def allowed(self) -> frozenset[str]:
        """What tokens of this account may be for."""
        return SCOPES_OF_ROLE[self.role] if self.role is not None else parse_scopes(self.scope or "")


class Family(msgspec.Struct, frozen=True):
    id: str
    subject: str
    scope: str


class StoredKey(msgspec.Struct, frozen=True):
    record: KeyRecord
    public: bytes
    private: bytes | None


# ---- accounts ---------------------------------------------------------------------------------------------------

_ACCOUNT = """
SELECT name, kind, secret_hash, role, scope, coalesce(not_before, 0) AS not_before
FROM accounts LEFT JOIN revoked_subjects USING (name)
"""


def account(db: Reader, name: str) -> Account | None:
    row = db.one(_ACCOUNT + "WHERE name = ?", name)
    return None if row is None else msgspec.convert(dict(row), Account)


def accounts(db: Reader, kind: str) -> list[Account]:
    return [msgspec.convert(dict(row), Account) for row in db.all(_ACCOUNT + "WHERE kind = ? ORDER BY name", kind)]


def add_user(db: Writer, name: str, secret_hash: str, role: Role, now: int) -> None:
    """RefusedError if the name is taken, by a client too, or not a name."""
    _add(db, name, "user", secret_hash, role, None, now)


def add_client(db: Writer, name: str, secret_hash: str, scope: str, now: int) -> None:
    """RefusedError as add_user."""
    _add(db, name, "client", secret_hash, None, scope, now)


def _add(db: Writer, name: str, kind: str, secret_hash: str, role: str | None, scope: str | None, now: int) -> None:
    try:
        check_name(name)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    values = (name, kind, secret_hash, role, scope, now)
    if not db.execute("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", *values):
        raise RefusedError(f"the name {name} is taken")


def remove(db: Writer, name: str, kind: str, now: int) -> None:
    """Remove the account and end all its tokens. RefusedError for the last admin and for nobody."""
    _change(db, name, "DELETE FROM accounts WHERE name = ? AND kind = ?", name, kind)
    revoke_subject(db, name, now)


def set_secret(db: Writer, name: str, kind: str, secret_hash: str, now: int) -> None:
    """Change the secret and end all tokens that were got with the old one. RefusedError for nobody."""
    _change(db, name, "UPDATE accounts SET secret_hash = ? WHERE name = ? AND kind = ?", secret_hash, name, kind)
    revoke_subject(db, name, now)


def set_role(db: Writer, name: str, role: Role, now: int) -> None:
    """Change the role and end the tokens that carry the old one. RefusedError for the last admin and for nobody."""
    _change(db, name, "UPDATE accounts SET role = ? WHERE name = ? AND kind = 'user'", role, name)
    revoke_subject(db, name, now)


def _change(db: Writer, name: str, sql: str, *params: object) -> None:
    try:
        changed = db.execute(sql, *params)
    except sqlite3.IntegrityError as error:
        if str(error) != "last admin":  # the trigger's own words; a CHECK's would quote its expression
            raise
        raise RefusedError(f"{name} is the last admin: make somebody else one first") from None
    if not changed:
        raise RefusedError(f"there is no {name}")


def is_sown(db: Reader, name: str) -> bool:
    return db.one("SELECT 1 FROM seeds WHERE name = ?", name) is not None


def sow(db: Writer, name: str) -> bool:
    """Whether this name is sown for the first time; it no longer is, afterwards."""
    return db.execute("INSERT INTO seeds VALUES (?) ON CONFLICT DO NOTHING", name) > 0


# ---- refresh tokens ---------------------------------------------------------------------------------------------


def open_family(db: Writer, subject: str, scope: str) -> Family:
    family = Family(secrets.token_urlsafe(16), subject, scope)
    db.execute("INSERT INTO families VALUES (?, ?, ?, NULL)", family.id, subject, scope)
    return family


def add_refresh(db: Writer, family: Family, jti: str, expires_at: int, access_jti: str, access_expires_at: int) -> None:
    values = (jti, family.id, expires_at, access_jti, access_expires_at)
    db.execute("INSERT INTO refresh_tokens VALUES (?, ?, ?, NULL, ?, ?)", *values)


def use_refresh(db: Writer, jti: str, now: int) -> Family | None:
    """Use a refresh token up and return its family; None if it is unknown or its family has ended.

    A second use ends the family: either the thief or the owner has it now, and nobody can tell which.
    """
    family = family_of(db, jti)
    if family is None:
        return None
    if db.execute("UPDATE refresh_tokens SET used_at = ? WHERE jti = ? AND used_at IS NULL", now, jti):
        return family
    end_family(db, family, now)
    return None


def family_of(db: Reader, jti: str, *, unused: bool = False) -> Family | None:
    """The living family of a refresh token, if it has one; with `unused`, only if this token is its current one."""
    row = db.one(
        """SELECT id, subject, scope FROM families JOIN refresh_tokens ON family = id
        WHERE jti = ? AND ended_at IS NULL AND (used_at IS NULL OR NOT ?)""",
        jti,
        unused,
    )
    return None if row is None else msgspec.convert(dict(row), Family)


def end_family(db: Writer, family: Family, now: int) -> None:
    """No token of this login works any more, access tokens included."""
    db.execute("UPDATE families SET ended_at = ? WHERE id = ?", now, family.id)
    rows = db.all(
        "SELECT access_jti, access_expires_at FROM refresh_tokens WHERE family = ? AND access_expires_at > ?",
        family.id,
        now - int(LEEWAY_SECONDS),
    )
    for row in rows:
        revoke_token(db, row["access_jti"], family.subject, row["access_expires_at"], now)


# ---- revocations ------------------------------------------------------------------------------------------------


def revoke_token(db: Writer, jti: str, subject: str, expires_at: int, now: int) -> None:
    """Revoke one access token; beyond the list's bound, all that its subject has (too much rather than too little)."""
    row = db.one("SELECT count(*) AS number FROM revoked_tokens")
    if row is not None and row["number"] >= REVOKED_TOKENS_MAX:
        revoke_subject(db, subject, now)
    else:
        db.execute("INSERT INTO revoked_tokens VALUES (?, ?) ON CONFLICT DO NOTHING", jti, expires_at)


def revoke_subject(db: Writer, name: str, now: int) -> None:
    """End all tokens and logins of a subject.

    A token's iat counts whole seconds, so this second's tokens can only all be ended or none: they are ended, and
    whoever is issued one within the rest of it gets `not_before` as iat, which the verifiers' leeway covers.
    """
    db.execute("UPDATE families SET ended_at = ? WHERE subject = ? AND ended_at IS NULL", now, name)
    db.execute(
        """INSERT INTO revoked_subjects VALUES (?, ?, ?) ON CONFLICT (name)
        DO UPDATE SET not_before = max(not_before, excluded.not_before), expires_at = excluded.expires_at""",
        name,
        now + 1,
        now + 1 + _SUBJECT_SECONDS,
    )


def revocations(db: Reader, now: int) -> tuple[dict[str, int], dict[str, int]]:
    """What is revoked and not expired: jti → exp, subject → not_before."""
    tokens = db.all("SELECT jti, expires_at FROM revoked_tokens WHERE expires_at > ?", now - int(LEEWAY_SECONDS))
    subjects = db.all("SELECT name, not_before FROM revoked_subjects WHERE expires_at > ?", now)
    return {row["jti"]: row["expires_at"] for row in tokens}, {row["name"]: row["not_before"] for row in subjects}


def tidy(db: Writer, now: int) -> None:
    """Delete what no longer says anything."""
    before = now - 2 * int(LEEWAY_SECONDS)
    db.execute("DELETE FROM revoked_tokens WHERE expires_at < ?", before)
    db.execute("DELETE FROM revoked_subjects WHERE expires_at < ?", before)
    db.execute("DELETE FROM refresh_tokens WHERE expires_at < ? AND access_expires_at < ?", before, before)
    db.execute("DELETE FROM families WHERE NOT EXISTS (SELECT 1 FROM refresh_tokens WHERE family = families.id)")


# ---- signing keys -----------------------------------------------------------------------------------------------


def signing_keys(db: Reader) -> list[StoredKey]:
    """Oldest first."""
    rows = db.all("SELECT * FROM signing_keys ORDER BY created_at, kid")
    return [
        StoredKey(msgspec.convert(dict(row), KeyRecord), bytes(row["public"]), row["private"])  # other columns ignored
        for row in rows
    ]


def add_key(db: Writer, key: SigningKey, now: int, *, active: bool) -> None:
    values = (key.kid, key.public.raw, key.to_pem(), now, now if active else None)
    db.execute("INSERT INTO signing_keys VALUES (?, ?, ?, ?, NULL, ?, NULL)", *values)


def activate_key(db: Writer, kid: str, now: int) -> None:
    db.execute("UPDATE signing_keys SET active_at = ? WHERE kid = ?", now, kid)


def retire_key(db: Writer, kid: str, now: int) -> None:
    """It signs no more, and cannot: the private half is erased."""
    db.execute("UPDATE signing_keys SET retired_at = ?, private = NULL WHERE kid = ?", now, kid)


def forget_key(db: Writer, kid: str) -> None:
    db.execute("DELETE FROM signing_keys WHERE kid = ?", kid)


def withdraw_key(db: Writer, kid: str) -> None:
    """A stolen key: retired so long ago that it leaves the set at once, and all tokens that it signed with it."""
    if not db.execute("UPDATE signing_keys SET retired_at = 0, private = NULL WHERE kid = ?", kid):
        raise RefusedError(f"there is no key {kid}")


def mark_published(db: Writer, kids: list[str], now: int) -> None:
    for kid in kids:
        db.execute("UPDATE signing_keys SET published_at = ? WHERE kid = ? AND published_at IS NULL", now, kid)


def next_version(db: Writer, now: int) -> int:
    """A version for a new key set, higher than all before.

    Not lower than the clock, so that verifiers who remember a version still listen to a database that was lost or
    restored from a backup.
    """
    row = db.one("SELECT version FROM key_set")
    assert row is not None
    version = max(int(row["version"]) + 1, now)
    db.execute("UPDATE key_set SET version = ?", version)
    return version
