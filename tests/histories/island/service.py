"""A service on the SDK: every order has one effect here, and every eighth is echoed from the same transaction.

Beside the SDK's inbox and outbox it keeps what it did (`effect`) and what it published (`said`), in the same commit:
what stands in `said` was promised to be sent, and what does not must never be seen.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time

import msgspec
from aiohttp import web as http

import atoll
from atoll import web

ORDER, ECHO = "shop.order.placed.v1", "island.order.echoed.v1"
ECHO_EVERY = 8
DAWDLE_SECONDS = 0.0005


class Order(msgspec.Struct):
    n: int
    kind: str
    pad: str


class Echo(msgspec.Struct):
    n: int
    kind: str
    cause: str


def digest(data: Echo) -> str:
    """As records.digest makes it of what arrives."""
    text = json.dumps(msgspec.to_builtins(data), separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def make_app(options: atoll.Options) -> http.Application:
    database = atoll.Database(options.data / "island.db", options.migrations)
    events = atoll.SubscriptionTable()
    app = http.Application()

    @events.on(ORDER, Order)
    def keep(event: atoll.Event[Order], tx: atoll.Transaction) -> None:
        tx.execute("INSERT INTO effect (id, key) VALUES (?, ?)", event.id, event.subject)
        time.sleep(DAWDLE_SECONDS)
        if event.data.n % ECHO_EVERY == 0:
            echo = Echo(event.data.n, "plain", event.id)
            said = tx.publish(ECHO, event.subject, echo)
            tx.execute(
                "INSERT INTO said (id, key, digest, cause) VALUES (?, ?, ?, ?)",
                said, event.subject, digest(echo), event.id,
            )  # fmt: skip

    web.attach(app, options, database=database, events=events)
    return app


def main() -> None:
    try:
        options = atoll.Options.from_environment()
        app = make_app(options)
    except atoll.ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from None
    web.serve(app, options)


if __name__ == "__main__":
    main()
