"""`setup`: the keys of a system in containers, made once, each part's into a volume of its own.

    /atoll                    setup's own volume: credentials.json
    /atoll/keys/PART          PART's key volume, which PART mounts read-only and nobody else at all

It runs to its end before any part starts, and changes nothing that is there. New volumes belong to root: it is started
as root with the capability to hand them over, does that first, and then is the parts' user like every other program.
"""

from __future__ import annotations

import os
from pathlib import Path

from atoll_ops import console, container, keys, mesh
from atoll_ops.errors import OperationError
from atoll_ops.state import State


def run(state: State, page: Path, owner: int | None) -> int:
    """Make what is missing; say where the credentials are. `owner`: the uid and gid that the parts run as.

    Raises OperationError where a volume cannot be written.
    """
    whole = mesh.read(page, Path("/"))
    if owner is not None and owner != os.geteuid():
        _hand_over(state, owner)
    try:
        state.keys.mkdir(mode=0o755, exist_ok=True)
        known = state.credentials.exists()
        state.write_credentials(container.ports(whole), keys.ensure(state, whole.parts))
    except OSError as error:
        raise OperationError(f"{error.filename}: {error.strerror}: is it a volume that uid {owner} owns?") from error
    console.say("keys", f"{'complete' if known else 'made'} for {', '.join(whole.parts)}")
    read = f"docker compose run --rm -u {os.geteuid()} setup cat {state.credentials}"
    console.say("credentials", f"{state.credentials} ({read})")
    return 0


def _hand_over(state: State, owner: int) -> None:
    """Give the volumes to the parts' user, then be that user. Raises OperationError for anybody but root."""
    if os.geteuid() != 0:
        raise OperationError(f"--owner {owner}: expected to be started as root, not as uid {os.geteuid()}")
    # Top folders alone: what is in them was made by the owner already. The way to them stays open for the next time,
    # when this is root without the right to pass another's locked door; they themselves are shut.
    ways = [folder for folder in (state.root, state.keys) if folder.is_dir()]
    for folder, mode in [*((way, 0o755) for way in ways), *((each, 0o700) for each in sorted(state.keys.glob("*")))]:
        if folder.is_dir() and folder.stat().st_uid != owner:
            folder.chmod(mode)
            os.chown(folder, owner, owner)
    os.setgroups([])
    os.setgid(owner)
    os.setuid(owner)
