"""The measurements run, by the one command each that the README gives: cheaply here, so their figures mean nothing."""

from __future__ import annotations

import signal
import subprocess

import pytest

from fleet import LAUNCHER, REPOSITORY, processes_of
from polling import poll_until


def bench(*words: str) -> str:
    """`./atoll bench …`; what it printed. A non-zero exit is an AssertionError with it."""
    done = subprocess.run(
        [str(LAUNCHER), "bench", *words],
        cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_bus_is_measured() -> None:
    printed = bench("bus", "--events", "2000", "--runs", "1", "--samples", "100")
    for line in ("machine ", "settings ", "file: append", "a  the bus", "b  the bus", "c  SDK", "latency at"):
        assert f"\n{line}" in f"\n{printed}", printed
    assert "every run: each event arrived once, those of a subject in order" in printed


def test_the_gateway_is_measured() -> None:
    printed = bench("gateway", "--runs", "1", "--seconds", "1")
    for line in ("machine ", "settings ", "upstream alone", "bare aiohttp proxy", "gateway  "):
        assert f"\n{line}" in f"\n{printed}", printed
    assert "every answer: 200 and the right body" in printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: str(number.name))
def test_an_interrupted_measurement_leaves_nothing_behind(number: signal.Signals) -> None:
    home = REPOSITORY / ".atoll"
    before = set(home.glob("bench-*"))
    running = subprocess.Popen(
        [str(LAUNCHER), "bench", "bus", "--runs", "9"],
        cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        (made,) = poll_until("the measurement's directory", lambda: set(home.glob("bench-*")) - before, seconds=120)
        poll_until("its processes", lambda: len(processes_of(made)) > 1, seconds=15)
        running.send_signal(number)
        _, complaint = running.communicate(timeout=20)
    finally:
        running.kill()
    assert running.returncode == 130, complaint
    assert "Traceback" not in complaint
    assert not processes_of(made)
    assert not made.exists()
