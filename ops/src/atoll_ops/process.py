"""A handle on the process in a slot: one that we started, or one that an agent before us did."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time

from atoll_ops.slots import Record, born

_POLL_SECONDS = 0.1


class Process:
    """A process that leads its own group. `ended` is set when it is gone; `code` is known of our own children only."""

    def __init__(self, pid: int, birth: str, started_at: float, child: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self.born = birth
        self.started_at = started_at
        self.code: int | None = None
        self.ended = asyncio.Event()
        self._child = child
        self._watch()

    @classmethod
    def started(cls, child: subprocess.Popen[bytes]) -> Process:
        """Of a child just started. (An exit before this look leaves a zombie, which has no start time any more.)"""
        return cls(child.pid, born(child.pid) or "", time.time(), child)

    @classmethod
    def adopted(cls, record: Record) -> Process:
        """Of a process that the slot's record names, checked to be alive."""
        return cls(record.pid, record.born, record.started_at, None)

    @property
    def is_child(self) -> bool:
        """Whether this agent started it."""
        return self._child is not None

    @property
    def uptime_seconds(self) -> float:
        """Seconds since it was started."""
        return max(0.0, time.time() - self.started_at)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the whole process group; nothing happens if the process is gone."""
        if self._is_still_itself():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def wait(self, seconds: float) -> bool:
        """Whether it ended within this time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        return self.ended.is_set()

    def _is_still_itself(self) -> bool:
        """A child that nobody has waited for keeps its pid; of another's, the start time must still be the same."""
        if self.ended.is_set():
            return False
        return self._child is not None or born(self.pid) == self.born

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        if not hasattr(os, "pidfd_open"):
            loop.call_later(_POLL_SECONDS, self._poll)
            return
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._finish()
            return
        except OSError:  # a sandbox that knows no pidfd, or no descriptor left: look now and then
            loop.call_later(_POLL_SECONDS, self._poll)
            return
        if not self._is_still_itself():  # between the record's check and this the pid may have become another's
            os.close(descriptor)
            self._finish()
            return
        loop.add_reader(descriptor, self._on_exit, descriptor)

    def _on_exit(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self._finish()

    def _poll(self) -> None:
        if born(self.pid) == self.born:
            asyncio.get_running_loop().call_later(_POLL_SECONDS, self._poll)
        else:
            self._finish()

    def _finish(self) -> None:
        """The leader is gone: so must be the rest of its group, before waiting gives the pid free."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self.code = self._child.wait()
        self.ended.set()
