"""A second dashboard on the same fleet, told something else: what the shared one must not be told, such as haste."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from fleet import Fleet, http
from polling import poll_until


@contextmanager
def dashboard(shop: Fleet, data: Path, **settings: str) -> Iterator[str]:
    """Its address, while it runs with the environment of the fleet's own, `settings` over it, and `data` of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    model = psutil.Process(shop.pid("dashboard"))
    told = model.environ() | {"ATOLL_PORT": str(port), "ATOLL_DATA": str(data)} | settings
    url = f"http://127.0.0.1:{port}"
    with (data / "log").open("w") as log:
        running = subprocess.Popen(
            model.cmdline(), cwd=model.cwd(), env=told, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        poll_until("the second dashboard", lambda: http("GET", f"{url}/live").status, lambda s: s == 200, seconds=30)
        yield url
    finally:
        os.kill(running.pid, signal.SIGTERM)
        running.wait(15)
