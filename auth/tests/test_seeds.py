import json
from typing import Any

import pytest
from world import SEED, Keys

import atoll
from atoll_auth import commands, seeds
from atoll_auth.messages import Seed
from conftest import Start


@pytest.mark.parametrize(
    ("seed", "named"),
    [
        ({"client": []}, "`client`"),
        ({"clients": [{"client_id": "demo", "client_secret": "long enough"}]}, "clients[0]"),
        ({"clients": [{**SEED["clients"][0], "client_id": "a b"}]}, "clients[0].client_id"),
        ({"clients": [{**SEED["clients"][0], "client_id": "anonymous"}]}, "clients[0].client_id"),
        ({"clients": [{**SEED["clients"][0], "client_secret": "short"}]}, "clients[0].client_secret"),
        ({"clients": [{**SEED["clients"][0], "scopes": ["*"]}]}, "clients[0].scopes"),
        ({"clients": [{**SEED["clients"][0], "scope": "orders:*"}]}, "`scope`"),
        ({"users": [{**SEED["users"][0], "role": "king"}]}, "users[0].role"),
        ({"users": [SEED["users"][0], SEED["users"][0]]}, "users[1].username"),
        ([], "object"),
    ],
)
def test_error_names_the_field(keys: Keys, seed: Any, named: str) -> None:
    keys.sow(seed)
    with pytest.raises(atoll.ConfigurationError) as caught:
        seeds.load(keys.folder)
    assert "seed.json" in str(caught.value)
    assert named in str(caught.value)


def test_text_that_is_not_json_is_named(keys: Keys) -> None:
    (keys.folder / "seed.json").write_text("{")
    with pytest.raises(atoll.ConfigurationError, match=r"seed\.json: not JSON"):
        seeds.load(keys.folder)


def test_no_seed_is_an_empty_one(keys: Keys) -> None:
    (keys.folder / "seed.json").unlink()
    assert seeds.load(keys.folder) == Seed()


async def test_seed_never_overwrites_and_never_brings_back(
    start: Start, keys: Keys, options: atoll.Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start()
    await first.logged_in()
    await first.client.close()
    monkeypatch.setenv("ATOLL_DATA", str(options.data))
    assert commands.run(["users", "remove", "vera"]) == 0
    changed = json.loads(json.dumps(SEED))
    changed["users"][0]["password"] = "another password"
    keys.sow(changed)
    second = await start()
    await second.logged_in()
    assert (await second.login("anna", "another password")).status == 401
    assert (await second.login("vera", "vera's password")).status == 401
