"""States as people see them: a shape, a word and a colour, never a colour alone."""

from __future__ import annotations

from dataclasses import dataclass

#: After this a snapshot is old, and says so; after that nobody knows any more how things are.
OLD_AFTER_SECONDS = 5.0
UNKNOWN_AFTER_SECONDS = 15.0
#: Nobody is there who would do the part's work.
GONE = ("down", "stopped", "unknown")


@dataclass(frozen=True)
class Look:
    """How a state is drawn; `tone` names its pair of colours."""

    sign: str
    tone: str
    dashed: bool = False


LOOKS = {
    "running": Look("✓", "running"),
    "degraded": Look("△", "degraded"),
    "starting": Look("◔", "degraded"),
    "down": Look("✕", "down", dashed=True),
    "paused": Look("‖", "paused"),
    "stopped": Look("■", "paused"),
    "absent": Look("–", "unknown"),
    "unknown": Look("?", "unknown"),
}
#: Ink and paper of each tone, light and dark: every pair is at least 4.5 to 1.
COLOURS = {
    "light": {
        "running": ("#0B6B4B", "#E6F4EE"),
        "degraded": ("#7A4E00", "#FFF4DC"),
        "down": ("#A3262B", "#FBE9E9"),
        "paused": ("#3D4A5C", "#EEF1F5"),
        "unknown": ("#55524E", "#F1F0EE"),
    },
    "dark": {
        "running": ("#7ADBB3", "#12352A"),
        "degraded": ("#F4CB7D", "#3A2C0C"),
        "down": ("#F9A8AC", "#441B1E"),
        "paused": ("#C0CADA", "#2A3340"),
        "unknown": ("#CBC6BF", "#353230"),
    },
}


def look(state: str) -> Look:
    """How a state is drawn; one that this dashboard does not know is unknown to it."""
    return LOOKS.get(state, LOOKS["unknown"])


def shown(state: str, age_seconds: float) -> str:
    """The state as it may still be called after so long without news: stale is not green."""
    known = state if state in LOOKS else "unknown"
    return "unknown" if age_seconds > UNKNOWN_AFTER_SECONDS else known
