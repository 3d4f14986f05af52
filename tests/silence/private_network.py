"""A network namespace for this process and all that it starts: its loopback is nobody else's.

So a test may cut, drop and reset on "the" loopback without touching anybody, and the kernel takes rules and sockets
away with the last process in there.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from left_out import leave_out

_CLONE_NEWNET = 0x40000000
_TOOLS = ("ip", "nft")


def need() -> None:
    """Leaves the test out where no namespace can be made."""
    if sys.platform != "linux" or os.geteuid() != 0:
        leave_out("only root on Linux can make a network namespace")
    if absent := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        leave_out(f"no {', '.join(absent)}")


@contextmanager
def private_network() -> Iterator[None]:
    """Enters a new namespace with its loopback up, and comes back. Of the calling thread and its children."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _checked(libc.unshare(_CLONE_NEWNET), "unshare")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            _checked(libc.setns(home, _CLONE_NEWNET), "setns")
    finally:
        os.close(home)


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


class Wire:
    """What happens to TCP packets of one port in this namespace."""

    def __init__(self, port: int) -> None:
        self._port = port

    def drop_present(self) -> int:
        """Packets of the connections that are open now vanish, both ways: nobody gets a FIN. How many they are."""
        ports = self.client_ports()
        assert ports, f"no connection to port {self._port}"
        chosen = f"{{ {', '.join(map(str, sorted(ports)))} }}"
        self._rules(f"tcp sport {chosen}", f"tcp dport {chosen}", "drop")
        return len(ports)

    def drop_all(self) -> None:
        """Packets of this port vanish, of new connections too."""
        self._rules(f"tcp dport {self._port}", f"tcp sport {self._port}", "drop")

    def reset(self) -> None:
        """Whoever sends gets a RST."""
        self._rules(f"tcp dport {self._port}", f"tcp sport {self._port}", "reject with tcp reset")

    def met(self) -> int:
        """Packets that the rules have met."""
        words = self._nft("list", "table", "inet", "silence").split()
        return sum(int(words[index + 1]) for index, word in enumerate(words) if word == "packets")

    def heal(self) -> None:
        """No rule any more."""
        subprocess.run(["nft", "delete", "table", "inet", "silence"], check=False, capture_output=True)

    def client_ports(self) -> set[int]:
        """Local ports of the established connections to it."""
        wanted = f"{self._port:04X}"
        found = set()
        for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, state, *_ = line.split()
            if remote.endswith(f":{wanted}") and state == "01":
                found.add(int(local.rsplit(":", 1)[1], 16))
        return found

    def _rules(self, one: str, other: str, verdict: str) -> None:
        self.heal()
        self._nft("add", "table", "inet", "silence")
        self._nft("add", "chain", "inet", "silence", "out", "{ type filter hook output priority 0; }")
        for match in (one, other):
            self._nft("add", "rule", "inet", "silence", "out", f"{match} counter {verdict}")

    def _nft(self, *words: str) -> str:
        done = subprocess.run(["nft", *words], check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"nft {' '.join(words)}: {done.stderr}"
        return done.stdout
