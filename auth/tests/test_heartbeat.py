"""Keys and revocations on their way to the broker, with a bus that can fail and a clock that can be turned."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from world import AUTH, Clock

import atoll
from atoll_auth import store
from atoll_auth.heartbeat import Heartbeat
from atoll_auth.keyring import KeyRing
from atoll_auth.lifecycle import Schedule
from atoll_token import KeySet, RevocationList, SigningKey, open_key_set

SCHEDULE = Schedule(rotate=600, access=60, refresh=300)


class Bus:
    """Keeps what is put; with `down` set refuses as the SDK does."""

    def __init__(self) -> None:
        self.down = False
        self.puts: list[tuple[str, Any]] = []

    async def put(self, kind: str, value: object) -> None:
        if self.down:
            raise atoll.BusUnavailableError("down")
        self.puts.append((kind, value))

    def taken(self, kind: str) -> list[Any]:
        return [value for name, value in self.puts if name == kind]


class Beating:
    """A heartbeat beside its parts."""

    def __init__(self, database: atoll.Database, clock: Clock, root: SigningKey) -> None:
        self.database = database
        self.clock = clock
        self.root = root
        self.bus = Bus()
        self.restart()

    def restart(self) -> None:
        self.ring = KeyRing(self.database, self.root, SCHEDULE, self.clock)
        self.heart = Heartbeat(self.database, self.ring, self.bus, self.clock)

    async def beat(self, seconds: int = 0) -> KeySet:
        self.clock.now += seconds
        await self.heart.beat()
        return open_key_set(self.ring.document, self.root.public)

    async def states(self) -> list[str]:
        return [key.record.state for key in await self.database.read(store.signing_keys)]


@pytest.fixture
async def beating(tmp_path: Path, clock: Clock) -> AsyncIterator[Beating]:
    database = atoll.Database(tmp_path / "auth.db", AUTH / "migrations")
    await database.open()
    yield Beating(database, clock, SigningKey.generate())
    await database.close()


async def test_keys_go_out_once_and_revocations_each_time(beating: Beating) -> None:
    for _ in range(3):
        await beating.beat(1)
    assert beating.bus.taken("keys") == [beating.ring.document]
    assert [value["beat"] for value in beating.bus.taken("revocations")] == [1, 2, 3]


async def test_what_goes_out_is_what_a_watcher_understands(beating: Beating) -> None:
    await beating.database.write(lambda tx: store.revoke_token(tx, "one", "anna", int(beating.clock.now) + 60, 0))
    watcher = RevocationList(beating.clock)
    for _ in range(2):
        await beating.beat(1)
        watcher.update(beating.bus.taken("revocations")[-1])
    assert watcher.silent_seconds() == 0


async def test_keys_go_out_again_after_an_outage(beating: Beating) -> None:
    await beating.beat()
    beating.bus.down = True
    await beating.beat(1)
    beating.bus.down = False
    await beating.beat(1)
    assert len(beating.bus.taken("keys")) == 2


async def test_key_lives_from_publication_to_oblivion(beating: Beating) -> None:
    first = (await beating.beat()).version
    old = beating.ring.signing.kid
    both = await beating.beat(540)
    assert len(both.keys) == 2
    assert both.version > first
    assert beating.ring.signing.kid == old, "published, not yet used"
    await beating.beat(60)
    new = beating.ring.signing.kid
    assert new != old
    assert await beating.states() == ["retired", "active"]
    assert set((await beating.beat(69)).keys) == {old, new}
    assert set((await beating.beat(1)).keys) == {new}
    assert beating.ring.get(old) is not None, "refresh tokens that it signed are still alive"
    await beating.beat(240)
    assert beating.ring.get(old) is None


async def test_rotation_waits_for_the_broker(beating: Beating) -> None:
    await beating.beat()
    old = beating.ring.signing.kid
    beating.bus.down = True
    await beating.beat(540)
    await beating.beat(100_000)
    assert beating.ring.signing.kid == old
    beating.bus.down = False
    await beating.beat(1)
    assert beating.ring.signing.kid == old, "the lead begins when the broker has taken the set"
    await beating.beat(60)
    assert beating.ring.signing.kid != old


async def test_restart_keeps_the_keys_and_raises_the_version(beating: Beating) -> None:
    before = await beating.beat()
    kid = beating.ring.signing.kid
    beating.restart()
    after = await beating.beat()
    assert beating.ring.signing.kid == kid
    assert dict(after.keys) == dict(before.keys)
    assert after.version > before.version


async def test_withdrawn_key_is_out_at_once(beating: Beating) -> None:
    await beating.beat()
    stolen = beating.ring.signing.kid
    await beating.database.write(lambda tx: store.withdraw_key(tx, stolen))
    assert stolen not in (await beating.beat(1)).keys
    assert beating.ring.signing.kid != stolen
    assert beating.ring.get(stolen) is None
