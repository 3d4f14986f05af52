"""Each injector on something of its own, with and without the fault: `python -m histories.rehearsal NAME FOLDER`.

Runs apart (see running.py), prints one JSON object of what was seen. The test that started it says what it should be.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from histories import clock
from histories.nemesis import stop
from histories.network import BUS_PORT, Region, command
from histories.world import Actor

ARRIVES_SECONDS = 15.0
LOST_SECONDS = 0.7
#: Says what it hears; every word that it gets is answered and written down.
_CLIENT = f"""
import socket, sys
line = socket.create_connection((sys.argv[1], {BUS_PORT}), timeout=10)
line.settimeout(None)
while data := line.recv(100):
    print(data.decode(), flush=True)
    line.sendall(b"re:" + data)
"""


class Server:
    """One connection of a client in a region."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("", BUS_PORT))

    def accept(self) -> socket.socket:
        """The client."""
        self._listening.settimeout(10)
        return self._listening.accept()[0]


class Client:
    """A process in the region that prints what reaches it, and answers."""

    def __init__(self, region: Region) -> None:
        words = [*region.inside, sys.executable, "-c", _CLIENT, region.hub]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.heard: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.heard.append(line.strip())


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.02)
    return holds()


class Talk:
    """Words from the hub to the client and its answers back; which of the two ways works?"""

    def __init__(self, region: Region, server: Server) -> None:
        self._client = Client(region)
        self._line = server.accept()
        self._line.setblocking(False)
        self._answers = ""
        self._word = 0

    def ways(self, there: float, back: float) -> list[bool]:
        """[a word reaches the client, its answer comes back], each within so many seconds."""
        self._word += 1
        word = f"word{self._word};"
        self._line.sendall(word.encode())
        return [
            _within(there, lambda: word in "".join(self._client.heard)),
            _within(back, lambda: self._got(word)),
        ]

    def _got(self, word: str) -> bool:
        try:
            self._answers += self._line.recv(1000).decode()
        except BlockingIOError:
            return False
        return f"re:{word}" in self._answers

    def is_torn(self) -> bool:
        """Has the client's process lost its connection?"""
        return _within(ARRIVES_SECONDS, lambda: self._client.process.poll() is not None)

    def end(self) -> None:
        """Both sides."""
        self._client.process.kill()
        self._client.process.wait()
        self._line.close()


def network(_: Path) -> dict[str, object]:
    """Cuts in each direction and a reset, each upon a connection that worked before."""
    command("ip", "link", "set", "lo", "up")
    region, server = Region("rehearsal", 1), Server()
    found: dict[str, object] = {}
    for direction in ("to the broker", "from the broker"):
        talk = Talk(region, server)
        before = talk.ways(ARRIVES_SECONDS, ARRIVES_SECONDS)
        heal = region.cut(direction)
        during = talk.ways(ARRIVES_SECONDS if direction == "to the broker" else LOST_SECONDS, LOST_SECONDS)
        dropped = heal()
        found[direction] = {
            "before": before,
            "during": during,
            "after": talk.ways(ARRIVES_SECONDS, ARRIVES_SECONDS),
            "dropped": dropped,
        }
        talk.end()
    found["idle cut"] = region.cut("to the broker")()
    talk = Talk(region, server)
    found["reset"] = {
        "before": talk.ways(ARRIVES_SECONDS, ARRIVES_SECONDS),
        "torn": region.reset(),
        "ended": talk.is_torn(),
    }
    talk.end()
    found["idle reset"] = region.reset()
    region.close()
    return found


def wall_clock(folder: Path) -> dict[str, object]:
    """What a process sees of both its clocks while the wall clock is shifted, and one without the shim."""
    steered = clock.WallClock(folder, clock.build(folder))
    asked = "import time, sys\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
    found: dict[str, object] = {}
    for name, variables in (("steered", steered.variables), ("control", {})):
        with subprocess.Popen(
            [sys.executable, "-c", asked], env={**os.environ, **variables}, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            seen = []
            for shift in (0, 3600, -3600, 0):
                steered.shift(shift)
                before = steered.answered
                process.stdin.write("\n")
                wall, monotonic = map(float, process.stdout.readline().split())
                seen.append([wall - time.time(), monotonic - time.monotonic(), steered.answered - before])
            process.stdin.close()
        found[name] = seen
    return found


def signals(folder: Path) -> dict[str, object]:
    """A stop that holds, a kill; and a process that ends by itself, which nobody may take for a kill."""
    actor = Actor("counter", lambda _: [sys.executable, "-c", _COUNTER, str(folder / "count")], folder)
    actor.start()
    assert _within(10, lambda: _size(folder / "count") > 3)
    worked, looked = threading.Event(), threading.Event()

    def watch() -> None:
        """What is seen between two looks at a stopped process counts, and nothing else."""
        deadline = time.monotonic() + 20
        while not looked.is_set() and time.monotonic() < deadline:
            stopped, before = actor.is_stopped(), _size(folder / "count")
            time.sleep(0.3)
            after = _size(folder / "count")
            if stopped and actor.is_stopped():
                looked.set()
                if after != before:
                    worked.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    evidence = stop(actor, 3.0)
    watcher.join()
    size = _size(folder / "count")
    found = {"stop": evidence, "worked while stopped": worked.is_set() or not looked.is_set()}
    found["goes on"] = _within(5, lambda: _size(folder / "count") > size)
    found["kill"] = actor.kill() == -signal.SIGKILL
    ended = Actor("ended", lambda _: [sys.executable, "-c", "raise SystemExit(3)"], folder)
    ended.start()
    found["ended by itself"] = _complains(ended)
    return found


_COUNTER = "import sys, time\nwhile True:\n    open(sys.argv[1], 'a').write('.'); time.sleep(0.02)"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _complains(actor: Actor) -> str:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            actor.check()
        except Exception as error:
            return str(error)
        time.sleep(0.02)
    return ""


if __name__ == "__main__":
    rehearsals = {"network": network, "wall_clock": wall_clock, "signals": signals}
    print(json.dumps(rehearsals[sys.argv[1]](Path(sys.argv[2]))))
