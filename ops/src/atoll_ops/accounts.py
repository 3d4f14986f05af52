"""`users` and `clients`: auth's own administration, for the system of a state directory.

auth keeps its accounts in a database of its own, and nobody else opens it: this becomes auth's program, in auth's own
environment, which works with the service running or not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from atoll_ops.environments import Workshop
from atoll_ops.errors import OperationError
from atoll_ops.keys import AUTH
from atoll_ops.state import State


def administer(root: Path, state: State, kind: str, arguments: Sequence[str]) -> int:
    """Become `python -m atoll_auth KIND …`. Raises OperationError where the system has never been up."""
    python = Workshop(root).python(AUTH)
    data = state.private(AUTH, 1)
    if not os.access(python, os.X_OK) or not any(data.glob("*.db")):
        raise OperationError(f"{state.root} has no accounts yet: `./atoll up` makes the first")
    told = {"ATOLL_DATA": str(data), "PYTHONSAFEPATH": "1"}
    # It takes this process's place: the terminal that it asks for a password, and the exit code, are its own.
    return os.execve(python, [str(python), "-m", "atoll_auth", kind, *arguments], os.environ | told)  # noqa: S606 - no shell
