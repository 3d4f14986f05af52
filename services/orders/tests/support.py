"""What the tests of this service stand on: a bus of one process, and a gateway's key."""

import json
import time
import uuid
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import zmq

import atoll
from atoll_token import Claims, SigningKey, mint

PROJECT = Path(__file__).parents[1]
NAME = PROJECT.name


class Bus:
    """Hands events to their handlers as the library does, one transaction each, and reads what was published.

    Every published event is checked against the schema in contract/publishes, as the broker would.
    """

    def __init__(self, database: atoll.Database, events: atoll.SubscriptionTable) -> None:
        self.database = database
        self._events = events
        self._read = 0

    async def deliver(self, topic: str, subject: str, data: dict[str, Any]) -> None:
        """Raises what the handler raises; its effects are undone then."""
        subscription = self._events.get(topic)
        assert subscription is not None, f"{topic} has no handler"
        event: atoll.Event[Any] = atoll.Event(
            id=str(uuid.uuid4()),
            source=topic.partition(".")[0],
            type=topic,
            subject=subject,
            time="2010-12-01T08:26:00Z",
            data=subscription.decode(json.dumps(data).encode()),
            attempt=1,
        )
        await self.database.write(lambda tx: subscription.handler(event, tx))

    async def published(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(topic, subject, data) of what was published since the last call."""
        sql = "SELECT pseq, event FROM atoll_outbox WHERE pseq > ? ORDER BY pseq"
        rows = await self.database.read(lambda reader: reader.all(sql, self._read))
        self._read = rows[-1]["pseq"] if rows else self._read
        events = [msgspec.json.decode(row["event"]) for row in rows]
        for event in events:
            schema = json.loads((PROJECT / f"contract/publishes/{event['type']}.schema.json").read_text())
            jsonschema_rs.validator_for(schema).validate(event["data"])
        return [(event["type"], event["subject"], event["data"]) for event in events]

    async def count(self, sql: str, *params: object) -> Any:
        """The one value that a query gives."""
        row = await self.database.read(lambda reader: reader.one(sql, *params))
        assert row is not None
        return row[0]


class Gateway:
    """Signs assertions as the gateway does."""

    def __init__(self) -> None:
        self.key = SigningKey.generate()

    def headers(self, scope: str, subject: str = "shop", audience: str = NAME) -> dict[str, str]:
        now = int(time.time())
        claims = Claims(
            iss="atoll-gateway",
            sub=subject,
            aud=audience,
            scope=scope,
            jti=str(uuid.uuid4()),
            iat=now,
            nbf=now,
            exp=now + 30,
            typ="assertion",
            client_id=None,
        )
        return {"Atoll-Assertion": mint(claims, self.key)}


def options(folder: Path, gateway: Gateway) -> atoll.Options:
    """Options of a service whose broker is away: HTTP works all the same, and the outbox fills."""
    keys = folder / "keys"
    keys.mkdir()
    public, secret = zmq.curve_keypair()
    for name, key in (("curve.public", public), ("curve.secret", secret), ("broker.public", public)):
        (keys / name).write_bytes(key + b"\n")
    (keys / "gateway.pub").write_bytes(gateway.key.public.to_pem())
    return atoll.Options(
        slot=f"{NAME}/1",
        host="127.0.0.1",
        port=0,
        data=folder / "data",
        keys=keys,
        bus="tcp://127.0.0.1:9",
        contract=PROJECT / "contract",
        migrations=PROJECT / "migrations",
    )
