"""A whole service on the SDK for the tests: it keeps notes, those that it is sent and those that events tell of.

`POST /notes {"notes": [{"id", "key", "n"}…]}` keeps each note once and publishes it, in one transaction; so does an
event, whose effect has no key of its own in the database: had it two, there would be two rows.
"""

from __future__ import annotations

import sys

import msgspec
from aiohttp import web as http

import atoll
from atoll import web

PLACED = "shop.order.placed.v1"
KEPT = "desk.note.kept.v1"


class Note(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    key: str
    n: int


class Notes(msgspec.Struct, forbid_unknown_fields=True):
    notes: list[Note]


class Order(msgspec.Struct):
    n: int


class Kept(msgspec.Struct):
    n: int
    of: str


def make_app(options: atoll.Options) -> http.Application:
    database = atoll.Database(options.data / "desk.db", options.migrations)
    events = atoll.SubscriptionTable()
    app = http.Application()

    @web.public
    async def post(request: http.Request) -> http.Response:
        body = await web.read_json(request, Notes)
        await database.write(lambda tx: keep_new(tx, body.notes))
        return http.json_response({}, status=202)

    @events.on(PLACED, Order)
    def placed(event: atoll.Event[Order], tx: atoll.Transaction) -> None:
        tx.execute("INSERT INTO effect (id, key, n) VALUES (?, ?, ?)", event.id, event.subject, event.data.n)
        tx.publish(KEPT, event.subject, Kept(event.data.n, event.id))

    app.router.add_post("/notes", post)
    web.attach(app, options, database=database, events=events, prefixes=["/notes"])
    return app


def keep_new(tx: atoll.Transaction, notes: list[Note]) -> None:
    """Notes that are here already, because their sender heard no answer, are left as they are."""
    for note in notes:
        if tx.one("SELECT 1 FROM effect WHERE id = ?", note.id) is None:
            tx.execute("INSERT INTO effect (id, key, n) VALUES (?, ?, ?)", note.id, note.key, note.n)
            tx.publish(KEPT, note.key, Kept(note.n, note.id))


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
