"""How sales is put together."""

from aiohttp import web

import atoll
import atoll.web
from atoll_sales.handlers import events
from atoll_sales.routes import DATABASE, routes


def make_app(options: atoll.Options) -> web.Application:
    app = web.Application()
    app[DATABASE] = atoll.Database(options.data / "sales.db", options.migrations)
    app.add_routes(routes)
    atoll.web.attach(app, options, events=events, database=app[DATABASE], prefixes=("/sales",))
    return app
