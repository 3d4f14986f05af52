"""What the command line may have to tell its user, named for who can do something about it.

Standard library only: the launcher imports this before any environment exists.
"""


class OperationError(Exception):
    """The command cannot go on, and its text is one clear line saying what to do. `code` becomes the exit code."""

    code = 1


class MeshError(OperationError):
    """The system page is wrong: the text names file, field and what was expected. Yours to mend; exit code 2."""

    code = 2


class PortTakenError(OperationError):
    """Another process listens where a part should: stop it, or move all ports with `--ports`."""


class AlreadyRunningError(OperationError):
    """Another agent owns this state directory; nothing was touched."""


class AgentGoneError(OperationError):
    """Nobody answers on the agent's socket. Parts may run all the same; `./atoll up` adopts them."""


class AgentLateError(AgentGoneError):
    """Somebody listens on the agent's socket, and has not answered in time."""


class EnvironmentFailedError(OperationError):
    """An installation failed: the text says the one thing that did, and where the whole output lies."""
