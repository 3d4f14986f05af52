"""What the verbs of the command line share: where the repository, the state and the page are, and asking control."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from atoll_ops.errors import OperationError
from atoll_ops.state import State

StateOption = Annotated[
    Path | None, Parameter(name="--state", help="State directory; default .atoll in the repository.")
]
MeshOption = Annotated[Path | None, Parameter(name="--mesh", help="System page; default mesh.toml in the repository.")]
Reason = Annotated[str, Parameter(name="--reason", help="Why; it goes into the audit.")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="As JSON, for programs.")]
BY_HAND = "at the command line"
_SECONDS = 15.0  # control gives the broker ten: to find one event by its id, it may read its whole log


def root() -> Path:
    """The repository, told by the launcher. Raises OperationError where nobody told."""
    given = os.environ.get("ATOLL_ROOT")
    if not given:
        raise OperationError("ATOLL_ROOT is not set: run ./atoll, or set it to the repository's folder")
    return Path(given)


def state_of(given: Path | None) -> State:
    """The state directory that a command means."""
    if given is None and (told := os.environ.get("ATOLL_STATE")):  # an image's
        return State(Path(told))
    return State(given if given is not None else root() / ".atoll")


def page_of(given: Path | None) -> Path:
    """The system page that a command means."""
    if given is None and (told := os.environ.get("ATOLL_MESH")):  # an image's
        return Path(told)
    return given if given is not None else root() / "mesh.toml"


def host_only(instead: str) -> None:
    """Raises OperationError in an image, where the container engine does what this verb does on a host."""
    if os.environ.get("ATOLL_STATE"):
        raise OperationError(f"in a container this is the engine's to do: `{instead}` outside")


def ask_control(
    state: Path | None, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> Any:
    """One call of the operators' API; its JSON. Raises OperationError if it is refused, or control does not answer."""
    from atoll_ops import acts

    try:
        return acts.control(state_of(state), method, path, body, headers, seconds=_SECONDS)
    except acts.ControlDownError as error:
        raise OperationError(f"control does not answer ({error}): see `./atoll status`") from error
