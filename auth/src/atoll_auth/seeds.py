"""The first accounts, from `seed.json` in ATOLL_KEYS: strict, sown once, never overwriting.

A name is sown at most once in a database's life. An account that somebody removed since does not come back at the next
start, and a secret that somebody changed stays changed.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

import atoll

from . import store
from .domain import check_name, scope_text
from .messages import Seed, SeedClient, SeedUser
from .passwords import hash_secret
from .store import Writer


def load(keys: Path) -> Seed:
    """The seed; empty if there is no file. Raises atoll.ConfigurationError naming the field."""
    try:
        content = (keys / "seed.json").read_bytes()
    except FileNotFoundError:
        return Seed()
    try:
        seed = msgspec.json.decode(content, type=Seed)
    except msgspec.ValidationError as error:
        raise atoll.ConfigurationError(f"seed.json: {error}") from None
    except ValueError as error:
        raise atoll.ConfigurationError(f"seed.json: not JSON: {error}") from None
    _check(seed)
    return seed


def _check(seed: Seed) -> None:
    seen: set[str] = set()
    for field, name in _names(seed):
        with _naming(field):
            check_name(name)
            if name in seen:
                raise ValueError(f"the name {name} is there twice")
        seen.add(name)
    for place, client in enumerate(seed.clients):
        with _naming(f"clients[{place}].scopes"):
            scope_text(client.scopes)


def _names(seed: Seed) -> Iterator[tuple[str, str]]:
    yield from ((f"clients[{place}].client_id", client.client_id) for place, client in enumerate(seed.clients))
    yield from ((f"users[{place}].username", user.username) for place, user in enumerate(seed.users))


@contextmanager
def _naming(field: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise atoll.ConfigurationError(f"seed.json: {field}: {error}") from None


async def sow(database: atoll.Database, seed: Seed, now: int) -> None:
    for user in seed.users:
        await _sow_one(database, user.username, user.password, _add_user(user, now))
    for client in seed.clients:
        await _sow_one(database, client.client_id, client.client_secret, _add_client(client, now))


async def _sow_one(database: atoll.Database, name: str, secret: str, add: Callable[[Writer, str], None]) -> None:
    if await database.read(lambda db: store.is_sown(db, name)):
        return
    secret_hash = await asyncio.to_thread(hash_secret, secret)

    def work(tx: Writer) -> None:
        if store.sow(tx, name) and store.account(tx, name) is None:
            add(tx, secret_hash)

    await database.write(work)


def _add_user(user: SeedUser, now: int) -> Callable[[Writer, str], None]:
    return lambda tx, secret_hash: store.add_user(tx, user.username, secret_hash, user.role, now)


def _add_client(client: SeedClient, now: int) -> Callable[[Writer, str], None]:
    return lambda tx, secret_hash: store.add_client(tx, client.client_id, secret_hash, scope_text(client.scopes), now)
