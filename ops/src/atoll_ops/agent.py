"""The agent: keeps every slot of one system as it is wanted, on this host. The root of the process tree.

It owns the state directory by a lock, listens on a Unix socket for the command line and for control, and supervises
control like any other part: the operators' way in does not depend on what they operate. What runs does not depend on
the agent either: if it is killed, the parts go on, and the next agent adopts them by their locks.

Its life: come up (all parts at once; they wait for each other by themselves, so an order would only cost time), serve,
drain in reverse order. The socket speaks JSON lines: one request, then its answer or a stream of events.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from atoll_ops import keys, logtail, masking, reaper, sockets
from atoll_ops.instance import Instance
from atoll_ops.journal import Journal
from atoll_ops.launch import Plan, variables
from atoll_ops.operations import ActRefusedError, Operations
from atoll_ops.slots import Slot, SlotFiles
from atoll_ops.state import State, write_private

Event = dict[str, Any]

UP_SECONDS_MAX = 90.0
#: A part that is ready but still says "without bus" gets so long to find it before `up` stops waiting.
WHOLE_SECONDS = 15.0
_LOOK_EVERY_SECONDS = 0.02
_HISTORY = 500
_FAREWELL_SECONDS = 1.0
_REQUEST_BYTES_MAX = 64 * 1024
_TAIL_LINES = 12


class Agent:
    """One system under supervision. `listener` hears every event of coming up and draining, as followers do."""

    def __init__(self, plan: Plan, listener: Callable[[Event], None] | None = None) -> None:
        self.plan = plan
        self._listener = listener
        self._followers: set[_Follower] = set()
        self._history: deque[Event] = deque(maxlen=_HISTORY)
        self._journal = Journal(plan.site.agent_log())
        stopped = read_stopped(plan.state)
        self.instances = {
            slot: Instance(plan, part, slot, self._heard, wanted=str(slot) not in stopped)
            for part in plan.mesh.parts.values()
            for slot in [Slot(part.name)]
        }
        self._ending = asyncio.Event()
        self._at_once = asyncio.Event()
        self._coming_up = True
        self._exit_code = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._operations = Operations(self.instances, self._own, self._save_wishes)

    # ---- life ----------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Come up, serve until `end`, drain; the exit code."""
        self._journal.write("agent started", pid=os.getpid(), state=str(self.plan.state.root))
        try:
            async with asyncio.TaskGroup() as group:
                keepers = [group.create_task(instance.run()) for instance in self.instances.values()]
                server = await self._listen()
                rising = group.create_task(self._come_up())
                await self._ending.wait()
                rising.cancel()
                for operation in self._tasks:
                    operation.cancel()  # one that waits for its turn must not start again what has drained
                await self._drain()
                for keeper in keepers:
                    keeper.cancel()
                self._clean_up()
                self._emit("end", code=self._exit_code)
                server.close()
                await self._see_followers_off()
        finally:
            self._journal.write("agent ended", code=self._exit_code)
            self._journal.close()
        return self._exit_code

    def end(self) -> None:
        """Drain and end; a second call stops being patient."""
        if self._ending.is_set():
            self._at_once.set()
        self._ending.set()

    def reap(self) -> None:
        """As PID 1: wait for what was left to us. (What our parts started and left behind is not ours to judge.)"""
        reaper.reap(lambda: [one.process.pid for one in self.instances.values() if one.process is not None])

    async def _come_up(self) -> None:
        began = time.monotonic()
        waiting = {slot: one for slot, one in self.instances.items() if one.wanted and one.part.kind != "tool"}
        whole_by = None
        while waiting:
            for slot, instance in list(waiting.items()):
                late = time.monotonic() - began > UP_SECONDS_MAX
                if (instance.fatal or late) and not self.plan.site.patient():
                    self._give_up(slot, instance)
                    return
                enough = whole_by is not None and time.monotonic() > whole_by
                if instance.is_ready and (enough or not self._waits_for(instance)):
                    del waiting[slot]
                    self._emit_ready(slot, instance)
            if whole_by is None and all(one.is_ready for one in waiting.values()):
                whole_by = time.monotonic() + WHOLE_SECONDS
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        self._coming_up = False
        for slot, instance in self.instances.items():
            if not instance.wanted:
                self._emit("kept stopped", name=slot.name, instance=slot.instance, why=instance.state()[1])
        self._emit("up", seconds=round(time.monotonic() - began, 1))

    def _waits_for(self, instance: Instance) -> bool:
        """Whether a part that is ready still lacks something that will come: no bus comes where no broker is to run."""
        return any(lack != "bus" or Slot(keys.BROKER) in self.instances for lack in instance.missing)

    def _emit_ready(self, slot: Slot, instance: Instance) -> None:
        process = instance.process
        seconds = round(process.uptime_seconds, 1) if process else 0.0
        adopted = process is not None and not process.is_child
        self._emit(
            "ready", name=slot.name, instance=slot.instance, seconds=seconds, adopted=adopted,
            pid=process.pid if process else None, missing=list(instance.missing),
        )  # fmt: skip

    def _give_up(self, slot: Slot, instance: Instance) -> None:
        log = self.plan.site.log(slot)
        why = instance.fatal or f"not ready after {UP_SECONDS_MAX:.0f} s: {instance.state()[1]}"
        self._emit("failed", name=slot.name, instance=slot.instance, why=why, log=str(log or ""), tail=tail(log))
        self._exit_code = 1
        self.end()

    async def _drain(self) -> None:
        """End the parts: services together, then the core one by one from the last to the first, then the tools, which
        hear of the others' last acts.

        A start that failed ends what it started and lets go of what ran before it.
        """
        mine = [one for one in self.instances.values() if self._exit_code == 0 or not _adopted(one)]
        running = sum(one.process is not None for one in mine)
        if self._exit_code == 0 and running:
            self._emit("draining", parts=running)
        services = [one for one in mine if one.part.kind == "service"]
        core = [one for one in reversed(mine) if one.part.kind == "core"]
        tools = [one for one in mine if one.part.kind == "tool"]
        for wave in (services, *([one] for one in core), tools):
            async with asyncio.TaskGroup() as group:
                for instance in reversed(wave):
                    group.create_task(self._drain_one(instance))

    async def _drain_one(self, instance: Instance) -> None:
        began = time.monotonic()
        ran = instance.process is not None
        instance.wanted = False
        how = await instance.end_process(at_once=self._at_once)
        instance.files.record.unlink(missing_ok=True)
        if ran:
            seconds = round(time.monotonic() - began, 1)
            slot = instance.slot
            self._emit("stopped", name=slot.name, instance=slot.instance, seconds=seconds, how=how)

    def _clean_up(self) -> None:
        """Nothing of a drained system is left in run/ but lock files, which mean nothing unless they are held."""
        state = self.plan.state
        state.agent_socket.unlink(missing_ok=True)
        if self._exit_code == 0:
            state.control_socket.unlink(missing_ok=True)
            stopped_file(state).unlink(missing_ok=True)

    async def _see_followers_off(self) -> None:
        """Let those who follow read the last line; one that does not is no reason to stay."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                for follower in list(self._followers):
                    await follower.gone.wait()

    async def drain_orphans(self) -> None:
        """Without an agent before: end whatever fills the slots, as `down` does. The caller holds the agent's lock."""
        for instance in self.instances.values():
            instance.wanted = False
            if not instance.adopt() and instance.files.filled():
                instance.evict()
        await self._drain()
        self._clean_up()
        self._journal.close()

    # ---- what others hear ----------------------------------------------------------------------------------------

    def _heard(self, kind: str, slot: Slot, **details: Any) -> None:
        """An instance reports: into the log; and to followers what they would not learn otherwise."""
        level = "warning" if kind in ("hangs", "evicted") or details.get("code") else "info"
        self._journal.write(kind, level, slot=str(slot), **details)

    def _emit(self, kind: str, **details: Any) -> None:
        event = {"event": kind, **details}
        self._journal.write(kind, "error" if kind == "failed" else "info", **details)
        self._history.append(event)
        self._tell_listener(event)
        for follower in self._followers:
            follower.hear(event)

    def _tell_listener(self, event: Event) -> None:
        """A terminal that was closed, or a reader that had enough, is no reason to leave parts behind undrained."""
        try:
            if self._listener is not None:
                self._listener(event)
        except OSError as error:
            self._listener = None
            self._journal.write("nobody listens any more", "warning", why=str(error))

    def snapshot(self) -> dict[str, Any]:
        """All that the agent knows, as `status --json` shows it."""
        return {
            "system": self.plan.mesh.system.name,
            "as_of": time.time(),
            "agent": {"state": "starting" if self._coming_up else "running", "pid": os.getpid()},
            "parts": [instance.describe() | self._going_on(slot) for slot, instance in self.instances.items()],
        }

    def _going_on(self, slot: Slot) -> dict[str, Any]:
        operation = self._operations.current(slot)
        told = operation.brief() if operation else None
        return {"operation": told}

    def _save_wishes(self) -> None:
        """What operators stopped stays stopped under the next agent too."""
        stopped = [str(slot) for slot, instance in self.instances.items() if not instance.wanted]
        try:
            write_private(stopped_file(self.plan.state), json.dumps(stopped).encode())
        except OSError as error:
            self._journal.write("wishes not written", "error", why=str(error))

    # ---- the socket ----------------------------------------------------------------------------------------------

    async def _listen(self) -> asyncio.Server:
        listening = sockets.listen(self.plan.state.agent_socket)
        return await asyncio.start_unix_server(self._serve, sock=listening, limit=_REQUEST_BYTES_MAX)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one request, one answer (or a stream of events), end."""
        try:
            if not sockets.may_speak(writer.get_extra_info("socket")):
                return
            async with asyncio.timeout(5):
                request = json.loads(await reader.readline())
            if request.get("do") in ("follow", "down"):
                await self._follow(writer, history=request["do"] == "follow", ending=request["do"] == "down")
            elif request.get("do") == "log":
                await _say(writer, await asyncio.to_thread(self._log, request))  # a slow disk must not stop the watch
            else:
                await _say(writer, self._answer(request))
        except (OSError, TimeoutError, ValueError, TypeError, AttributeError):
            pass  # the asker went away, or speaks another language: neither is ours to mend
        finally:
            writer.close()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("do"):
            case "snapshot":
                return self.snapshot()
            case "operation":
                found = self._operations.find(str(request.get("id")))
                return {"operation": found.describe() if found else None}
            case "operations":
                return {"operations": self._operations.all()}
            case "act":
                return self._act(request)
            case "configuration":
                return self._configuration(request)
            case other:
                return {"error": {"code": "unknown_request", "text": f"{other!r}"}}

    def _log(self, request: dict[str, Any]) -> dict[str, Any]:
        """The last lines of an instance's log, where it is a file."""
        slot = _slot(request)
        if slot not in self.instances:
            return _no_such(slot)
        log = self.plan.site.log(slot)
        if log is None:
            text = f"its output is not kept here but by the container engine: `docker compose logs {slot.name}`"
            return {"error": {"code": "not_here", "text": text}}
        count = min(max(1, int(request.get("lines", 1))), logtail.LINES_MAX)
        return {"log": logtail.last_lines(log, count)}

    def _configuration(self, request: dict[str, Any]) -> dict[str, Any]:
        """What an instance is told when it is started, masked here: no secret crosses a socket."""
        slot = _slot(request)
        if slot not in self.instances:
            return _no_such(slot)
        return {"configuration": masking.settings(variables(self.plan, self.instances[slot].part, slot))}

    def _act(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._ending.is_set():
            return {"error": {"code": "ending", "text": "the system is going down"}}
        slot = _slot(request)
        act, by, reason = str(request.get("act")), str(request.get("by")), str(request.get("reason"))
        known = str(request.get("id") or "")
        try:
            operation = self._operations.request(act, slot, reason, by, request.get("seconds"), known)
        except ActRefusedError as refused:
            return {"error": {"code": refused.refusal, "text": str(refused)}}
        self._journal.write("act", act=act, slot=str(slot), by=by, reason=reason, operation=operation.id)
        return {"operation": operation.describe()}

    async def _follow(self, writer: asyncio.StreamWriter, *, history: bool, ending: bool) -> None:
        follower = _Follower(self._history if history else ())
        self._followers.add(follower)
        try:
            if ending:
                self.end()
            while True:
                event = await follower.next()
                await _say(writer, event)
                if event["event"] == "end":
                    return
        finally:
            self._followers.discard(follower)
            follower.gone.set()

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._disown)

    def _disown(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._journal.write("operation broke", "error", error=repr(task.exception()))


class _Follower:
    """Events on their way to one connection. One that reads too slowly loses the oldest, and holds up nobody."""

    def __init__(self, history: Iterable[Event]) -> None:
        self._events = deque(history, maxlen=2 * _HISTORY)
        self._something = asyncio.Event()
        self.gone = asyncio.Event()

    def hear(self, event: Event) -> None:
        self._events.append(event)
        self._something.set()

    async def next(self) -> Event:
        while not self._events:
            self._something.clear()
            await self._something.wait()
        return self._events.popleft()


def _slot(request: dict[str, Any]) -> Slot:
    return Slot(str(request.get("name")), int(request.get("instance", 1)))


def _no_such(slot: Slot) -> dict[str, Any]:
    return {"error": {"code": "unknown_instance", "text": f"there is no {slot}"}}


def _adopted(instance: Instance) -> bool:
    """Whether it runs and another agent started it. One without a process is ours: its next try would be."""
    return instance.process is not None and not instance.process.is_child


async def _say(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    async with asyncio.timeout(10):  # a follower that reads nothing is let go
        await writer.drain()


def stopped_file(state: State) -> Path:
    """The slots that operators wish stopped, for the next agent."""
    return state.run / "stopped.json"


def read_stopped(state: State) -> set[str]:
    """The wishes that an agent before us left. A damaged file wishes nothing: everything is up."""
    with contextlib.suppress(OSError, ValueError):
        return set(json.loads(stopped_file(state).read_text()))
    return set()


def tail(log: Path | None, lines: int = _TAIL_LINES) -> list[str]:
    """The last lines of a log, where it is a file."""
    if log is None:
        return []
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def filled_slots(state: State, names: list[str]) -> dict[Slot, SlotFiles]:
    """The slots that are filled now, told by their locks alone."""
    files = [SlotFiles(state, Slot(name)) for name in names]
    return {one.slot: one for one in files if one.filled()}
