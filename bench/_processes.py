"""The processes of a measurement: each part is one, and all of them end with it.

A *worker* is a program of this folder, started with a job (JSON, its only argument). It says lines of JSON on stdout:
first that it is ready, then its result. Both sides are bounded: the measurement ends its workers whatever happens, and
a worker whose measurement was killed ends itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec
import psutil

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
WHOLE_SECONDS_MAX = 58
"""A measurement that is not over by then has failed."""
INTERRUPTED = 130
J = TypeVar("J", bound=msgspec.Struct)


class RunFailedError(Exception):
    """A run whose figure means nothing: something was lost, repeated, out of order, refused or late."""


# ---- the measurement's side --------------------------------------------------------------------------------------


class Worker:
    """A running worker; get it from `worker`."""

    def __init__(self, program: str, process: asyncio.subprocess.Process) -> None:
        self._program = program
        self._process = process

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    async def says(self) -> dict[str, Any]:
        """Its next line. Raises RunFailedError with its own words if it has failed."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RunFailedError(f"{self._program} ended with {await self._process.wait()} and without a result")
        said: dict[str, Any] = msgspec.json.decode(line)
        if "failed" in said:
            raise RunFailedError(f"{self._program}: {said['failed']}")
        return said


@contextlib.asynccontextmanager
async def process(*command: str | Path, **more: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that is gone when the block ends. In a session of its own: Ctrl-C is the measurement's to handle."""
    started = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, start_new_session=True, **more
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.wait()


@contextlib.asynccontextmanager
async def worker(program: str, job: msgspec.Struct) -> AsyncIterator[Worker]:
    """`program`.py at work on a job."""
    command = (sys.executable, HERE / f"{program}.py", msgspec.json.encode(job, enc_hook=str).decode())
    async with process(*command, stdout=asyncio.subprocess.PIPE) as started:
        yield Worker(program, started)


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, user and system: on cores that are shared it says more than the clock."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def run(measurement: Coroutine[Any, Any, None]) -> int:
    """Runs a measurement; its exit code. Ctrl-C, SIGTERM and its time's end all end what it started first."""
    try:
        asyncio.run(_bounded(measurement))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    except TimeoutError:
        print(f"FAILED: not over after {WHOLE_SECONDS_MAX} s", file=sys.stderr)
        return 1
    except RunFailedError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


async def _bounded(measurement: Coroutine[Any, Any, None]) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with asyncio.timeout(WHOLE_SECONDS_MAX):
        await measurement


# ---- the worker's side -------------------------------------------------------------------------------------------


def say(**values: object) -> None:
    """One line to the measurement."""
    print(msgspec.json.encode(values).decode(), flush=True)


def work(job_type: type[J], main: Callable[[J], None]) -> NoReturn:
    """A worker's whole life: reads the job, runs `main` on it, says what failed."""
    signal.alarm(WHOLE_SECONDS_MAX)  # its default action ends the process: nobody is left behind
    try:
        main(msgspec.json.decode(sys.argv[1], type=job_type, dec_hook=lambda kind, value: kind(value)))  # paths
    except RunFailedError as error:
        say(failed=str(error))
        sys.exit(1)
    sys.exit(0)
