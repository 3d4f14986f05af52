"""What every measurement prints beside its figures: the machine, the cores, the settings."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def machine() -> str:
    """One line about where this was measured."""
    model = "unknown processor"
    try:
        info = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or not x86: the rest of the line still says enough
    system = f"{platform.system()} {platform.release()}"
    return f"{model}, {os.cpu_count()} cores, {system}, Python {platform.python_version()}"


def busy() -> str:
    """What else ran: the load of the last minute, which tells a quiet moment from another."""
    return f"load average {os.getloadavg()[0]:.1f} at the start"


def add_state(parser: argparse.ArgumentParser) -> None:
    """`--state DIR`, as every verb of `./atoll` has it."""
    home = REPOSITORY / ".atoll"
    parser.add_argument("--state", type=Path, default=home, metavar="DIR", help="where it works (default: .atoll)")


@contextlib.contextmanager
def directory(state: Path) -> Iterator[Path]:
    """On the disk where the system's own state lies: a temporary directory may be memory, where fsync costs nothing."""
    state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=state) as path:
        yield Path(path).absolute()


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value below which `fraction` of the sorted values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


def median_and_range(values: Sequence[float], unit: str) -> str:
    """`median (lowest–highest of n runs) unit`."""
    middle = statistics.median(values)
    return f"{middle:,.0f} ({min(values):,.0f}–{max(values):,.0f}, {len(values)} runs) {unit}"


def ratio(values: Sequence[float], reference: Sequence[float]) -> float:
    """The median of the ratios of runs that were made one after the other: what a machine's mood spoils least."""
    return statistics.median(value / other for value, other in zip(values, reference, strict=True))


def row(title: str, *cells: str) -> None:
    """One aligned line of a table."""
    print(f"{title:<46}" + "".join(f"  {cell:>40}" if at == 0 else f"  {cell:>9}" for at, cell in enumerate(cells)))
