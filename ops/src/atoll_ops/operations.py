"""Operations: what operators ask of an instance, followed from request to result.

    kill     requested → stopped → started           stop     requested → stopping → stopped
    restart  requested → stopping → stopped → started start    requested → started
    pause    requested → paused                       resume   requested → resumed
    … or `timed out`, or `failed` with the reason.    ("started": its process answers ready)

One at a time on a slot: while one goes on, another is refused as `busy`. But a stop may come while an operation merely
waits for readiness: nobody shall have to watch a part fail to start for a minute before he may end that.

They live with the agent, so that they survive control; who asked and why is control's audit.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from atoll_ops.errors import OperationError
from atoll_ops.instance import PAUSE_SECONDS_DEFAULT, PAUSE_SECONDS_MAX, Instance
from atoll_ops.slots import Slot

ACTS = ("kill", "stop", "start", "restart", "pause", "resume")
READY_SECONDS_MAX = 60.0
_KILL_SECONDS_MAX = 10.0
_KEPT = 1000
_LOOK_EVERY_SECONDS = 0.02


class ActRefusedError(OperationError):
    """The act makes no sense for this instance as it is (or there is no such instance). Look at `status`, ask again."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.refusal = code


class _TimedOutError(Exception):
    pass


class Step(msgspec.Struct, frozen=True):
    """A state that an operation reached, and when (seconds since the epoch)."""

    state: str
    at: float
    text: str = ""


class Operation(msgspec.Struct):
    """One act on one instance. `state` is the last step's; nothing follows once `done`."""

    id: str
    act: str
    name: str
    instance: int
    reason: str
    by: str
    steps: list[Step]
    done: bool = False
    ok: bool = False
    awaits_start: bool = False  # everything is done but to see the process answer ready

    @property
    def state(self) -> str:
        """Where it stands."""
        return self.steps[-1].state

    def step(self, state: str, text: str = "") -> None:
        """Note that it reached a state."""
        self.steps.append(Step(state, time.time(), text))

    def end(self, state: str, text: str = "", *, ok: bool = True) -> None:
        """Note its last state."""
        self.step(state, text)
        self.done, self.ok = True, ok

    def brief(self) -> dict[str, Any]:
        """What a snapshot says of one that goes on."""
        told = {"id": self.id, "act": self.act, "by": self.by, "state": self.state}
        return told | {"awaits_start": self.awaits_start}

    def describe(self) -> dict[str, Any]:
        """As the API shows it."""
        described: dict[str, Any] = msgspec.to_builtins(self)
        del described["awaits_start"]
        return described | {"state": self.state, "text": self.steps[-1].text}


