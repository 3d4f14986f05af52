"""Speaking to the agent: JSON lines over its Unix socket. In control's container, to all of them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atoll_ops import sockets
from atoll_ops.agency import Agency
from atoll_ops.errors import AgentGoneError
from atoll_ops.state import State

_SECONDS = 5.0


def ask(state: State, silence_seconds: float = _SECONDS, **request: Any) -> dict[str, Any]:
    """One request, one answer. Raises AgentGoneError if nobody answers."""
    if state.agents.is_dir():
        page = os.environ.get("ATOLL_MESH", "")
        return asyncio.run(Agency(state.run, state.agents, Path(page) if page else None).ask(**request))
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
