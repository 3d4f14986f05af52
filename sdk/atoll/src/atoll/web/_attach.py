"""Makes an aiohttp application a service of the system.

    observe ─▶ problems ─▶ slow bodies ─▶ security ─▶ idempotency guard ─▶ handler     middlewares, outermost first
    database ─▶ relay, consumer ─▶ session                                             opened in order, closed backwards

What can be wrong with the configuration is found before anything is opened. What can be wrong with the world later (the
broker, a collector) never stops the service: its health is its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from .. import _codec as wire
from .. import telemetry
from .._consumer import Consumer
from .._database import Database
from .._errors import ConfigurationError, FatalError
from .._events import SubscriptionTable
from .._options import Options
from .._relay import Relay
from .._session import Liveness, Profile, Session
from . import _contract
from ._hardening import slow_bodies
from ._idempotency import running_guard
from ._metrics import AtollCollector
from ._observe import HttpCounters, observing
from ._problems import problems
from ._security import Gatekeeper, public, security

LIVE, READY, METRICS = "/live", "/ready", "/metrics"
_HEALTH = frozenset({LIVE, READY, METRICS})
DRAIN_SECONDS = 2.0
"""For handlers of events that are here already; what is left goes back to the broker."""
FLUSH_SECONDS = 2.0
"""For the outbox; what is left waits in the database for the next start."""
PORT: web.AppKey[int] = web.AppKey("atoll_port", int)
"""The port that `serve` listens on, where Options left it open."""
_log = structlog.get_logger("atoll.web")


class Attachment:
    """What `attach` has added to an application."""

    def __init__(
        self, app: web.Application, options: Options, database: Database | None, prefixes: Sequence[str],
        version: str,
    ) -> None:  # fmt: skip
        self.session = Session(options)
        """The session with the broker: watch, put, admin, state."""
        self.registry = CollectorRegistry(auto_describe=False)
        """Shown at /metrics; a service registers its own metrics here."""
        self.also_degraded: list[Callable[[], list[str]]] = []
        """Asked at /ready: what does not work of what the service does by itself, such as `maildir: no space`."""
        self.failure: FatalError | None = None
        """Set once the service cannot go on (its disk has failed); `serve` ends the process then."""
        self.on_failure: Callable[[], None] | None = None
        self._app = app
        self._options = options
        self._database = database
        self._prefixes = tuple(prefixes)
        self._version = version
        self._relay = Relay(database, options.name) if database is not None else None
        self._consumer: Consumer | None = None
        self._contracts = wire.Contracts()
        self._why_not_ready = "starting"
        self._gatekeeper: Gatekeeper | None = None
        self._tasks: asyncio.Task[None] | None = None

    @property
    def degraded(self) -> list[str]:
        """What does not work now although the service is ready: `bus`; `outbox`, `consumer` or `storage: why`."""
        out = []
        if self.session.state != "up":
            out.append("bus")
        if self._relay is not None and self._relay.stopped:
            out.append(f"outbox: {self._relay.stopped}")
        if self._relay is not None and self._relay.refused_rows:
            out.append(f"outbox: {self._relay.refused_rows} events were refused")
        if self._consumer is not None and self._consumer.refused:
            out.append(f"consumer: {self._consumer.refused}")
        if self._consumer is not None and self._consumer.away:
            out.append(f"storage: {self._consumer.away}; no event is handled until a commit succeeds")
        for ask in self.also_degraded:
            out.extend(ask())
        return out

    def drain(self) -> None:
        """Says at /ready and to the registry that this instance is going; `serve` calls it at SIGTERM."""
        self._why_not_ready = "draining"

    # ---- wiring ------------------------------------------------------------------------------------------------

    def install(self, events: SubscriptionTable | None, hooks: Sequence[Callable[[Session], None]]) -> None:
        """Checks the contract folder and adds routes, middlewares and the lifetime to the application."""
        if events is not None and len(events) and self._database is None:
            raise ConfigurationError("attach: events need a database: the inbox lies there")
        self._contracts = _contract.read_contracts(self._options.contract, events)
        if self._database is not None:
            self._database.publisher.bind(self._options.name, self._contracts.publishes)
            self._database.on_failure = self._fail
            if events is not None and len(events):
                self._consumer = Consumer(self._options.name, events, self._database)
        counters = HttpCounters()
        self._collector = AtollCollector(
            self.session, self._relay, self._consumer, counters, self._version, self._options.data
        )
        self.registry.register(self._collector)
        _contract.read_routes(self._app, _HEALTH)  # those that are there already: the sooner it is said the better
        for path, handler in ((LIVE, self._live), (READY, self._ready), (METRICS, self._metrics)):
            self._app.router.add_get(path, public(handler))
        for hook in hooks:
            hook(self.session)
        self._app.middlewares.extend(
            (observing(counters, _HEALTH), problems, slow_bodies, security(lambda: self._gatekeeper), running_guard())
        )
        self._app.cleanup_ctx.append(self._lifetime)
        self._app[ATTACHMENT] = self

    # ---- lifetime ----------------------------------------------------------------------------------------------

    async def _lifetime(self, app: web.Application) -> AsyncIterator[None]:
        routes = _contract.read_routes(app, _HEALTH)
        _contract.check_prefixes(routes, self._prefixes)
        if any(route.scope is not None for route in routes):
            self._gatekeeper = Gatekeeper(self._options)
        producer = await self._open_database()
        try:
            await self._open_session(routes, producer)
            self._why_not_ready = ""
            yield
        finally:
            await self._close()

    async def _open_database(self) -> str | None:
        if self._database is None:
            return None
        await self._database.open()
        assert self._relay is not None
        try:
            return await self._relay.open()
        except BaseException:
            await self._database.close()
            raise

    async def _open_session(self, routes: list[wire.Route], producer: str | None) -> None:
        openapi = _contract.read_openapi(self._options.contract)
        url = _contract.base_url(self._options, self._app.get(PORT, self._options.port))
        self.session.profile = Profile(
            version=self._version,
            producer=producer if self._contracts.publishes else None,
            endpoints=wire.Endpoints(url, self._prefixes, routes, openapi) if routes else None,
            contracts=self._contracts,
        )
        self.session.liveness = self._liveness
        for part in (self._relay, self._consumer):
            if part is not None and (part is self._consumer or self._contracts.publishes):
                self.session.add(part)
        self._tasks = asyncio.create_task(self._run_parts(), name="atoll parts")
        self._tasks.add_done_callback(self._parts_ended)
        await self.session.start()

    async def _run_parts(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            if self._relay is not None:
                tasks.create_task(self._relay.run(), name="atoll relay")
            if self._consumer is not None:
                tasks.create_task(self._consumer.run(), name="atoll consumer")

    def _parts_ended(self, task: asyncio.Task[None]) -> None:
        """A bug: the parts run until they are cancelled. Half a service would be worse than a restart."""
        if task.cancelled() or task.exception() is None:
            return
        _log.error("the relay or the consumer has failed", exc_info=task.exception())
        self._fail(FatalError("the relay or the consumer has failed; the log says why"))

    def _fail(self, error: FatalError) -> None:
        if self.failure is None:
            self.failure = error
            self._why_not_ready = str(error)
            if self.on_failure is not None:
                self.on_failure()

    async def _close(self) -> None:
        """Backwards: no new events, finish those that are here, send what they published, say BYE, close."""
        self.drain()
        if self._consumer is not None:
            await self._consumer.drain(DRAIN_SECONDS)
        if self._relay is not None and self._contracts.publishes and self.failure is None:
            await self._relay.flush(FLUSH_SECONDS)
        await self.session.stop("drained")
        if self._tasks is not None:
            self._tasks.cancel()
            await asyncio.wait([self._tasks])
        if self._database is not None:
            await self._database.close()

    # ---- health ------------------------------------------------------------------------------------------------

    def _liveness(self) -> Liveness:
        consumer = self._consumer
        return Liveness(
            in_flight=consumer.in_flight if consumer is not None else 0,
            oldest_ms=consumer.oldest_ms if consumer is not None else 0,
            ready=not self._why_not_ready,
            why=self._why_not_ready,
        )

    async def _live(self, _request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        why = self._why_not_ready
        body = {"ready": not why, "why": why, "degraded": self.degraded}
        return web.json_response(body, status=503 if why else 200)

    async def _metrics(self, _request: web.Request) -> web.Response:
        if self._relay is not None and self.failure is None:
            self._collector.outbox = await self._relay.counts()
        text = generate_latest(self.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


ATTACHMENT: web.AppKey[Attachment] = web.AppKey("atoll_attachment", Attachment)


def attach(
    app: web.Application,
    options: Options,
    *,
    events: SubscriptionTable | None = None,
    database: Database | None = None,
    prefixes: Sequence[str] = (),
    session_hooks: Sequence[Callable[[Session], None]] | None = None,
    version: str | None = None,
) -> Attachment:
    """Makes `app` a service of the system: bus session, relay, consumer, health, metrics, assertion, problems, spans.

    `database` is opened and closed with the application. `events` are handled as the group named like the service, and
    need a database. `prefixes` are what the gateway routes here (`/orders`); every route lies under one. The hooks get
    the session before it starts, to add watches. `version` is what the part says of itself; by default that of the
    installed package `atoll-<name>`.

    Raises ConfigurationError, here or at the start, naming what is wrong: a route without `requires` or `public`, a
    topic whose handler and contract do not match, a missing key.
    """
    own_version = version if version is not None else telemetry.service_version(options.name)
    attachment = Attachment(app, options, database, prefixes, own_version)
    attachment.install(events, session_hooks or ())
    return attachment
