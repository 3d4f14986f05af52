"""How inventory is put together."""

from aiohttp import web

import atoll
import atoll.web
from atoll_inventory.handlers import subscriptions
from atoll_inventory.routes import DATABASE, SETTINGS, routes
from atoll_inventory.settings import Settings


def make_app(options: atoll.Options, settings: Settings) -> web.Application:
    app = web.Application()
    app[SETTINGS] = settings
    app[DATABASE] = atoll.Database(options.data / "inventory.db", options.migrations)
    app.add_routes(routes)
    events = subscriptions(settings.opening_stock)
    atoll.web.attach(app, options, events=events, database=app[DATABASE], prefixes=("/stock",))
    return app
