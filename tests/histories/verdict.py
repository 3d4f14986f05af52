"""A judgement on the histories of one folder, for people: `python -m histories.verdict FOLDER`, in tests/."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from histories import checker
from histories.index import History
from histories.plan import Plan
from histories.records import read

#: The promise of the suite: a run below any of these proves nothing, and fails.
FAULTS_MIN, ACKS_MIN, SECONDS_MIN = 100, 100_000, 300.0


@dataclass(frozen=True)
class Verdict:
    """`broken`: invariant -> texts. `weak`: why the run proves nothing. `lines`: what to say either way."""

    broken: dict[str, list[str]]
    weak: list[str]
    lines: list[str]

    def text(self) -> str:
        """All that is wrong."""
        broken = [f"{name}: {text}" for name, texts in self.broken.items() for text in texts]
        return "\n".join([*broken, *(f"too weak: {text}" for text in self.weak)])


def load(folder: Path) -> History:
    """The histories and the plan of one folder."""
    with _no_collecting():
        return History(Plan.read(folder), read(folder))


@contextmanager
def _no_collecting() -> Iterator[None]:
    """Millions of small objects are made and none is garbage: looking for some takes longer than making them."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def judge(
    history: History, *, faults_min: int = FAULTS_MIN, acks_min: int = ACKS_MIN, seconds_min: float = SECONDS_MIN
) -> Verdict:
    """Check every invariant, and whether the run was strong enough to break them."""
    weak = checker.weaknesses(history, faults_min=faults_min, acks_min=acks_min, seconds_min=seconds_min)
    with _no_collecting():
        return Verdict(checker.check(history), weak, _lines(history))


def _lines(history: History) -> list[str]:
    hit, healed, drained = checker.faults(history), history.healed or {}, history.drained or {}
    kinds = ", ".join(f"{count} × {kind}" for kind, count in sorted(hit.items()))
    there = ", ".join(f"{count:,} {name}" for name, count in checker.evidence(history).items())
    return [
        f"histories: seed {history.plan.seed}, {hit.total()} faults in {healed.get('seconds', 0):.0f} s, "
        f"{history.acks:,} acknowledgements",
        f"histories: faults that hit: {kinds}",
        f"histories: {there}",
        f"histories: I12: backlog gone {drained.get('seconds', -1)} s after the heal "
        f"(promised {history.plan.drain_seconds:g} s, "
        f"fails at {checker.DRAIN_FACTOR * history.plan.drain_seconds:g} s)",
    ]


def main() -> int:
    """Prints the verdict; 1 if anything is wrong."""
    found = judge(load(Path(sys.argv[1])))
    print("\n".join(found.lines))
    print(found.text() or "I1 to I12 hold")
    return 1 if found.text() else 0


if __name__ == "__main__":
    sys.exit(main())
