"""One slot under supervision: keep it filled while it is wanted, know its state, carry out what operators ask.

The theory. A slot has a wish (up or stopped) and perhaps a process. One task (`run`) brings the two together: it adopts
the process that fills the slot or starts one, attends it until it ends, waits a moment that grows with failure, and
begins again. Acts never start processes themselves; they change the wish or send signals, and the task does the rest.
So there is one place where a process begins, and the slot's lock is taken there.

Restarts: the first is immediate, since most deaths are accidents; a process that keeps dying young waits longer each
time. One that has lived a while is forgiven.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from atoll_ops import probe
from atoll_ops.launch import Plan, bound_log, spawn
from atoll_ops.mesh import Part
from atoll_ops.process import Process
from atoll_ops.slots import ABSENT, EXIT_MEANINGS, NOTE, Exit, Record, Slot, SlotFiles, is_stopped, meaning

Report = Callable[..., None]

DRAIN_SECONDS = 10.0  # after SIGTERM: what the process contract allows for a drain
INSIST_SECONDS = 5.0  # after a second SIGTERM; then SIGKILL
PAUSE_SECONDS_DEFAULT = 60.0
PAUSE_SECONDS_MAX = 900.0
SETTLED_AFTER_SECONDS = 0.5  # a SIGSTOP that was just sent may not show yet: that is no resumption
BACKOFF_SECONDS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
FORGIVEN_AFTER_SECONDS = 5.0  # a process that lived this long was no failed start
CRASH_LOOP_FROM = 4
LIVENESS_SECONDS = 10.0  # no answer for so long: it hangs, and is killed
START_SECONDS = 60.0  # … and so long for a process that has never answered
UNKNOWN_AFTER_SECONDS = 3.0
PROBE_TIMEOUT_SECONDS = 2.0
ASLEEP_SECONDS = 1.0  # a probe that took so much longer than its limit was not watched by anybody
_PROBE_EVERY_STARTING = 0.05
_PROBE_EVERY = 1.0
_PROBE_EVERY_AT_WORK = 0.25  # a tool that says how far it is takes minutes
_NOTE_CHARS_MAX = 600
_EXITS_KEPT = 10


class Instance:
    """A slot and whatever fills it. `report(kind, slot, **details)` hears of everything that happens to it."""

    def __init__(self, plan: Plan, part: Part, slot: Slot, report: Report, *, wanted: bool = True) -> None:
        self.part = part
        self.slot = slot
        self.files = SlotFiles(plan.state, slot)
        self.process: Process | None = None
        self.wanted = wanted
        self.restarts = 0
        self.absent = False  # a tool that found out that this machine cannot have it; its note says why
        self.failures = 0  # deaths in a row of processes that died young
        self.exits: list[Exit] = []
        self.paused_until: float | None = None
        self.paused_by = ""  # an operator; nobody for a signal from outside
        self.paused_reason = ""
        self._paused_at = 0.0  # monotonic
        self.acting = asyncio.Lock()  # one operation on a slot at a time
        self._plan = plan
        self._log = plan.site.log(slot)
        self._note_file = plan.state.private(slot.name, slot.instance) / NOTE
        self._report = report
        self._port = plan.ports.parts[part.name]
        self._health: probe.Health | None = None
        self._was_ready = False
        self._answered_at = 0.0  # monotonic
        self._draining = False
        self._forgive_next = False  # an operator's own kill or restart is no failure
        self._next_try: float | None = None  # monotonic
        self._wake = asyncio.Event()
        self._note = "" if wanted else "stopped by an operator"

    # ---- the task ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the slot as it is wanted, until cancelled."""
        while True:
            if not self.wanted or self.absent:
                await self._woken(None)
                continue
            if await self._fill():
                await self._attend()
                self._conclude()
            await self._back_off()

    async def _fill(self) -> bool:
        """Adopt or start the slot's process. False (and a note for the operator) if neither works."""
        if self.adopt():
            return True
        try:
            lock = self.files.acquire()
        except OSError as error:  # run/ is gone, or no descriptor left: this must not end the others' supervision
            self._fail(f"its lock cannot be taken: {error.strerror}: {error.filename}")
            return False
        if lock is None:
            self.evict()
            return False
        try:
            child = spawn(self._plan, self.part, self.slot, lock)
        except OSError as error:
            self._fail(f"cannot be started: {error.strerror}: {error.filename}")
            return False
        finally:
            os.close(lock)  # the child has its own; ours would keep the slot locked for ever
        self._begin(Process.started(child), None)
        self._save()
        self._report("started", self.slot, pid=child.pid)
        return True

    def adopt(self) -> bool:
        """Take over the process that fills the slot, if the record names it."""
        record = self.files.living()
        if record is None:
            return False
        self._begin(Process.adopted(record), record)
        self._report("adopted", self.slot, pid=record.pid)
        return True

    def evict(self) -> None:
        """What no record explains holds the slot: children left by a dead leader. The slot is ours to clear."""
        pids = self.files.holders()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self._fail("held by processes without a leader, which were killed")
        self._report("evicted", self.slot, pids=pids)

    def _begin(self, process: Process, record: Record | None) -> None:
        self.process = process
        self._health, self._was_ready, self._draining = None, False, False
        self._answered_at = time.monotonic()
        self._note = ""
        if record is not None:
            self.restarts, self.exits, self.paused_until = record.restarts, list(record.exits), record.paused_until
            self.paused_by, self.paused_reason = record.paused_by, record.paused_reason

    async def _attend(self) -> None:
        """Look after the process until it has ended."""
        process = self.process
        assert process is not None
        while not process.ended.is_set():
            await self._look(process)
            await process.wait(self._pace())

    def _pace(self) -> float:
        """Seconds until the next look."""
        if self._was_ready:
            return _PROBE_EVERY
        return _PROBE_EVERY_AT_WORK if self._tools_note() else _PROBE_EVERY_STARTING

    async def _look(self, process: Process) -> None:
        if self._log is not None:
            bound_log(self._log)
        if self.paused_until is not None:
            if time.time() >= self.paused_until:
                self.resume_now("its time was up")
            elif time.monotonic() - self._paused_at > SETTLED_AFTER_SECONDS and not is_stopped(process.pid):
                self.resume_now("by a signal from outside")
            return
        if is_stopped(process.pid):  # by a signal from elsewhere: treated as a pause, so that it ends
            self._pause_until(time.time() + PAUSE_SECONDS_DEFAULT)
            self._report("paused", self.slot, why="by a signal from outside", seconds=PAUSE_SECONDS_DEFAULT)
            return
        asked = time.monotonic()
        health = await probe.health(self._port, PROBE_TIMEOUT_SECONDS, self.part.ready)
        if health is None and time.monotonic() - asked > PROBE_TIMEOUT_SECONDS + ASLEEP_SECONDS:
            self._answered_at = time.monotonic()  # we stood still ourselves (Ctrl-Z): its silence proves nothing
        elif health is not None:
            self._answered_at, self._health = time.monotonic(), health
            if health.ready and not self._was_ready:
                self._was_ready = True
                self._report("ready", self.slot, seconds=round(process.uptime_seconds, 1))
        elif not process.ended.is_set() and not self._draining:
            self._check_liveness(process)

    def _check_liveness(self, process: Process) -> None:
        silent = min(time.monotonic() - self._answered_at, self._since_note())
        if silent > (LIVENESS_SECONDS if self._health is not None else START_SECONDS) and not is_stopped(process.pid):
            self._report("hangs", self.slot, why=f"no answer for {silent:.0f} s: killed")
            process.signal_group(signal.SIGKILL)

    def _conclude(self) -> None:
        """The process has ended: remember how, and whether that was a failure."""
        process = self.process
        assert process is not None
        ended = Exit(time.time(), process.code, meaning(process.code), round(process.uptime_seconds, 1))
        self.exits = [*self.exits, ended][-_EXITS_KEPT:]
        self.absent = self.part.kind == "tool" and process.code == ABSENT
        young = ended.after_seconds < FORGIVEN_AFTER_SECONDS or not self._was_ready
        self.failures = self.failures + 1 if young and not self._forgive_next and not self.absent else 0
        self._forgive_next = False
        self.process, self.paused_until, self._draining = None, None, False
        if self.wanted and not self.absent:
            self.restarts += 1
        self._report("exited", self.slot, code=ended.code, meaning=ended.meaning, after_seconds=ended.after_seconds)

    def _fail(self, why: str) -> None:
        self.failures += 1
        self._note = why

    async def _back_off(self) -> None:
        if not self.wanted or self.absent:
            return
        # The first failure restarts at once; `failures` counts it already.
        delay = BACKOFF_SECONDS[min(max(self.failures - 1, 0), len(BACKOFF_SECONDS) - 1)]
        self._next_try = time.monotonic() + delay
        await self._woken(delay)
        self._next_try = None

    async def _woken(self, seconds: float | None) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _save(self) -> None:
        process = self.process
        if process is None:
            return
        record = Record(
            process.pid, process.born, self._port, process.started_at, self.restarts, self.exits, self.paused_until,
            self.paused_by, self.paused_reason,
        )  # fmt: skip
        try:
            self.files.write(record)
        except OSError as error:  # a full disk must not end supervision; without a record the slot is found by its lock
            self._report("record not written", self.slot, why=str(error))

    # ---- what operators do ---------------------------------------------------------------------------------------

    def kill_now(self) -> None:
        """SIGKILL to the group. The wish stays: the task starts it again at once."""
        if self.process is not None:
            self._forgive_next = True
            self.process.signal_group(signal.SIGKILL)

    async def stop(self, note: str) -> str:
        """Wish it stopped and see it end: SIGTERM, 10 s to drain, SIGTERM, 5 s, SIGKILL. How it ended, in a word."""
        self.wanted = False
        self._note = note
        self._wake.set()
        return await self.end_process()

    async def end_process(self, *, at_once: asyncio.Event | None = None) -> str:
        """End the present process, if any, as `stop` does; `at_once` cuts the patience short."""
        process = self.process
        if process is None:
            return "was not running"
        self._draining = self._forgive_next = True
        for seconds in (DRAIN_SECONDS, INSIST_SECONDS):
            process.signal_group(signal.SIGTERM)
            process.signal_group(signal.SIGCONT)  # a paused process takes no other signal
            if await _first(process.ended, at_once, seconds):
                break
        if process.ended.is_set():
            return "drained" if process.code in (0, None) else meaning(process.code)
        process.signal_group(signal.SIGKILL)
        await process.wait(INSIST_SECONDS)
        asked = at_once is not None and at_once.is_set()
        return "killed: nobody would wait" if asked else "killed: it did not drain in time"

    def start(self) -> None:
        """Wish it up; a wait after failures is cut short."""
        self.wanted = True
        self.absent = False  # looked for again: somebody may have installed what it lacked
        self.failures = 0
        self._note = ""
        self._wake.set()

    def pause_now(self, seconds: float, by: str, reason: str) -> None:
        """SIGSTOP to the group, until resumed or the time is up. The caller made sure that there is a process."""
        assert self.process is not None
        self._pause_until(time.time() + seconds, by, reason)
        self.process.signal_group(signal.SIGSTOP)

    def resume_now(self, why: str) -> None:
        """SIGCONT to the group; nothing happens to one that is not paused."""
        if self.process is None or self.paused_until is None:
            return
        self.paused_until = None
        self._answered_at = time.monotonic()  # its silence until now was ours
        self.process.signal_group(signal.SIGCONT)
        self._save()
        self._report("resumed", self.slot, why=why)

    def _pause_until(self, when: float, by: str = "", reason: str = "") -> None:
        self.paused_until, self._paused_at = when, time.monotonic()
        self.paused_by, self.paused_reason = by, reason
        self._save()  # before the signal: an agent that dies in between leaves a limit, not a stopped process

    # ---- what it is ----------------------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether the present process said so when last asked."""
        return self.process is not None and self._health is not None and self._health.ready

    @property
    def missing(self) -> tuple[str, ...]:
        """What the part does without at present (`bus`), as it says itself."""
        return self._health.degraded if self._health is not None else ()

    @property
    def fatal(self) -> str:
        """Why waiting for readiness is pointless, or nothing."""
        if self.process is not None or not self.wanted:
            return ""
        last = self.exits[-1] if self.exits else None
        if last is not None and last.code in EXIT_MEANINGS and last.code != 0:
            return f"exited {last.code} ({last.meaning})"
        return self.why() if self.failures >= CRASH_LOOP_FROM else ""

    def state(self) -> tuple[str, str]:
        """One of running, starting, degraded, paused, stopped, down, unknown, absent; and why."""
        if self.process is None and self.wanted and self.absent:
            return "absent", self._tools_note() or "not to be had on this machine"
        if self.process is None:
            return ("down", self.why()) if self.wanted else ("stopped", self._note)
        if self.paused_until is not None:
            return "paused", f"for another {max(0.0, self.paused_until - time.time()):.0f} s"
        if self._draining:
            return "degraded", "draining"
        silent = time.monotonic() - self._answered_at
        if not self._was_ready:
            return "starting", self._tools_note() or (self._health.why if self._health else "no answer yet")
        if silent > UNKNOWN_AFTER_SECONDS:
            return "unknown", f"no answer for {silent:.0f} s"
        assert self._health is not None
        if not self._health.ready:
            return "degraded", self._health.why or "not ready"
        if self._health.degraded:
            return "degraded", f"without {', '.join(self._health.degraded)}"
        return "running", self._tools_note()

    def _tools_note(self) -> str:
        """The line that a tool left for the operator: how far it is, why it is absent, what it cannot do."""
        if self.part.kind != "tool":
            return ""
        try:
            return self._note_file.read_text(errors="replace").strip()[:_NOTE_CHARS_MAX]
        except OSError:
            return ""

    def _since_note(self) -> float:
        """Seconds since a tool last wrote how far it is, which is a sign of life."""
        try:
            return time.time() - self._note_file.stat().st_mtime if self.part.kind == "tool" else float("inf")
        except OSError:
            return float("inf")

    def why(self) -> str:
        """Why there is no process, and when the next one comes."""
        if self.exits and not self._note:
            last = self.exits[-1]
            text = f"exited {last.code} ({last.meaning})" if last.code is not None else last.meaning
        else:
            text = self._note or "not started yet"
        if self.failures >= CRASH_LOOP_FROM:
            text = f"crash loop, {self.failures} times: {text}"
        if self._next_try is not None:
            text += f"; next try in {max(0.0, self._next_try - time.monotonic()):.1f} s"
        return text

    def describe(self) -> dict[str, Any]:
        """This slot as `status --json` shows it."""
        state, why = self.state()
        process = self.process
        return {
            "name": self.slot.name,
            "instance": self.slot.instance,
            "kind": self.part.kind,
            "pid": process.pid if process else None,
            "state": state,
            "why": why,
            "host": self._plan.site.host(self.part.name),
            "port": self._port,
            "restarts": self.restarts,
            "exits": [
                {"at": one.at, "code": one.code, "meaning": one.meaning, "after_seconds": one.after_seconds}
                for one in self.exits
            ],
            "failures": self.failures,
            "wanted": "up" if self.wanted else "stopped",
            "uptime_seconds": round(process.uptime_seconds, 1) if process else None,
            "memory_mb": memory_mb(process.pid) if process else None,
            "paused_until": self.paused_until,
            "paused_by": self.paused_by if self.paused_until is not None else "",
            "paused_reason": self.paused_reason if self.paused_until is not None else "",
        }


def memory_mb(pid: int) -> float | None:
    """Resident memory of a process in MiB; None if it is gone."""
    import psutil

    try:
        return round(float(psutil.Process(pid).memory_info().rss) / 1_048_576, 1)
    except psutil.Error:
        return None


async def _first(ended: asyncio.Event, at_once: asyncio.Event | None, seconds: float) -> bool:
    """Wait for the end, or for the word to wait no longer, for at most so long; whether either came."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (ended, at_once) if event is not None]
    done, pending = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return bool(done)
