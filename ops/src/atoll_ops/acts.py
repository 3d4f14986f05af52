"""`kill`, `stop`, `start`, `restart`, `pause`, `resume`: asked of control, which audits; else of the agent.

Control has to be operable when it is the thing that is down, so the agent takes the same request on its own socket, and
remembers it: control enters it into the audit when it is back. Until then the agent's log is the only record.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
import uuid
from typing import Any

from atoll_ops import client, console, sockets
from atoll_ops.errors import AgentGoneError, OperationError
from atoll_ops.keys import CONTROL
from atoll_ops.slots import Slot
from atoll_ops.state import State

_SECONDS = 5.0
_RETURN_SECONDS_MAX = 15.0
_FOLLOW_SECONDS_MAX = 120.0
_LOOK_EVERY_SECONDS = 0.05


class ControlDownError(Exception):
    """Nobody answers on control's socket. If `sent`, it took the request and died before it answered: ask again."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


def carry_out(state: State, act: str, slot: Slot, reason: str, seconds: float | None = None) -> int:
    """Ask for an act and follow it to its end, a line a step. Raises OperationError if it is refused."""
    try:
        _check_control_moves(state)
        operation = _ask_control(state, act, slot, reason, seconds)
    except ControlDownError:
        operation = _ask_agent(state, act, slot, reason, seconds)
        console.problem("control does not answer: asked of the agent itself; the audit has it once control is back")
    return _follow(state, operation)


def control(
    state: State,
    method: str,
    path: str,
    body: object = None,
    headers: dict[str, str] | None = None,
    *,
    seconds: float = _SECONDS,
) -> Any:
    """One call of the operators' API on the local socket; its JSON. `seconds` bounds the wait for each byte.

    Raises ControlDownError if nobody answers, OperationError with the problem's text for an error.
    """
    connection = sockets.UnixConnection(state.control_socket, seconds)
    sent = False
    try:
        connection.connect()
        sent = True
        payload = json.dumps(body).encode() if body is not None else None
        connection.request(method, path, payload, {"Content-Type": "application/json"} | (headers or {}))
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ControlDownError(str(error), sent=sent) from error
    finally:
        connection.close()
    if response.status >= 400:
        raise OperationError(_refusal(answer))
    return answer


def _check_control_moves(state: State) -> None:
    """Raises ControlDownError for one that is paused or hangs: it would take the request, and never answer it."""
    with contextlib.suppress(AgentGoneError):
        parts = client.ask(state, do="snapshot")["parts"]
        here = next((part for part in parts if part["name"] == CONTROL), None)
        if here is not None and here["state"] in ("paused", "unknown"):
            raise ControlDownError(f"control is {here['state']}", sent=False)


def _refusal(answer: dict[str, Any]) -> str:
    """What a problem document says, with the field that it is about."""
    field = f"{answer['field']}: " if answer.get("field") else ""
    return field + str(answer.get("detail") or answer.get("title"))


def _ask_control(state: State, act: str, slot: Slot, reason: str, seconds: float | None) -> dict[str, Any]:
    body = {"reason": reason} | ({"seconds": seconds} if seconds is not None else {})
    path = f"/ops/instances/{slot.name}/{slot.instance}/{act}"
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    deadline, began = time.monotonic() + _RETURN_SECONDS_MAX, False
    while True:
        try:
            operation: dict[str, Any] = control(state, "POST", path, body, headers)
            return operation
        except ControlDownError as down:
            began = began or down.sent  # it may have died of the very act: the key tells its successor
            if not began:
                raise
            if time.monotonic() > deadline:
                raise OperationError("control died before it answered; see what came of it: ./atoll status") from down
            time.sleep(_LOOK_EVERY_SECONDS)


def _ask_agent(state: State, act: str, slot: Slot, reason: str, seconds: float | None) -> dict[str, Any]:
    request: dict[str, Any] = {"act": act, "name": slot.name, "instance": slot.instance}
    try:
        answer = client.ask(state, do="act", by=f"local:{os.geteuid()}", reason=reason, seconds=seconds, **request)
    except AgentGoneError as gone:
        raise AgentGoneError("agent gone: `./atoll up` starts one, which adopts what runs") from gone
    if "error" in answer:
        raise OperationError(str(answer["error"]["text"]))
    operation: dict[str, Any] = answer["operation"]
    return operation


def _follow(state: State, operation: dict[str, Any]) -> int:
    """Print each step as it comes; 0 if it ended as meant. The agent is asked: control may be the target."""
    shown, began = 0, operation["steps"][0]["at"]
    title = f"{operation['name']}/{operation['instance']}"
    deadline = time.monotonic() + _FOLLOW_SECONDS_MAX
    while True:
        for step in operation["steps"][shown:]:
            text = f" ({step['text']})" if step["text"] else ""
            console.say(title, f"{step['state']}{text}  {step['at'] - began:.1f} s")
        shown = len(operation["steps"])
        if operation["done"]:
            return 0 if operation["ok"] else 1
        if time.monotonic() > deadline:
            raise OperationError(f"{title}: no end after {_FOLLOW_SECONDS_MAX:.0f} s; see `./atoll status`")
        time.sleep(_LOOK_EVERY_SECONDS)
        found = client.ask(state, do="operation", id=operation["id"])["operation"]
        if found is None:
            raise AgentGoneError("the agent was replaced meanwhile; see `./atoll status`")
        operation = found
