"""What the tests share: clocks, a front door that is open to us, the accounts of the seed."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import zmq
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient

from atoll_token import Claims, SigningKey, Verifier, mint, open_key_set

AUTH = Path(__file__).parents[1]
NOW = 1_795_400_000

CLIENT_ID, CLIENT_SECRET = "demo", "a secret of demo's"
SEED: dict[str, Any] = {
    "clients": [
        {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "scopes": ["orders:*", "stock:*", "sales:*"]},
        {"client_id": "other", "client_secret": "another secret", "scopes": []},
    ],
    "users": [
        {"username": "anna", "password": "anna's password", "role": "admin"},
        {"username": "vera", "password": "vera's password", "role": "viewer"},
    ],
}


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Keys:
    """A directory as ATOLL_KEYS, and the halves that others have."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.root = SigningKey.generate()
        self.gateway = SigningKey.generate()
        (folder / "root.key").write_bytes(self.root.to_pem())
        (folder / "gateway.pub").write_bytes(self.gateway.public.to_pem())
        public, secret = zmq.curve_keypair()
        for name, key in (("curve.public", public), ("curve.secret", secret), ("broker.public", public)):
            (folder / name).write_bytes(key + b"\n")
        self.sow(SEED)

    def sow(self, seed: object) -> None:
        (self.folder / "seed.json").write_text(json.dumps(seed))


class Caller:
    """Calls auth as the gateway does. `address` is the client's."""

    def __init__(self, client: TestClient[Any, Any], keys: Keys, clock: Clock) -> None:
        self.client = client
        self.keys = keys
        self.clock = clock
        self.address = "192.0.2.1"

    def headers(self, **more: str) -> dict[str, str]:
        return {"Atoll-Assertion": assertion(self.keys.gateway), "Atoll-Client-Address": self.address, **more}

    async def form(self, path: str, form: Any, **headers: str) -> ClientResponse:
        return await self.client.post(path, data=form, headers=self.headers(**headers))

    async def get(self, path: str) -> ClientResponse:
        return await self.client.get(path, headers=self.headers())

    async def login(self, username: str = "anna", password: str = "anna's password", **more: str) -> ClientResponse:
        body = {"username": username, "password": password, **more}
        return await self.client.post("/auth/login", json=body, headers=self.headers())

    async def logged_in(self, **more: str) -> Any:
        answer = await self.login(**more)
        assert answer.status == 200, await answer.text()
        return await answer.json()

    async def renew(self, refresh_token: str, **more: str) -> ClientResponse:
        return await self.form("/auth/token", {"grant_type": "refresh_token", "refresh_token": refresh_token, **more})

    async def client_token(self, **more: str) -> Any:
        answer = await self.form("/auth/token", {"grant_type": "client_credentials", **as_client(), **more})
        assert answer.status == 200, await answer.text()
        return await answer.json()

    async def is_active(self, token: str) -> bool:
        answer = await self.form("/auth/introspect", {"token": token, **as_client()})
        assert answer.status == 200, await answer.text()
        return bool((await answer.json())["active"])

    async def verify(self, token: str) -> Claims:
        """As a gateway that has the key set."""
        document = (await (await self.get("/auth/keys")).json())["key_set"]
        keys = open_key_set(document, self.keys.root.public).keys
        return Verifier(keys.get, issuer="atoll-auth", audience="atoll", typ="access", clock=self.clock).verify(token)


def as_client(client_id: str = CLIENT_ID, client_secret: str = CLIENT_SECRET) -> dict[str, str]:
    return {"client_id": client_id, "client_secret": client_secret}


def assertion(key: SigningKey, **changes: Any) -> str:
    import time

    now = int(time.time())
    content: dict[str, Any] = {
        "iss": "atoll-gateway",
        "sub": "anonymous",
        "aud": "auth",
        "scope": "",
        "jti": "one",
        "iat": now,
        "nbf": now,
        "exp": now + 30,
        "typ": "assertion",
    }
    return mint(Claims(**{**content, **changes}), key)


def fresh_database() -> sqlite3.Connection:
    """The schema alone, in memory, for tests of the store."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    for file in sorted((AUTH / "migrations").glob("*.sql")):
        connection.executescript(file.read_text(encoding="utf-8"))
    return connection
