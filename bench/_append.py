"""Worker: the reference. The same bytes appended to a file, each batch made durable, by one process and no bus."""

from __future__ import annotations

import os
import time
from pathlib import Path

import _events
import msgspec
from _processes import say, work
from _report import percentile

_sync = getattr(os, "fdatasync", os.fsync)


class Job(msgspec.Struct):
    """`path` must not exist."""

    path: Path
    events: int
    batch: int


def _append(job: Job) -> None:
    events = [_events.event(number) for number in range(job.events)]
    batches = [_events.batch(events[first : first + job.batch]) for first in range(0, job.events, job.batch)]
    syncs: list[float] = []
    with job.path.open("xb", buffering=0) as file:
        began = time.monotonic()
        for payload in batches:
            start = time.monotonic()
            file.write(payload)
            _sync(file.fileno())
            syncs.append(time.monotonic() - start)
        ended = time.monotonic()
    job.path.unlink()
    say(
        began=began, ended=ended, event_bytes=len(events[0]),
        p50_ms=percentile(syncs, 0.5) * 1000, p99_ms=percentile(syncs, 0.99) * 1000,
    )  # fmt: skip


if __name__ == "__main__":
    work(Job, _append)
