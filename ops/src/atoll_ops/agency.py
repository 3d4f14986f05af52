"""Speaking to the agents of a system as if they were one.

On a host there is one agent. In containers there is one a part, PID 1 of each, and its socket lies in a volume that it
shares with control alone: no container needs the engine's socket for an operator to act. So what is asked is asked of
all of them at once, of the one that it concerns, or of whoever knows; and one that does not answer costs what it alone
knows: its part is shown as unknown (after 3 s, if somebody listens and is only late), everything else goes on.

    RUN/agent.sock              our own agent: on a host the only one
    AGENTS/PART/agent.sock      the agents of other containers, where that directory is there
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

from atoll_ops import mesh, sockets
from atoll_ops.errors import AgentGoneError, AgentLateError, MeshError

_SECONDS = 5.0
#: Among several, one that hangs must not make everybody wait.
_SECONDS_AMONG_MANY = 1.0
#: One that is only late, where nobody refuses, keeps what it said last for so long: a busy machine is no dead agent.
_LATE_SECONDS = 3.0
_ANSWER_BYTES_MAX = 4 * 1024 * 1024
_GONE = "the agent is gone; ./atoll up starts one, which adopts what runs"
_GONE_ELSEWHERE = "the agent in {}'s container does not answer: see `docker compose ps`"

Answer = dict[str, Any]
#: What the answer to each question has that all are asked. One that has not (another release's agent that does not know
#: the question) is no answer, and must not spoil what the others say.
_FIELD = {"snapshot": "parts", "operation": "operation", "operations": "operations"}


class Agency:
    """All agents, by their sockets. Every call is a connection of its own: an agent may be replaced between two."""

    def __init__(self, run: Path, agents: Path | None = None, page: Path | None = None) -> None:
        """`run` is our own agent's directory; `agents` has one for each agent elsewhere (or is not there at all);
        `page` is the system page, whose order the parts are shown in.
        """
        self._own = run / "agent.sock"
        self._agents = agents
        self._page = page
        self._last: dict[str, tuple[float, list[Answer]]] = {}  # an agent's parts as it last told them, and when
        self._agent: Answer = {"state": "gone", "pid": None}  # our own, as it last told of itself
        self._kinds: dict[str, str] = {}  # as the page has them, in its order; read when first needed

    async def ask(self, each_seconds: float = _SECONDS_AMONG_MANY, **request: Any) -> Answer:
        """One request, one answer: as from an agent that supervises all parts.

        Where several are asked, each has `each_seconds`.

        Raises AgentGoneError if nobody who must answer does so in time.
        """
        others = self._others()
        if not others:
            return await _exchange(self._own, request, _SECONDS, _GONE)
        match request.get("do"):
            case "snapshot":
                return self._merge(await self._ask_all(others, request, each_seconds))
            case "operation":
                return _first_known(await self._ask_all(others, request, each_seconds))
            case "operations":
                return _concatenated(await self._ask_all(others, request, each_seconds))
            case _:
                return await self._ask_one(others, request)

    def _others(self) -> dict[str, Path]:
        """Part -> socket of its agent. A directory without a socket counts: it is one whose agent is gone."""
        try:
            found = [entry for entry in self._agents.iterdir() if entry.is_dir()] if self._agents else []
        except OSError:
            return {}
        return {entry.name: entry / "agent.sock" for entry in found}

    async def _ask_all(
        self, others: dict[str, Path], request: Answer, seconds: float
    ) -> dict[str, Answer | AgentGoneError]:
        """Everybody's answer or absence; our own agent's under "". Takes as long as the slowest, and no longer."""
        sockets_by_name = {"": self._own, **others}
        answers = await asyncio.gather(
            *(
                _exchange(path, request, seconds, _GONE_ELSEWHERE.format(name or "control"))
                for name, path in sockets_by_name.items()
            ),
            return_exceptions=True,
        )
        found: dict[str, Answer | AgentGoneError] = {}
        for name, answer in zip(sockets_by_name, answers, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, AgentGoneError):
                raise answer
            understood = isinstance(answer, AgentGoneError) or _FIELD[request["do"]] in answer
            found[name] = answer if understood else AgentGoneError(_GONE_ELSEWHERE.format(name or "control"))
        return found

    async def _ask_one(self, others: dict[str, Path], request: Answer) -> Answer:
        """An act goes to the agent of the part that it is meant for; what names no other is our own agent's."""
        name = str(request.get("name"))
        return await _exchange(others.get(name, self._own), request, _SECONDS, _GONE_ELSEWHERE.format(name))

    def _merge(self, answers: dict[str, Answer | AgentGoneError]) -> Answer:
        """One snapshot. A part whose agent is gone keeps its row as it last was, marked unknown."""
        own, now = answers[""], time.monotonic()
        parts: list[Answer] = []
        for name, answer in answers.items():
            if isinstance(answer, AgentGoneError):
                _, rows = self._last.get(name, (0.0, [_never_seen(name)] if name else []))
                parts += [_late(row) if self._is_late(name, answer, now) else _unknown(row) for row in rows]
            else:
                self._last[name] = now, answer["parts"]
                parts += answer["parts"]
        if not isinstance(own, AgentGoneError):
            self._agent = own["agent"]
        elif not self._is_late("", own, now):
            self._agent = {"state": "gone", "pid": None}
        told = [answer for answer in answers.values() if not isinstance(answer, AgentGoneError)]
        return {
            "system": told[0]["system"] if told else None,
            "as_of": time.time(),
            "agent": self._agent,
            "parts": self._in_order(parts),
        }

    def _is_late(self, name: str, gone: AgentGoneError, now: float) -> bool:
        """Whether it is only late: somebody listens there, and answered a moment ago."""
        return isinstance(gone, AgentLateError) and name in self._last and now - self._last[name][0] < _LATE_SECONDS

    def _in_order(self, parts: list[Answer]) -> list[Answer]:
        """In the page's order, and with the page's word for what kind a part is that never answered."""
        kinds = self._read_kinds()
        for part in parts:
            part["kind"] = part["kind"] or kinds.get(part["name"], "service")
        known = [part for name in kinds for part in parts if part["name"] == name]
        return known + [part for part in parts if part["name"] not in kinds]

    def _read_kinds(self) -> dict[str, str]:
        if not self._kinds and self._page is not None:
            with contextlib.suppress(MeshError):  # the parts' own starts tell of it; a snapshot does not fail for it
                page = mesh.read(self._page, Path("/"))
                self._kinds = {name: part.kind for name, part in page.parts.items()}
        return self._kinds


