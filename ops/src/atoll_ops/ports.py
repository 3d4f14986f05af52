"""Who listens where: ports from a base, found free when asked, and a taken one named with its holder.

All ports of a system follow from one base (design: BASE gateway, +1 dashboard, +2 Jaeger UI, +3/+4 OTLP, +6 bus,
+7 control, +20… instances). Without a base the ports that people know stay as they are: dashboard 8501, Jaeger 16686,
OTLP 4317/4318.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable
from pathlib import Path

import msgspec

from atoll_ops.errors import OperationError, PortTakenError
from atoll_ops.mesh import Mesh

HOST = "127.0.0.1"
BASE_DEFAULT = 8080
_FREE_FROM = 10_000  # below lie the ports that people and packages choose by hand
_TRIES_MAX = 200


class Ports(msgspec.Struct, frozen=True):
    """Every port of one system; all on the loopback address."""

    base: int
    dashboard: int
    jaeger: int
    otlp_grpc: int
    otlp_http: int
    bus: int
    parts: dict[str, int]
    chosen: str  # "default", "base" (given by --ports) or "free" (chosen for --ports 0)

    @classmethod
    def of(cls, mesh: Mesh, base: int | None, *, chosen: str = "base") -> Ports:
        """The ports of a system at `base`; None is the default layout."""
        start = BASE_DEFAULT if base is None else base
        parts = {part.name: start + part.offset for part in mesh.parts.values()}
        if base is None:
            known = {"dashboard": 8501}
            parts = {name: known.get(name, port) for name, port in parts.items()}
            return cls(start, 8501, 16686, 4317, 4318, start + 6, parts, "default")
        return cls(start, start + 1, start + 2, start + 3, start + 4, start + 6, parts, chosen)

    def needed(self, names: Iterable[str]) -> dict[int, str]:
        """Port -> who will listen there, for these parts (the bus is the broker's second one)."""
        wanted = {self.parts[name]: name for name in names}
        return wanted | ({self.bus: "broker, the bus"} if "broker" in wanted.values() else {})


def choose(mesh: Mesh, asked: int | None, stored: Ports | None) -> Ports:
    """The ports for this start: `asked` is --ports (0: free ones, None: as last time, else the default).

    Free ports once chosen are kept as long as they stay free, so that addresses which somebody noted go on working.
    """
    if asked is None and stored is not None:
        return _again(mesh, stored)
    if asked == 0:
        kept = _again(mesh, stored) if stored is not None and stored.chosen == "free" else None
        return kept if kept and _all_free(kept) else _choose_free(mesh)
    if asked is not None and not 1024 <= asked <= 65_535 - 256:
        raise OperationError(f"--ports {asked}: expected 0 (free ones) or a base from 1024 to {65_535 - 256}")
    return Ports.of(mesh, asked)


def check_free(ports: Ports, names: Iterable[str]) -> None:
    """Raises PortTakenError for the first port that cannot be bound: port, part, holder, the flag that moves it."""
    for port, part in ports.needed(names).items():
        if not can_bind(port):
            raise PortTakenError(
                f"port {port} ({part}) is taken{holder(port)}: free it, or move every port with --ports BASE"
                " (--ports 0: any free ones)"
            )


def can_bind(port: int) -> bool:
    """Whether a server could listen on this port now; connections that linger after a close do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _again(mesh: Mesh, stored: Ports) -> Ports:
    return Ports.of(mesh, None if stored.chosen == "default" else stored.base, chosen=stored.chosen)


def _choose_free(mesh: Mesh) -> Ports:
    lowest_ephemeral = _ephemeral_from()
    span = max([6, *(part.offset for part in mesh.parts.values())])
    for _ in range(_TRIES_MAX):
        base = random.randrange(_FREE_FROM, lowest_ephemeral - span)  # noqa: S311 - spreads neighbours, guards nothing
        ports = Ports.of(mesh, base, chosen="free")
        if _all_free(ports):
            return ports
    raise PortTakenError(f"--ports 0: found no {span + 1} free ports between {_FREE_FROM} and {lowest_ephemeral}")


def _all_free(ports: Ports) -> bool:
    rest = (ports.dashboard, ports.jaeger, ports.otlp_grpc, ports.otlp_http, ports.bus)
    return all(can_bind(port) for port in (*ports.parts.values(), *rest))


def _ephemeral_from() -> int:
    """The first port that the kernel hands to outgoing connections: one of those may be taken at any moment."""
    try:
        return max(int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]), _FREE_FROM + 1024)
    except (OSError, ValueError):
        return 32_768


def holder(port: int) -> str:
    """` by pid 12 (nginx)`, or nothing where the system does not tell."""
    import psutil

    try:
        listening = (one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN)
        pid = next((one.pid for one in listening if one.laddr and one.laddr.port == port and one.pid), None)
        return f" by pid {pid} ({psutil.Process(pid).name()})" if pid else ""
    except psutil.Error:
        return ""
