"""Histories in processes of their own: two at a time make the number, and a copy of the package can come first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .world import Pair

TESTS: Final = Path(__file__).parents[1]
WORKERS: Final = 2
SECONDS_MAX: Final = 1500.0


@dataclass
class Report:
    histories: int = 0
    steps: int = 0
    seconds: float = 0.0
    reached: Counter[Pair] = field(default_factory=Counter)
    finding: dict[str, Any] | None = None

    def add(self, other: Report) -> None:
        self.histories += other.histories
        self.steps += other.steps
        self.seconds = max(self.seconds, other.seconds)
        self.reached.update(other.reached)
        self.finding = self.finding or other.finding


def environment(package_first: Path | None = None) -> dict[str, str]:
    """With that folder's `atoll_broker` instead of the installed one, if it is given."""
    path = [str(TESTS)] if package_first is None else [str(package_first), str(TESTS)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"}


def drive(first_seed: int, steps: int, package_first: Path | None = None) -> Report:
    """`driver` in a process of its own. Raises CalledProcessError if it falls over."""
    command = [sys.executable, "-m", "model.driver", str(first_seed), str(steps)]
    ran = subprocess.run(
        command, env=environment(package_first), capture_output=True, text=True, check=True, timeout=SECONDS_MAX
    )
    told = json.loads(ran.stdout)
    expected = str(package_first) if package_first is not None else ""
    assert told["package"].startswith(expected), "the copy was driven, and nothing else"
    reached = Counter({(table, state, command): count for table, state, command, count in told["reached"]})
    return Report(told["histories"], told["steps"], told["seconds"], reached, told["finding"])


def drive_many(first_seed: int, steps: int) -> Report:
    """As many steps, shared among WORKERS; each has seeds of its own."""
    total = Report()
    with ThreadPoolExecutor(WORKERS) as pool:
        seeds = [first_seed + 1_000_000 * number for number in range(WORKERS)]
        for report in pool.map(drive, seeds, [-(-steps // WORKERS)] * WORKERS):
            total.add(report)
    return total
