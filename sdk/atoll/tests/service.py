"""A whole service in one file, run as a process by the tests: POST /notes publishes, and its own events come back."""

from __future__ import annotations

import sys
import time

import msgspec
from aiohttp import web as http

import atoll
from atoll import web

PLACED = "orders.order.placed.v1"


class Note(msgspec.Struct, forbid_unknown_fields=True):
    text: str


def make_app(options: atoll.Options) -> http.Application:
    database = atoll.Database(options.data / "service.db", options.migrations)
    events = atoll.SubscriptionTable()
    app = http.Application()

    @web.public
    async def post(request: http.Request) -> http.Response:
        note = await web.read_json(request, Note)
        await database.write(lambda tx: tx.publish(PLACED, "o-1", note))
        return http.json_response({}, status=202)

    @web.public
    async def count(_: http.Request) -> http.Response:
        rows = await database.read(lambda reader: reader.all("SELECT text FROM note"))
        return http.json_response({"texts": [row["text"] for row in rows]})

    if options.name == "orders":
        app.router.add_post("/orders/notes", post)
        web.attach(app, options, database=database, prefixes=["/orders"])
    else:
        app.router.add_get("/notes", count)

        @events.on(PLACED, Note)
        def keep(event: atoll.Event[Note], tx: atoll.Transaction) -> None:
            if event.data.text == "hang":
                time.sleep(60)
            tx.execute("INSERT INTO note VALUES (?)", event.data.text)

        web.attach(app, options, database=database, events=events, prefixes=["/notes"])
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