class Operations:
    """Carries operations out, each in a task that `spawn` owns; remembers the last thousand."""

    def __init__(self, instances: dict[Slot, Instance], spawn: Callable[[Any], object], changed: Callable[[], None]):
        self._instances = instances
        self._spawn = spawn
        self._changed = changed  # called when a wish changed, which must outlive the agent
        self._known: OrderedDict[str, Operation] = OrderedDict()
        self._current: dict[Slot, Operation] = {}

    def find(self, operation_id: str) -> Operation | None:
        """An operation by its id."""
        return self._known.get(operation_id)

    def current(self, slot: Slot) -> Operation | None:
        """The operation that goes on in a slot now."""
        operation = self._current.get(slot)
        return None if operation is None or operation.done else operation

    def all(self) -> list[dict[str, Any]]:
        """Those that are remembered, oldest first."""
        return [operation.describe() for operation in self._known.values()]

    def request(
        self, act: str, slot: Slot, reason: str, by: str, seconds: float | None = None, operation_id: str = ""
    ) -> Operation:
        """Begin an act; the operation to follow, under the asker's id for it if there is one. Asked again with the same
        id, it is the same operation. Raises ActRefusedError if the act makes no sense.
        """
        if operation_id in self._known:
            return self._known[operation_id]
        instance = self._instances.get(slot)
        if instance is None:
            known = ", ".join(str(one) for one in self._instances)
            raise ActRefusedError("unknown_instance", f"there is no {slot} (there are: {known})")
        _check(act, instance, seconds)
        self._check_free(act, slot, instance)
        operation = Operation(operation_id or uuid.uuid4().hex, act, slot.name, slot.instance, reason, by, [])
        operation.step("requested")
        self._known[operation.id] = self._current[slot] = operation
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        self._spawn(self._carry_out(operation, instance, seconds))
        return operation

    def _check_free(self, act: str, slot: Slot, instance: Instance) -> None:
        """Raises ActRefusedError if another operation goes on, unless it only waits and this is the stop to that."""
        current = self.current(slot)
        if current is None:
            return
        if act == "stop" and current.awaits_start:
            instance.wanted = False  # it sees that, and ends
            return
        text = f"{slot}: {current.act}, asked for by {current.by}, goes on ({current.state}); wait for its end"
        raise ActRefusedError("busy", text)

    async def _carry_out(self, operation: Operation, instance: Instance, seconds: float | None) -> None:
        async with instance.acting:
            try:
                await getattr(self, f"_{operation.act}")(operation, instance, seconds)
            except _TimedOutError as late:
                operation.end("timed out", str(late), ok=False)

    async def _kill(self, operation: Operation, instance: Instance, _: float | None) -> None:
        old = instance.process
        if old is None:
            operation.end("failed", "it ended by itself meanwhile", ok=False)
            return
        instance.kill_now()
        if not await old.wait(_KILL_SECONDS_MAX):
            raise _TimedOutError("SIGKILL had no effect (a process stuck in the kernel?)")
        operation.step("stopped", "killed")
        await self._see_started(operation, instance, old.pid)

    async def _stop(self, operation: Operation, instance: Instance, _: float | None) -> None:
        operation.step("stopping")
        how = await instance.stop(f"stopped by {operation.by}" + (f": {operation.reason}" if operation.reason else ""))
        self._changed()
        operation.end("stopped", how)

    async def _start(self, operation: Operation, instance: Instance, _: float | None) -> None:
        instance.start()
        self._changed()
        await self._see_started(operation, instance, None)

    async def _restart(self, operation: Operation, instance: Instance, _: float | None) -> None:
        old = instance.process
        operation.step("stopping")
        instance.start()  # a restart of a stopped instance starts it
        how = await instance.end_process()
        self._changed()
        operation.step("stopped", how)
        await self._see_started(operation, instance, old.pid if old else None)

    async def _pause(self, operation: Operation, instance: Instance, seconds: float | None) -> None:
        limit = seconds if seconds is not None else PAUSE_SECONDS_DEFAULT
        if instance.process is None:
            operation.end("failed", "it has no process now", ok=False)
            return
        instance.pause_now(limit, operation.by, operation.reason)
        operation.end("paused", f"for {limit:g} s at most")

    async def _resume(self, operation: Operation, instance: Instance, _: float | None) -> None:
        instance.resume_now(f"by {operation.by}")
        operation.end("resumed")

    async def _see_started(self, operation: Operation, instance: Instance, old_pid: int | None) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        operation.awaits_start = True
        while not (instance.process and instance.process.pid != old_pid and instance.is_ready):
            if instance.absent:
                operation.end("failed", f"absent: {instance.state()[1]}", ok=False)
                return
            if time.monotonic() > deadline:
                if instance.part.kind == "tool" and instance.process is not None:
                    break  # it may be built for minutes, and nobody waits for a tool
                raise _TimedOutError(f"not ready after {READY_SECONDS_MAX:.0f} s: {instance.state()[1]}")
            if not instance.wanted:
                operation.end("failed", "it was stopped meanwhile", ok=False)
                return
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        text = "" if instance.is_ready else f", {instance.state()[1]}"
        operation.end("started", f"pid {instance.process.pid}{text}")


def _check(act: str, instance: Instance, seconds: float | None) -> None:
    if act not in ACTS:
        raise ActRefusedError("unknown_act", f"{act!r}: expected one of {', '.join(ACTS)}")
    if act in ("kill", "pause") and instance.process is None:
        raise ActRefusedError("no_process", f"{instance.slot} has no process to {act}: {instance.state()[1]}")
    if act == "pause" and seconds is not None and not 0 < seconds <= PAUSE_SECONDS_MAX:
        raise ActRefusedError("seconds", f"pause: expected more than 0 and at most {PAUSE_SECONDS_MAX:g} seconds")
