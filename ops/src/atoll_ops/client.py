"""Speaking to the agent: JSON lines over its Unix socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from atoll_ops import sockets
from atoll_ops.errors import AgentGone
from atoll_ops.state import State

_SECONDS = 5.0


def ask(state: State, seconds: float = _SECONDS, **request: Any) -> dict[str, Any]:
    """One request, one answer. Raises AgentGone if nobody answers."""
    for answer in stream(state, seconds, **request):
        return answer
    raise AgentGone("the agent closed the connection without an answer")


def stream(state: State, seconds: float = _SECONDS, **request: Any) -> Iterator[dict[str, Any]]:
    """One request, every line of its answer; `seconds` is the longest silence. Raises AgentGone where there is none."""
    try:
        with sockets.connect(state.agent_socket, seconds) as connection, connection.makefile("rwb") as file:
            file.write(json.dumps(request).encode() + b"\n")
            file.flush()
            for line in file:
                yield json.loads(line)
    except (OSError, ValueError) as error:
        raise AgentGone(f"the agent does not answer: {error}") from error
