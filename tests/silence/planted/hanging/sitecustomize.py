"""Planted fault: handlers hang while SILENCE_FLAGS has a file `hang`, and are slow while it has `slow`.

On the writer thread, where handlers run: nothing of the service is written meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atoll import _consumer

assert callable(_consumer.Consumer._work), "what this fault replaces is gone: plant it anew"

FLAGS = Path(os.environ["SILENCE_FLAGS"])
SLOW_SECONDS = 1.5
_work: Callable[..., Any] = _consumer.Consumer._work


def work(self: _consumer.Consumer, delivery: Any) -> Any:
    """The work, later."""
    inner = _work(self, delivery)

    def late(tx: Any) -> Any:
        while (FLAGS / "hang").exists():
            time.sleep(0.02)
        if (FLAGS / "slow").exists():
            time.sleep(SLOW_SECONDS)
        return inner(tx)

    return late


_consumer.Consumer._work = work  # type: ignore[method-assign]
