"""The shell around the core: one loop that reads and writes the socket, one thread that writes the disk.

    turn:  drain the socket ▶ core ▶ send ▶ hand a batch to the writer thread, if none is there
                                                        │ flushed
    turn:  … ◀──────────── committed: PUBACKs, deliveries ◀┘

While a batch is on its way to the disk the loop goes on reading, and what it reads becomes the next batch: the slower
the disk, the larger the batches. If a flush fails the process stops there, with nothing more sent.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

import structlog
import zmq

from . import health, keys
from . import mesh as meshes
from .bus_socket import BusSocket
from .clock import Clock, SystemClock
from .core import Core, Lookup
from .errors import EXIT_INTERNAL, EXIT_STORAGE, ConfigurationError, StorageFailedError, StorageFullError
from .journal import Commit
from .mesh import Mesh
from .options import Options
from .storage import Storage, Trimmed
from .zap import Porter

RECEIVE_MAX: Final = 256  # messages a turn, so that time, sends and commits get their share
TURN_SECONDS: Final = 0.02  # leases, backoffs and coalesced acks are this exact; also the net under the edge-trigger
KEYS_SECONDS: Final = 1.0
DRAIN_SECONDS: Final = 8.0
# A client's libzmq drops what its program has not read yet when the connection goes (measured).
FAREWELL_SECONDS: Final = 0.2
NOTE_SECONDS: Final = 10.0
NOTES_MAX: Final = 50


class Server:
    """Run once. `storage` and `clock` are given so that tests can make them fail and stand still."""

    def __init__(
        self,
        options: Options,
        mesh: Mesh,
        storage: Storage,
        logger: structlog.typing.FilteringBoundLogger,
        clock: Clock | None = None,
    ) -> None:
        self._options = options
        self._mesh = mesh
        self._storage = storage
        self._logger = logger
        self._clock = clock or SystemClock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._searcher = ThreadPoolExecutor(1, thread_name_prefix="searcher")
        self._zmq: zmq.Context[Any] = zmq.Context()
        self._exit_code: int | None = None
        self.serving = asyncio.Event()
        self._ended = asyncio.Event()
        self._turning = False
        self._draining = False
        self._flushed = asyncio.Event()
        self._turn_due = False
        self._why = "starting"
        self._noted: dict[str, tuple[float, int]] = {}

    async def run(self) -> int:
        """Serves until a signal or a failure; the exit code. Raises ConfigurationError, StorageLockedError,
        StorageFailedError or PortTakenError if it can not start."""
        self._loop = asyncio.get_running_loop()
        try:
            self._open()
            runner = await self._serve_health()
            try:
                self._start_turning()
                await self._ended.wait()
            finally:
                self._stop_turning()
                await runner.cleanup()
        finally:
            self._close()
        return self._exit_code or 0

    def stop(self) -> None:
        """Drains and ends; a second call changes nothing."""
        if not self._draining:
            self._draining = True
            self._why = "draining"
            self._logger.info("draining")
            self._drain_task = self._loop.create_task(self._drain())

    # ---- start and end -----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        secret = keys.read_key(self._options.keys / "curve.secret")
        self._mesh_stamp = _stamp(self._options.mesh)
        self._clients = self._options.keys / "clients"
        self._key_stamp = keys.stamp(self._clients)
        self._porter = Porter(self._zmq, keys.read_allow_list(self._clients))
        self._socket = BusSocket(self._zmq, secret, self._mesh.bus, self._unreachable)
        self._core = Core(self._mesh, self._storage, self._clock, SystemRandom(), self._note)
        self.endpoint = self._socket.bind(self._options.bus)
        self._why = ""
        self.serving.set()
        self._logger.info(
            "serving",
            bus=self.endpoint,
            boot=self._core.boot,
            log=self._core.log_id,
            oldest=self._core.log.oldest,
            last=self._core.log.last,
        )

    async def _serve_health(self) -> Any:
        app = health.make_app(self._core, lambda: self._why, lambda: self._porter.refused_total, self._options.data)
        return await health.serve(app, self._options.host, self._options.port)

    def _start_turning(self) -> None:
        self._turning = True
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stop)
        self._loop.add_reader(self._porter.descriptor, self._guarded(self._answer_porter))
        self._loop.add_reader(self._socket.descriptor, self._schedule)
        self._every(TURN_SECONDS, self._schedule)
        self._every(TURN_SECONDS, self._guarded(self._answer_porter))
        self._every(KEYS_SECONDS, self._guarded(self._reload_keys))
        self._every(KEYS_SECONDS, self._guarded(self._reload_mesh))
        self._schedule()

    def _stop_turning(self) -> None:
        self._turning = False  # timers that are set already fire once more, upon sockets that are closed by then
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)
        self._loop.remove_reader(self._porter.descriptor)
        self._loop.remove_reader(self._socket.descriptor)

    def _close(self) -> None:
        self._writer.shutdown(wait=True)
        self._searcher.shutdown(wait=True, cancel_futures=True)
        for name in ("_socket", "_porter"):
            if hasattr(self, name):
                getattr(self, name).close()
        self._storage.close()
        self._zmq.term()

    def _fail(self, exit_code: int, event: str, **fields: object) -> None:
        """Ends the broker as it is: nothing more is read, sent or written."""
        if self._exit_code is None:
            self._exit_code = exit_code
            self._why = event
            self._logger.error(event, exit_code=exit_code, **fields)
            self._ended.set()

    # ---- the turn ----------------------------------------------------------------------------------------------------

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        """No error inside the loop is lost, and none leaves a broker half alive."""

        def run() -> None:
            if self._exit_code is not None or not self._turning:
                return
            try:
                work()
            except StorageFailedError as error:
                self._fail(EXIT_STORAGE, "storage failed", error=str(error))
            except Exception:
                self._fail(EXIT_INTERNAL, "internal error", exc_info=True)

        return run

    def _every(self, seconds: float, work: Callable[[], None]) -> None:
        def again() -> None:
            if self._exit_code is None and self._turning:
                self._loop.call_later(seconds, again)
                work()

        self._loop.call_later(seconds, again)

    def _schedule(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._guarded(self._turn))

    def _turn(self) -> None:
        self._turn_due = False
        self._receive()
        self._core.tick()
        more = self._core.poll()
        self._send()
        self._start_commit()
        self._start_lookups()
        if more or self._socket.readable:
            self._schedule()

    def _receive(self) -> None:
        for _ in range(RECEIVE_MAX):
            message = self._socket.receive()
            if message is None:
                return
            route, user_id, frames = message
            identity = self._porter.allowed.identities.get(user_id)
            if identity is None:
                self._note("message of a revoked key", user=user_id)
            elif not self._draining:
                self._core.receive(route, identity, frames)

    def _send(self) -> None:
        self._socket.retry()
        while out := self._core.take_out():
            for route, frames in out:
                self._socket.send(route, frames)

    def _unreachable(self, route: bytes, why: str) -> None:
        self._core.unreachable(route, why)

    def _answer_porter(self) -> None:
        while self._porter.drain():
            pass

    # ---- the disk ----------------------------------------------------------------------------------------------------

    def _start_commit(self) -> None:
        commit = self._core.take_commit(force=self._draining)
        if commit is not None:
            future = self._loop.run_in_executor(self._writer, self._storage.commit, commit.batch)
            future.add_done_callback(lambda done: self._guarded(lambda: self._finish_commit(commit, done))())
        elif self._draining and not self._core.committing:
            self._flushed.set()

    def _finish_commit(self, commit: Commit, done: asyncio.Future[Trimmed | None]) -> None:
        """On the loop again. A commit that failed raises here, and its events are never acked."""
        try:
            trimmed = done.result()
        except StorageFullError:
            self._core.disk_full(commit)
        else:
            self._core.committed(commit, trimmed)
        self._turn()
        if self._storage.checkpoint_due:
            future = self._loop.run_in_executor(self._writer, self._storage.checkpoint)
            future.add_done_callback(lambda ended: self._guarded(lambda: ended.result())())

    def _start_lookups(self) -> None:
        for lookup in self._core.take_lookups():
            future = self._loop.run_in_executor(self._searcher, lookup.ask)
            future.add_done_callback(self._finish_lookup(lookup))

    def _finish_lookup(self, lookup: Lookup) -> Callable[[asyncio.Future[object]], None]:
        def finish(done: asyncio.Future[object]) -> None:
            if not done.cancelled():
                self._guarded(lambda: self._core.answered(lookup, done.result()))()
                self._schedule()

        return finish

    async def _drain(self) -> None:
        """What was taken is committed and acked, then everyone is told."""
        self._schedule()
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._flushed.wait()
        except TimeoutError:
            self._logger.warning("drain timed out", seconds=DRAIN_SECONDS)
        self._guarded(self._say_farewell)()
        await asyncio.sleep(FAREWELL_SECONDS)
        self._logger.info("stopped")
        self._ended.set()

    def _say_farewell(self) -> None:
        self._core.farewell()
        self._send()

    # ---- keys --------------------------------------------------------------------------------------------------------

    def _reload_keys(self) -> None:
        """A key that was removed or replaced lets nobody in, and ends the sessions that it opened."""
        stamp = keys.stamp(self._clients)
        if stamp == self._key_stamp:
            return
        allowed, unreadable = keys.reread_allow_list(self._clients)
        for why in unreadable:
            self._note("key unreadable, it lets nobody in", error=why)
        self._key_stamp = stamp
        revoked = set(self._porter.allowed.identities) - set(allowed.identities)
        for user_id in revoked:
            self._core.revoke(self._porter.allowed.identities[user_id])
        self._porter.allowed = allowed
        self._logger.info("keys reloaded", identities=len(allowed.identities), revoked=len(revoked))
        self._schedule()

    def _reload_mesh(self) -> None:
        """A file that can not be used changes nothing, and is an alarm until it is mended."""
        stamp = _stamp(self._options.mesh)
        if stamp == self._mesh_stamp:
            return
        self._mesh_stamp = stamp
        try:
            self._core.reload(meshes.load(self._options.mesh))
        except ConfigurationError as error:
            self._core.mesh_problem = str(error)
            self._logger.error("mesh.toml is not in force", error=str(error))
        else:
            self._logger.info("mesh.toml reloaded", waits_for_restart=self._core.mesh_waiting)
        self._schedule()

    def _note(self, event: str, **fields: object) -> None:
        """At most NOTES_MAX lines of a kind in NOTE_SECONDS, then how many were left out: a peer that misbehaves must
        not fill the disk by way of the log."""
        since, count = self._noted.get(event, (0.0, 0))
        if self._loop.time() - since >= NOTE_SECONDS:
            if count > NOTES_MAX:
                self._logger.warning("lines left out", of=event, count=count - NOTES_MAX)
            since, count = self._loop.time(), 0
        self._noted[event] = (since, count + 1)
        if count < NOTES_MAX:
            self._logger.info(event, **fields)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file does; None while there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
