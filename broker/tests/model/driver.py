"""Histories from seeds: the rules, driven by a seeded generator; for the number, where hypothesis is for the shrinking.

One seed is one history of HISTORY_STEPS_MAX steps at most, and nothing else goes into it: the same seed fails at the
same step with the same words, wherever it runs.

    python -m model.driver FIRST_SEED STEPS     # histories from FIRST_SEED on, until so many steps; JSON on stdout
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import atoll_broker

from .rules import RULES, Rules
from .world import Pair, World

T = TypeVar("T")
HISTORY_STEPS_MAX: Final = 1500


class SeededChooser:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]


@dataclass
class Finding:
    """A history in which core and reference part."""

    seed: int
    step: int
    text: str
    trace: list[str]

    def __str__(self) -> str:
        shown = "\n".join(self.trace)
        command = f"ATOLL_SEED={self.seed} ./atoll test broker/tests/model -k replay"
        return f"{shown}\n{self.text}\nat step {self.step}; replay it: {command}"


def run_history(seed: int, steps_max: int = HISTORY_STEPS_MAX) -> tuple[World, Finding | None]:
    """One history."""
    chooser = SeededChooser(seed)
    world = World(seed)
    rules = Rules(world, chooser)
    names = [name for name, (weight, _) in RULES.items() for _ in range(weight)]
    try:
        while world.steps < steps_max:
            RULES[chooser.pick(names)][1](rules)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return world, Finding(seed, world.steps, text, [" ".join(map(str, line)) for line in world.trace])
    return world, None


def run(first_seed: int, steps: int) -> tuple[int, int, Counter[Pair], Finding | None]:
    """Histories from `first_seed` on. (histories, steps, pairs reached, the first finding)"""
    done, histories = 0, 0
    reached: Counter[Pair] = Counter()
    while done < steps:
        world, finding = run_history(first_seed + histories, min(HISTORY_STEPS_MAX, steps - done))
        histories += 1
        done += world.steps
        reached.update(world.reached)
        if finding is not None:
            return histories, done, reached, finding
    return histories, done, reached, None


def main() -> None:
    began = time.monotonic()
    histories, steps, reached, finding = run(int(sys.argv[1]), int(sys.argv[2]))
    report = {
        "package": atoll_broker.__file__,
        "histories": histories,
        "steps": steps,
        "seconds": round(time.monotonic() - began, 2),
        "reached": [[*pair, count] for pair, count in sorted(reached.items())],
        "finding": None if finding is None else {"seed": finding.seed, "step": finding.step, "text": str(finding)},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
