"""What all roles share: their configuration, their end, their pauses."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histories.line import Line
from histories.records import Recorder

RETRY_SECONDS_MAX = 0.3


@dataclass(frozen=True)
class Config:
    """One role's, written by the stage. `more` is the role's own."""

    role: str
    slot: str
    endpoint: str
    keys: Path
    histories: Path
    state: Path
    seed: str
    more: dict[str, Any]

    @property
    def identity(self) -> str:
        """Its name on the bus."""
        return self.slot.split("/")[0]

    @classmethod
    def read(cls, path: Path) -> Config:
        """From the stage's file."""
        found = json.loads(path.read_text())
        for name in ("keys", "histories", "state"):
            found[name] = Path(found[name])
        return cls(**found)


class Life:
    """One process of a role, from start to SIGTERM (or a kill, which it does not see)."""

    def __init__(self, config: Config, number: int) -> None:
        self.config = config
        self.ending = False
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the stage, which ends us
        self.random = random.Random(f"{config.seed}/{config.role}/{number}")
        self.recorder = Recorder(config.histories, config.role, number)  # from here on it can be told to end
        self.say = self.recorder.say
        self.say("start", life=number)

    def _end(self, *_: object) -> None:
        self.ending = True

    def line(self) -> Line:
        """A new socket."""
        return Line(self.config.endpoint, self.config.keys)

    def pause(self, seconds_max: float = RETRY_SECONDS_MAX) -> None:
        """A random while: before the next socket, and where a process has something in hand when it is hit."""
        time.sleep(self.random.uniform(0, seconds_max))


def begin() -> Life:
    """From `CONFIG LIFE` on the command line."""
    return Life(Config.read(Path(sys.argv[1])), int(sys.argv[2]))