def _unknown(row: Answer) -> Answer:
    """A part's last row, without what can have changed since."""
    why = _GONE_ELSEWHERE.format(row["name"])
    nothing = {"pid": None, "uptime_seconds": None, "memory_mb": None, "paused_until": None, "operation": None}
    return row | nothing | {"state": "unknown", "why": why}


def _late(row: Answer) -> Answer:
    """A part's last row while its agent is only late: what it does now is not known."""
    return row | {"uptime_seconds": None, "memory_mb": None, "operation": None}


def _never_seen(name: str) -> Answer:
    return {
        "name": name, "instance": 1, "kind": "", "host": name, "port": None, "restarts": 0, "exits": [], "wanted": "up",
        "failures": 0, "paused_by": "", "paused_reason": "",
    }  # fmt: skip


def _first_known(answers: dict[str, Answer | AgentGoneError]) -> Answer:
    """An operation is known to the one agent that carries it out: if that may be one that is gone, nobody can say."""
    gone = None
    for answer in answers.values():
        if isinstance(answer, AgentGoneError):
            gone = answer
        elif answer.get("operation") is not None:
            return answer
    if gone is not None:
        raise gone
    return {"operation": None}


def _concatenated(answers: dict[str, Answer | AgentGoneError]) -> Answer:
    """Every operation that anybody remembers, oldest first. Raises AgentGoneError if nobody answers."""
    told = [answer for answer in answers.values() if not isinstance(answer, AgentGoneError)]
    if not told:
        raise AgentGoneError("no agent answers: see `docker compose ps`")
    operations = [operation for answer in told for operation in answer["operations"]]
    return {"operations": sorted(operations, key=lambda operation: float(operation["steps"][0]["at"]))}


async def _exchange(path: Path, request: Answer, seconds: float, gone: str) -> Answer:
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(sockets.address(path), limit=_ANSWER_BYTES_MAX)
            try:
                writer.write(json.dumps(request).encode() + b"\n")
                await writer.drain()
                answer: Answer = json.loads(await reader.readline())
                if not isinstance(answer, dict):
                    raise AgentGoneError(gone)
                return answer
            finally:
                writer.close()
    except TimeoutError as error:
        raise AgentLateError(gone) from error
    except (OSError, ValueError) as error:
        raise AgentGoneError(gone) from error
