"""How notifications is put together. It has no HTTP face but its health: all that it hears comes by the bus."""

from aiohttp import web

import atoll
import atoll.web
from atoll_notifications.courier import Courier
from atoll_notifications.handlers import subscriptions
from atoll_notifications.maildir import Maildir
from atoll_notifications.metrics import Metrics
from atoll_notifications.settings import Settings

DATABASE = web.AppKey("database", atoll.Database)
COURIER = web.AppKey("courier", Courier)


def make_app(options: atoll.Options, settings: Settings) -> web.Application:
    """Raises ConfigurationError; makes the maildir."""
    app = web.Application()
    database = app[DATABASE] = atoll.Database(options.data / "notifications.db", options.migrations)
    maildir = Maildir(settings.maildir)
    maildir.make()
    metrics = Metrics()
    courier = app[COURIER] = Courier(database, maildir, settings, metrics)
    attachment = atoll.web.attach(app, options, events=subscriptions(settings, courier.ring), database=database)
    attachment.also_degraded.append(courier.degraded)
    metrics.register(attachment.registry)
    app.cleanup_ctx.append(courier.lifetime)  # after the database has opened, before it closes
    return app
