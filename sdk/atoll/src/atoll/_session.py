"""The session with the broker: one socket, kept for as long as it lives, then another one.

           ┌───────────── wait with jitter, at most a second ─────────────┐
    connect ─▶ HELLO ─▶ WELCOME ─▶ up: parts talk, PING every heartbeat ─▶ lost
                 2 s         │                                              ▲
                 └───────────┴── socket gone, silence, ERR that closes, BYE ┘

Nothing survives a loss but what is in the database: parts (relay, consumer) begin again from WELCOME. That is what
makes it simple to be right: there is no half-old state to repair. A part never waits for the session; it is told.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import structlog

from . import _codec as wire
from ._errors import AtollError, BusRefusedError, BusUnavailableError
from ._options import Options
from ._tap import Tap, Taps
from ._transport import Connector, CurveKeys, Transport, ZmqConnector

HELLO_SECONDS = 2.0
BACKOFF_SECONDS = (0.5, 1.0)
"""Full jitter below the first, then below the last: a broker's restart is ridden out in about a second, and no herd
comes at once, not even to a broker that has lost its connections alone and is there."""
REFUSED_BACKOFF_SECONDS = 5.0
"""After the broker has said no to HELLO: only an operator can change that."""
SILENT_HEARTBEATS_MAX = 4
REQUEST_SECONDS = 10.0
REQUESTS_MAX = 64
BYE_SECONDS = 0.5
SDK_VERSION = "0.1.0"

Watcher = Callable[[Any, bool], None]
_log = structlog.get_logger("atoll.session")


class Link:
    """One live session as its parts see it; of no use once it is lost."""

    def __init__(self, transport: Transport, welcome: wire.Welcome) -> None:
        self._transport = transport
        self.welcome = welcome

    def send(self, message: wire.Outgoing, payload: bytes | None = None) -> None:
        """Queues a message. After the loss it goes nowhere, which is what the parts count on."""
        self._transport.send(wire.encode(message, payload))


class Part(Protocol):
    """Something that talks over the session: the relay, the consumer."""

    def welcomed(self, link: Link) -> None:
        """A session is up."""

    def received(self, message: wire.Incoming, frames: list[bytes]) -> None:
        """A message came; ignore what is not yours."""

    def lost(self) -> None:
        """The session is gone, and all that was in flight with it."""


class Profile(msgspec.Struct, kw_only=True):
    """What HELLO announces about this process."""

    version: str = ""
    producer: str | None = None
    endpoints: wire.Endpoints | None = None
    contracts: wire.Contracts = wire.Contracts()


class Liveness(msgspec.Struct, frozen=True, kw_only=True):
    """What PING tells the broker, and it the registry."""

    in_flight: int = 0
    oldest_ms: int = 0
    ready: bool = True
    why: str = ""


class Session:
    """This process's session with the broker, reconnecting for as long as it runs.

    A service gets it from `web.attach`. Others use it by themselves:

        async with atoll.Session(options) as session:
            session.watch("registry", update)

    Starting does not wait for the broker and never fails because of it. `connector` opens the transport; the default is
    ZeroMQ with the keys of `options`.
    """

    def __init__(self, options: Options, *, connector: Connector | None = None) -> None:
        self._options = options
        self._connector = connector
        self._zmq: ZmqConnector | None = None
        self._state = "connecting"
        self._task: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._ended: asyncio.Future[str] | None = None
        self._up = asyncio.Event()
        self._previous: str | None = None
        self._process = str(uuid.uuid4())
        self._taps = Taps()
        self._parts: list[Part] = [self._taps]
        self._watchers: dict[str, list[Watcher]] = {}
        self._values: dict[str, wire.State] = {}
        self._requests: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._request_ids = itertools.count(1)
        self._refused = False
        self._last_heard = 0.0
        self.profile = Profile()
        """Set it before the start."""
        self.liveness: Callable[[], Liveness] = Liveness
        self.sessions = 0
        """How many were opened; a metric."""

    # ---- for everybody -----------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """`connecting`, `up` or `down: why`."""
        return self._state

    def watch(self, kind: str, callback: Watcher) -> None:
        """Calls `callback(value, settled)` on the loop with the whole value, at first and whenever it changes.

        `kind` is registry, keys or revocations. While `settled` is false the broker has just started: add what you see,
        and remove nothing. After a loss of the session the last value stays in force; nothing is called.
        """
        known = self._watchers.setdefault(kind, [])
        known.append(callback)
        if kind in self._values:
            callback(self._values[kind].state, self._values[kind].settled)
        elif len(known) == 1 and self._link is not None:
            self._link.send(wire.Watch(kind))

    async def put(self, kind: str, value: object) -> None:
        """Sets a state for its watchers (auth: keys, revocations).

        Raises BusUnavailableError (the outcome is unknown: put it again) or BusRefusedError.
        """
        await self._request(lambda request: wire.Put(kind, value, request))

    async def admin(self, verb: str, **args: Any) -> dict[str, Any]:
        """An operator's request, such as `admin("dlq.replay", group="orders", subject="o-1")`; needs the admin grant.

        Verbs and their arguments: `broker/spec/wire-1.md` §9. Raises BusUnavailableError (the outcome is unknown) or
        BusRefusedError.
        """
        return await self._request(lambda request: wire.Admin(request, verb, **args))

    def tap(self, topics: Sequence[str], after: int | None = None) -> Tap:
        """Looks at events as they are committed, without being a consumer; needs the tap grant.

            async with session.tap(["orders.*"]) as tap:
                async for seen in tap:              # Tapped(seq, event) | Missed(events, why)

        With `after`, those that are kept with a seq above it come first. Nothing waits for a tap: what it does not take
        in time it loses, and is told so. It outlives the session: the next one goes on after the last seq that came.
        Raises OverloadedError above eight at a time; its iteration BusRefusedError.
        """
        return self._taps.open(topics, after)

    async def wait_up(self, timeout_seconds: float) -> None:
        """Waits for a session; raises BusUnavailableError saying why there is none yet."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._up.wait()
        except TimeoutError:
            raise BusUnavailableError(f"no session within {timeout_seconds:g} s: {self._state}") from None

    async def start(self) -> None:
        """Begins to connect. Raises ConfigurationError for a missing key; never because of the broker."""
        if self._connector is None:
            self._zmq = ZmqConnector(self._options.bus, CurveKeys.read(self._options.keys))
            self._connector = self._zmq
        self._task = asyncio.create_task(self._run(self._connector), name="atoll session")
        self._task.add_done_callback(self._ran)

    async def stop(self, reason: str = "stopped") -> None:
        """Says BYE, which hands back what is in flight, and closes. Stopping twice does nothing."""
        task, self._task = self._task, None
        if task is None:
            return
        if self._link is not None and self._ended is not None:
            self._link.send(wire.ClientBye(reason))
            await asyncio.wait([self._ended], timeout=BYE_SECONDS)
        task.cancel()
        await asyncio.wait([task])
        if self._zmq is not None:
            self._zmq.close()

    async def __aenter__(self) -> Session:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # ---- for the parts of this library -------------------------------------------------------------------------

    def add(self, part: Part) -> None:
        """Adds a part; before the start."""
        self._parts.append(part)

    def tell(self) -> None:
        """Tells the broker about this process now rather than at the next heartbeat."""
        if self._link is not None:
            self._link.send(_ping(self.liveness(), 0.0))

    # ---- the life of sessions ----------------------------------------------------------------------------------

    async def _run(self, connector: Connector) -> None:
        failures = 0
        while True:
            sessions = self.sessions
            why = await self._guarded_one(connector)
            failures = 0 if self.sessions > sessions else failures + 1
            self._note_down(why)
            limit = REFUSED_BACKOFF_SECONDS if self._refused else BACKOFF_SECONDS[failures > 0]
            await asyncio.sleep(random.uniform(0, limit))  # noqa: S311 - jitter, no secret

    def _ran(self, task: asyncio.Task[None]) -> None:
        """It runs until it is cancelled; if it ends otherwise that is a bug, which must not be found out by silence."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("the session has failed and will not come back", exc_info=error, alarm=True)
            self._state = f"down: {type(error).__name__}: {error}"[:200]

    async def _guarded_one(self, connector: Connector) -> str:
        """A session's own bug, or no file descriptor left for its socket, is the end of that session alone."""
        try:
            return await self._one(connector)
        except Exception as error:
            _log.exception("the session failed")
            return f"{type(error).__name__}: {error}"[:200]

    async def _one(self, connector: Connector) -> str:
        """Opens a session and keeps it; returns why it ended."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str] = loop.create_future()
        self._ended = ended
        self._refused = False

        def lost(why: str) -> None:
            if not ended.done():
                ended.set_result(why)

        transport = connector(lambda frames: self._take(transport, frames), lost)
        try:
            self._last_heard = loop.time()
            transport.send(wire.encode(self._hello()))
            if not await self._welcomed(ended):
                return f"no answer to HELLO within {HELLO_SECONDS:g} s: broker down, or key not in its allow-list"
            if self._link is not None:
                await self._keep_alive(self._link, ended)
            return ended.result()
        finally:
            self._drop()
            transport.close()

    def _hello(self) -> wire.Hello:
        profile = self.profile
        return wire.Hello(
            slot=self._options.slot,
            process=self._process,
            sdk=f"atoll/{SDK_VERSION}",
            version=profile.version,
            producer=profile.producer,
            endpoints=profile.endpoints,
            contracts=profile.contracts,
            resume=self._previous,
        )

    async def _welcomed(self, ended: asyncio.Future[str]) -> bool:
        """Waits for WELCOME, or the end of the connection; false if neither comes in time."""
        up: asyncio.Future[Any] = asyncio.ensure_future(self._up.wait())
        first: list[asyncio.Future[Any]] = [ended, up]
        try:
            done, _ = await asyncio.wait(first, timeout=HELLO_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return bool(done)
        finally:
            up.cancel()

    async def _keep_alive(self, link: Link, ended: asyncio.Future[str]) -> None:
        """Pings every heartbeat until the session has ended, or ends it over the broker's silence."""
        loop = asyncio.get_running_loop()
        heartbeat = link.welcome.heartbeat_ms / 1000
        lag = 0.0
        while not ended.done():
            link.send(_ping(self.liveness(), lag))
            asked = loop.time()
            await asyncio.wait([ended], timeout=heartbeat)
            lag = max(0.0, loop.time() - asked - heartbeat)
            if lag > heartbeat:  # we were not reading, so the silence says nothing about the broker
                self._last_heard = loop.time()
            silent = loop.time() - self._last_heard
            if silent > SILENT_HEARTBEATS_MAX * heartbeat and not ended.done():
                ended.set_result(f"the broker was silent for {silent:.1f} s")

    def _take(self, transport: Transport, frames: list[bytes]) -> None:
        ended = self._ended
        assert ended is not None
        self._last_heard = asyncio.get_running_loop().time()
        try:
            message = wire.decode(frames)
            self._dispatch(transport, ended, message, frames)
        except wire.WireError as error:
            _log.error("the broker sent what is not wire 1", error=str(error)[:500])
            if not ended.done():
                ended.set_result(f"the broker sent what is not wire 1: {error}"[:200])
        except Exception as error:  # a part's bug: going on could leave it waiting for what it failed to note
            _log.exception("a part of the session failed", command=bytes(frames[0]))
            if not ended.done():
                ended.set_result(f"a part failed: {type(error).__name__}")

    def _dispatch(
        self, transport: Transport, ended: asyncio.Future[str], message: wire.Incoming | None, frames: list[bytes]
    ) -> None:
        match message:
            case None | wire.Pong():
                return
            case wire.Welcome():
                self._welcome(Link(transport, message))
            case wire.State():
                self._values[message.kind] = message
                for watcher in self._watchers.get(message.kind, ()):
                    _guarded(watcher, message)
            case wire.Result():
                self._answer(message.request, message.fields, None)
            case wire.Err() if message.request is not None:
                self._answer(message.request, {}, BusRefusedError(message.code, message.text, message.field))
            case wire.Fenced() | wire.BrokerBye():
                if not ended.done():
                    ended.set_result(f"the broker ended the session: {message.reason}"[:200])
            case _:
                if isinstance(message, wire.Err):
                    self._note_error(ended, message)
                for part in self._parts:
                    part.received(message, frames)

    def _welcome(self, link: Link) -> None:
        self._link = link
        self._previous = link.welcome.session
        self.sessions += 1
        self._state = "up"
        self._up.set()
        _log.info("bus up", session=link.welcome.session, boot=link.welcome.boot)
        for kind in self._watchers:
            link.send(wire.Watch(kind))
        for part in self._parts:
            part.welcomed(link)

    def _drop(self) -> None:
        link, self._link = self._link, None
        self._up.clear()
        for future in self._requests.values():
            if not future.done():
                future.set_exception(BusUnavailableError("the session ended before the answer came"))
        self._requests.clear()
        if link is not None:
            for part in self._parts:
                part.lost()

    def _note_error(self, ended: asyncio.Future[str], error: wire.Err) -> None:
        text = f"{error.code}: {error.text}" + (f" ({error.field})" if error.field else "")
        _log.error("the broker refused", code=error.code, text=error.text, field=error.field, closes=error.closes)
        if error.closes and not ended.done():
            self._refused = self._link is None
            ended.set_result(text[:200])

    def _note_down(self, why: str) -> None:
        state = f"down: {why}"
        if state != self._state:  # once a reason, not once a try
            _log.warning("bus down", why=why)
        self._state = state

    # ---- requests ----------------------------------------------------------------------------------------------

    async def _request(self, make: Callable[[str], wire.Outgoing]) -> dict[str, Any]:
        if self._link is None:
            raise BusUnavailableError(f"no session with the broker: {self._state}")
        if len(self._requests) >= REQUESTS_MAX:
            raise AtollError(f"{REQUESTS_MAX} requests wait for an answer already")
        request = f"r-{next(self._request_ids)}"
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._requests[request] = future
        try:
            self._link.send(make(request))
            async with asyncio.timeout(REQUEST_SECONDS):
                return await future
        except TimeoutError:
            raise BusUnavailableError(f"no answer within {REQUEST_SECONDS:g} s") from None
        finally:
            self._requests.pop(request, None)

    def _answer(self, request: str | int | None, fields: dict[str, Any], error: Exception | None) -> None:
        future = self._requests.get(str(request))
        if future is None or future.done():
            return
        if error is None:
            future.set_result(fields)
        else:
            future.set_exception(error)


def _ping(live: Liveness, lag_seconds: float) -> wire.Ping:
    return wire.Ping(round(lag_seconds * 1000, 1), live.in_flight, live.oldest_ms, live.ready, live.why)


def _guarded(watcher: Watcher, state: wire.State) -> None:
    try:
        watcher(state.state, state.settled)
    except Exception:
        _log.exception("a watcher failed", kind=state.kind)
