"""Speaking to the agent: JSON lines over its Unix socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from atoll_ops import sockets
from atoll_ops.errors import AgentGoneError
from atoll_ops.state import State

_SECONDS = 5.0


def ask(state: State, silence_seconds: float = _SECONDS, **request: Any) -> dict[str, Any]:
    """One request, one answer. Raises AgentGoneError if nobody answers."""
    for answer in stream(state, silence_seconds, **request):
        return answer
    raise AgentGoneError("the agent closed the connection without an answer")


def stream(state: State, silence_seconds: float = _SECONDS, **request: Any) -> Iterator[dict[str, Any]]:
    """One request, every line of its answer; `silence_seconds` bounds the wait for each.

    Raises AgentGoneError where nobody answers.
    """
    try:
        with sockets.connect(state.agent_socket, silence_seconds) as connection, connection.makefile("rwb") as file:
            file.write(json.dumps(request).encode() + b"\n")
            file.flush()
            for line in file:
                yield json.loads(line)
    except (OSError, ValueError) as error:
        raise AgentGoneError(f"the agent does not answer: {error}") from error
