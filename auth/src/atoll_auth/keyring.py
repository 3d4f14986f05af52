"""The signing keys in memory, kept in step with the database, and the signed set of their public halves.

The database is read again at each turn (once a second), since `python -m atoll_auth keys` writes it from outside.
"""

from collections.abc import Callable

import atoll
from atoll_token import PublicKey, SigningKey, sign_key_set

from . import lifecycle, store
from .lifecycle import Schedule, Step
from .store import StoredKey, Writer


class KeyRing:
    """Empty until the first `turn`."""

    def __init__(
        self, database: atoll.Database, root: SigningKey, schedule: Schedule, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._root = root
        self._schedule = schedule
        self._clock = clock
        self._signing: SigningKey | None = None
        self._keys: dict[str, PublicKey] = {}
        self._in_set: list[str] = []
        self._document = ""

    @property
    def signing(self) -> SigningKey:
        """The key to sign with now."""
        assert self._signing is not None, "turn() comes first"
        return self._signing

    @property
    def document(self) -> str:
        """The signed key set."""
        return self._document

    def get(self, kid: str) -> PublicKey | None:
        """A key whose tokens may still be alive, refresh tokens included; for a Verifier."""
        return self._keys.get(kid)

    async def turn(self) -> None:
        """Do what is due, and take up what the database says."""
        now = int(self._clock())
        stored = await self._database.read(store.signing_keys)
        if lifecycle.plan([key.record for key in stored], now, self._schedule):
            stored = await self._database.write(lambda tx: advance(tx, now, self._schedule))
        await self._take(stored, now)

    async def mark_published(self, document: str) -> None:
        """The broker has taken this document."""
        if document == self._document:
            kids, now = self._in_set, int(self._clock())
            await self._database.write(lambda tx: store.mark_published(tx, kids, now))

    async def _take(self, stored: list[StoredKey], now: int) -> None:
        records = [key.record for key in stored]
        self._keys = {key.record.kid: PublicKey.from_raw(key.public) for key in stored}
        active = lifecycle.active_key(records)
        if active is not None and (self._signing is None or self._signing.kid != active.kid):
            self._signing = next(_private(key) for key in stored if key.record.kid == active.kid)
        in_set = lifecycle.in_set(records, now, self._schedule)
        if in_set != self._in_set:  # at each start too: a new version, which verifiers take whatever they remember
            version = await self._database.write(lambda tx: store.next_version(tx, now))
            self._document = sign_key_set(version, [self._keys[kid] for kid in in_set], self._root)
            self._in_set = in_set


def advance(db: Writer, now: int, schedule: Schedule) -> list[StoredKey]:
    """Carry out the plan in one transaction; the keys as they are then."""
    for step in lifecycle.plan([key.record for key in store.signing_keys(db)], now, schedule):
        _carry_out(db, step, now)
    return store.signing_keys(db)


def _carry_out(db: Writer, step: Step, now: int) -> None:
    match step.do:
        case "create" | "create_active":
            store.add_key(db, SigningKey.generate(), now, active=step.do == "create_active")
        case "activate":
            store.activate_key(db, step.kid, now)
        case "retire":
            store.retire_key(db, step.kid, now)
        case "forget":
            store.forget_key(db, step.kid)


def _private(key: StoredKey) -> SigningKey:
    assert key.private is not None, "an active key without its private half"
    return SigningKey.from_pem(key.private)
