"""Regions: network namespaces beside the broker's own, and what may go wrong between them and it.

Nothing here has a name that outlives its processes: a region is the namespace of a holder process, its rules and its
end of the veth pair lie inside, and the hub is the namespace of the stage itself. When the stage's process namespace
goes, the kernel takes all of it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence

BUS_PORT = 7001
_TABLE = """
table inet faults {{
  chain incoming {{
    type filter hook input priority 0; policy accept;
    {rule}
  }}
}}
"""


def command(*words: str, said: str | None = None) -> str:
    """Run a tool; what it printed. Raises RuntimeError with its words."""
    done = subprocess.run(words, input=said, text=True, capture_output=True, check=False, timeout=20)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} exited {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Region:
    """One namespace with one way to the hub: 10.77.N.1 there, 10.77.N.2 here."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.hub_end, self.own_end = f"hub{number}", f"way{number}"
        self.hub = f"10.77.{number}.1"
        self.endpoint = f"tcp://{self.hub}:{BUS_PORT}"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo here; exec sleep infinity"], stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "here\n", "no network namespace"
        pid = str(self._holder.pid)
        command("ip", "link", "add", self.hub_end, "type", "veth", "peer", "name", self.own_end)
        command("ip", "link", "set", self.own_end, "netns", pid)
        command("ip", "address", "add", f"{self.hub}/24", "dev", self.hub_end)
        command("ip", "link", "set", self.hub_end, "up")
        for words in (
            ("ip", "address", "add", f"10.77.{number}.2/24", "dev", self.own_end),
            ("ip", "link", "set", self.own_end, "up"), ("ip", "link", "set", "lo", "up"),
        ):  # fmt: skip
            command(*self.inside, *words)

    @property
    def inside(self) -> Sequence[str]:
        """Before a command: it runs in there."""
        return ("nsenter", "--target", str(self._holder.pid), "--net", "--")

    def cut(self, direction: str) -> Callable[[], int]:
        """Drop what goes to the hub, or what comes from it. Returns what heals it and counts the packets dropped."""
        if direction == "to the broker":
            where: Sequence[str] = ()
            rule = f'iifname "{self.hub_end}" tcp dport {BUS_PORT} counter drop'
        else:
            where, rule = self.inside, f'iifname "{self.own_end}" tcp sport {BUS_PORT} counter drop'
        command(*where, "nft", "-f", "-", said=_TABLE.format(rule=rule))

        def heal() -> int:
            listed = json.loads(command(*where, "nft", "-j", "list", "table", "inet", "faults"))
            command(*where, "nft", "delete", "table", "inet", "faults")
            return _packets(listed)

        return heal

    def reset(self) -> int:
        """Tear every connection to the bus; how many there were."""
        torn = command(*self.inside, "ss", "-K", "-Htn", "state", "established", "dst", self.hub)
        return len(torn.splitlines())

    def close(self) -> None:
        """The holder goes, and with the last process in there the namespace."""
        self._holder.kill()
        self._holder.wait()


def _packets(listed: dict[str, list[dict[str, dict[str, list[dict[str, dict[str, int]]]]]]]) -> int:
    rules = [one["rule"]["expr"] for one in listed["nftables"] if "rule" in one]
    return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)
