"""How payments is put together. It has no HTTP face but its health: all that it does comes and goes by the bus."""

from aiohttp import web

import atoll
import atoll.web
from atoll_payments.handlers import subscriptions
from atoll_payments.settings import Settings


def make_app(options: atoll.Options, settings: Settings) -> web.Application:
    app = web.Application()
    database = atoll.Database(options.data / "payments.db", options.migrations)
    atoll.web.attach(app, options, events=subscriptions(settings.decline_above), database=database)
    return app
