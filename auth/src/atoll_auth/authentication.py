"""Checks a name and a secret: throttled, in bounded time and room, and giving nothing away.

An unknown name, a name of the other kind and a wrong secret cost the same hash and get the same answer.
"""

import atoll

from . import store
from .passwords import Passwords
from .store import Account
from .throttle import Guard


class WrongCredentialsError(Exception):
    """Unknown name or wrong secret; nobody is told which."""


class ThrottledError(Exception):
    """Too many wrong attempts for this account or address; nothing was checked."""

    def __init__(self, wait_seconds: int) -> None:
        super().__init__(f"again after {wait_seconds} s")
        self.wait_seconds = wait_seconds


class Authentication:
    def __init__(self, database: atoll.Database, passwords: Passwords, guard: Guard) -> None:
        self._database = database
        self._passwords = passwords
        self._guard = guard

    async def check(self, kind: str, name: str, secret: str, address: str) -> Account:
        """The account, as it is after the check. Raises WrongCredentialsError, ThrottledError or BusyError."""
        with self._passwords.place():
            # By kind, the address too: who guesses at people's passwords does not slow the clients beside him.
            attempt = self._guard.enter(f"{kind}:{name}", f"{kind}:{address}")
            if attempt.wait_seconds:
                raise ThrottledError(attempt.wait_seconds)
            account = await self._matching(kind, name, secret)
        if account is None:
            raise WrongCredentialsError
        self._guard.forgive(attempt)
        return account

    async def _matching(self, kind: str, name: str, secret: str) -> Account | None:
        before = await self._find(kind, name)
        if not await self._passwords.verify(before.secret_hash if before else None, secret):
            return None
        after = await self._find(kind, name)  # hashing took long enough for somebody to remove it
        return after if after and before and after.secret_hash == before.secret_hash else None

    async def _find(self, kind: str, name: str) -> Account | None:
        account = await self._database.read(lambda db: store.account(db, name))
        return account if account is not None and account.kind == kind else None
