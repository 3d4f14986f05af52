"""`reset`: forget a system, after making sure that nothing of it runs and that somebody means it."""

from __future__ import annotations

import os
import sys

from atoll_ops import console, prepare
from atoll_ops.agent import filled_slots
from atoll_ops.errors import OperationError
from atoll_ops.slots import is_held
from atoll_ops.state import OWNED, State


def reset(state: State, *, yes: bool) -> int:
    """Remove the state. Raises OperationError while anything runs, or if whoever sits at the terminal thinks better.

    Without a terminal there is nobody to ask: a script that says `reset` means it.
    """
    if not any((state.root / name).exists() for name in OWNED):
        console.say("reset", f"there is no state in {state.root}")
        return 0
    _refuse_while_running(state)
    if not yes and sys.stdin.isatty() and not _confirmed(state):
        raise OperationError("nothing was removed")
    lock = prepare.own(state)  # no `up` may begin while its ground goes
    try:
        state.remove()
    finally:
        os.close(lock)
    console.say("reset", f"removed keys, databases, logs and credentials from {state.root}")
    return 0


def _refuse_while_running(state: State) -> None:
    if is_held(state.agent_lock):
        raise OperationError(f"the system in {state.root} is up: `./atoll down` first")
    names = sorted({path.name.rsplit("-", 1)[0] for path in state.run.glob("*-*.lock")})
    running = filled_slots(state, names)
    if running:
        raise OperationError(f"{', '.join(map(str, running))} still run: `./atoll down` first")


def _confirmed(state: State) -> bool:
    print(f"This removes keys, databases, logs and credentials in {state.root}.")
    print("Type reset to go on: ", end="", flush=True)
    return sys.stdin.readline().strip() == "reset"
