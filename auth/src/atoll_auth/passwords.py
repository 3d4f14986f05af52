"""argon2id in a bounded pool of threads.

A hash costs about 46 MiB and some 50 ms of a core, which is the point, and also a lever: whoever may make us hash as
often as they please stops everybody. So at most WORKERS hashes run, a few wait, and more are refused at once.
"""

import asyncio
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

WORKERS: Final = 2
WAITING_MAX: Final = 16
# OWASP's first choice for argon2id: 46 MiB, one pass, one lane.
_HASHER = PasswordHasher(time_cost=1, memory_cost=47_104, parallelism=1)


class BusyError(Exception):
    """As many hashes wait as may: try again after a second. Nothing was checked."""


def hash_secret(secret: str) -> str:
    """About 50 ms; call it from a thread, or from a command."""
    return _HASHER.hash(secret)


class Passwords:
    """Hashes and checks beside the event loop. Close it at the end."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="argon2")
        self._present = 0
        # Checked in place of the hash that an unknown account lacks, so that both cost the same time.
        self._decoy = hash_secret(secrets.token_urlsafe())

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the pool, to be held around `verify`. Raises BusyError if none is free.

        Handlers are not cancelled when a client hangs up (aiohttp's default), so a place is held as long as its hash.
        """
        if self._present >= WORKERS + WAITING_MAX:
            raise BusyError
        self._present += 1
        try:
            yield
        finally:
            self._present -= 1

    async def verify(self, secret_hash: str | None, secret: str) -> bool:
        """Whether the secret fits. None for an unknown account: never fits, after the same time."""
        loop = asyncio.get_running_loop()
        fits = await loop.run_in_executor(self._pool, _fits, secret_hash or self._decoy, secret)
        return fits and secret_hash is not None

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _fits(secret_hash: str, secret: str) -> bool:
    try:
        return _HASHER.verify(secret_hash, secret)
    except (VerificationError, InvalidHashError):
        return False
