"""What operators can see and do, whichever way they came in: HTTP handlers translate, this decides.

To see needs `ops:read`, which the way in has checked. To act needs more, and that is checked here rather than at the
door: who is turned away there leaves no trace in the audit, and an attempt to kill a part is worth one.

An act goes: may this operator do it · does it make sense now · into the audit, with the operation's id · to the agent ·
and its end into the audit. Control may die anywhere on that way; what began is then looked for at the next start.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

import atoll
from atoll import web
from atoll_ops.agency import Agency
from atoll_ops.control import audit
from atoll_ops.control.agentwatch import WAIT_SECONDS
from atoll_ops.control.denials import Denials
from atoll_ops.control.observer import Observer
from atoll_ops.control.permissions import Asker, scope_for
from atoll_ops.control.tracing import trace_id
from atoll_ops.errors import AgentGoneError
from atoll_ops.operations import ACTS

_FOLLOW_SECONDS_MAX = 120.0
_LOOK_EVERY_SECONDS = 0.1
_WORD_MAX = 64  # of an act or target that is only attempted, and may be any text

#: Answers a request in its effect's transaction, once per Idempotency-Key: `web.idempotent` with its request filled in.
Once = Callable[[atoll.Transaction, Callable[[], web.Answer]], web.Answer]
_log = structlog.get_logger("atoll.control")


class Desk:
    """Agent and audit, brought together."""

    def __init__(self, agency: Agency, database: atoll.Database, observer: Observer) -> None:
        self._agency = agency
        self._database = database
        self._observer = observer
        self._denials = Denials()
        self._followers: set[asyncio.Task[None]] = set()
        self._entered: frozenset[str] = frozenset()  # the agent's operations that the audit has

    # ---- seeing --------------------------------------------------------------------------------------------------

    async def snapshot(self) -> bytes:
        """The system as last known, as JSON. Raises Problem 503 if no agent has ever answered."""
        seen = await self._observer.encoded()
        if seen is None:
            raise web.Problem(503, "agent_gone", self._observer.agent_lost or "the agent has not answered yet")
        return seen

    async def operation(self, operation_id: str) -> dict[str, Any]:
        """Where an operation stands: as the agent knows it, else as the audit does. Raises Problem 404."""
        try:
            known = (await self._agency.ask(do="operation", id=operation_id))["operation"]
        except AgentGoneError:
            known = None
        if known is not None:
            if known["done"]:
                self._observer.expire()
            return dict(known)
        row = await self._database.read(lambda reader: audit.find(reader, operation_id))
        if row is None:
            raise web.Problem(404, "not_found", f"There is no operation {operation_id}")
        return _from_audit(row)

    async def log(self, name: str, instance: int, lines: int) -> dict[str, Any]:
        """The last lines that an instance said. Raises Problem 404 (no such instance; kept elsewhere), 503."""
        found = await self._told("log", name, instance, lines=lines)
        return {"name": name, "instance": instance, "lines": found}

    async def configuration(self, name: str, instance: int) -> dict[str, Any]:
        """What the agent tells an instance, secrets masked. Raises Problem 404, 503."""
        found = await self._told("configuration", name, instance)
        return {"name": name, "instance": instance, "settings": found}

    async def _told(self, what: str, name: str, instance: int, **more: Any) -> list[Any]:
        """What the agent of an instance alone knows of it."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                answer = await self._ask(do=what, name=name, instance=instance, **more)
        except TimeoutError as error:
            raise web.Problem(503, "agent_gone", "the agent does not answer") from error
        if isinstance(answer.get(what), list):
            return list(answer[what])
        refused = answer.get("error") or {}
        if refused.get("code") == "unknown_instance":
            raise _no_instance(name, instance, (await self._ask(do="snapshot"))["parts"])
        why = refused.get("text") if refused.get("code") == "not_here" else "its agent is of a release that tells none"
        raise web.Problem(404, "not_here", f"The {what} of {name}/{instance} is not reachable from here: {why}")

    async def audit(self, query: audit.Query, limit: int, before: int | None) -> dict[str, Any]:
        """A page of the record, newest first."""
        await self._catch_up()
        items = await self._database.read(lambda reader: audit.page(reader, query, limit, before))
        return {"items": items, "next": str(items[-1]["id"]) if len(items) == limit else None}

    # ---- doing ---------------------------------------------------------------------------------------------------

    async def act(
        self, asker: Asker, act: str, name: str, instance: int, reason: str, seconds: float | None, once: Once
    ) -> web.Answer:
        """Carry out an act, once per Idempotency-Key; 202 with the operation to follow. Raises Problem."""
        target = f"{name}/{instance}"
        if act not in ACTS:
            raise web.Problem(404, "unknown_act", f"Expected one of {', '.join(ACTS)}, not {act!r}")
        await self.check_may(asker, act, target, reason)
        objection = await self._objection(act, name, instance)
        begun = _begun(act, name, instance, reason, asker.who)
        fresh: list[str] = []  # filled only if this is no replay of an earlier answer

        def note(tx: atoll.Transaction) -> web.Answer:
            def effect() -> web.Answer:
                if objection is not None:  # asked here, for a repeated request must not be refused for its first one
                    raise objection
                fresh.append(begun["id"])
                audit.begin(tx, who=asker.who, act=act, target=target, reason=reason, operation_id=begun["id"],
                            trace_id=trace_id())  # fmt: skip
                return web.Answer(202, begun, {"Location": f"/ops/operations/{begun['id']}"})

            return once(tx, effect)

        answer = await self._database.write(note)
        self._observer.note_act()
        if fresh:
            await self._dispatch(begun, seconds)
        return answer

    async def _objection(self, act: str, name: str, instance: int) -> web.Problem | None:
        """Why it makes no sense now: 404 for a slot that there is none of, 409 for an act that cannot be done."""
        parts = (await self._ask(do="snapshot"))["parts"]
        found = next((part for part in parts if (part["name"], part["instance"]) == (name, instance)), None)
        if found is None:
            return _no_instance(name, instance, parts)
        if act in ("kill", "pause") and found["pid"] is None:
            return web.Problem(409, "no_process", f"{name}/{instance} has no process to {act}: {found['why']}")
        going_on = found.get("operation")
        if going_on is not None and not (act == "stop" and going_on.get("awaits_start")):
            what = f"{going_on['act']}, asked for by {going_on['by']}"
            # People read the text, on pages too: the way to that operation is for programs.
            where = {"Location": f"/ops/operations/{going_on['id']}"}
            return web.Problem(409, "busy", f"{name}/{instance}: {what}, goes on", headers=where)
        return None

    async def _dispatch(self, begun: dict[str, Any], seconds: float | None) -> None:
        request = {key: begun[key] for key in ("id", "act", "name", "instance", "reason", "by")}
        try:
            answer = await self._agency.ask(do="act", seconds=seconds, **request)
        except AgentGoneError as gone:
            await self._end(begun["id"], f"failed: {gone}")
            return
        if "error" in answer:
            await self._end(begun["id"], f"failed: {answer['error']['text']}")
            return
        self._own(self._follow(begun["id"]))

    async def check_may(self, asker: Asker, act: str, target: str, reason: str) -> None:
        """Raises Problem 403, with a record of the attempt, for one who may not."""
        scope = scope_for(act, target)
        if scope in asker.scopes:
            return
        await self._note_denied(asker, act, target, reason)
        raise web.Problem(403, "insufficient_scope", f"To {act} {target} needs the scope {scope}")

    async def _note_denied(self, asker: Asker, act: str, target: str, reason: str) -> None:
        unwritten = self._denials.admit(asker.who, time.monotonic())
        if unwritten is None:
            return
        operation_id = uuid.uuid4().hex
        result = audit.DENIED + (f", as were {unwritten} more like it before" if unwritten else "")

        def note(tx: atoll.Transaction) -> None:
            audit.begin(tx, who=asker.who, act=act[:_WORD_MAX], target=target[:_WORD_MAX], reason=reason,
                        operation_id=operation_id, trace_id=trace_id())  # fmt: skip
            audit.end(tx, operation_id, result)

        await self._database.write(note)

    # ---- ends ----------------------------------------------------------------------------------------------------

    async def look_for_ends(self) -> None:
        """At the start: what began before, and may have ended while control was down (it may have been the target)."""
        await self._catch_up()
        for operation_id, act in await self._database.read(audit.unended):
            if act in ACTS:
                self._own(self._follow(operation_id))
            else:  # on the bus: the agent knows nothing of it
                await self._end(operation_id, "unknown: control ended in the middle of it")

    async def _catch_up(self) -> None:
        """Enter what the agent was asked past control, while control was down or paused: no act is left out."""
        try:
            known = (await self._agency.ask(do="operations"))["operations"]
        except AgentGoneError:
            return

        def enter(tx: atoll.Transaction) -> list[str]:
            missing = [one for one in known if audit.find(tx, one["id"]) is None]
            for one in missing:
                audit.begin(
                    tx, who=one["by"], act=one["act"], target=f"{one['name']}/{one['instance']}", reason=one["reason"],
                    operation_id=one["id"], trace_id=None, at=one["steps"][0]["at"],
                )  # fmt: skip
                if one["done"]:
                    audit.end(tx, one["id"], _result(one))
            return [one["id"] for one in missing if not one["done"]]

        if all(one["id"] in self._entered for one in known):
            return
        for operation_id in await self._database.write(enter):
            self._own(self._follow(operation_id))
        self._entered = frozenset(one["id"] for one in known)
        self._observer.note_act()

    async def close(self) -> None:
        """Stop looking; the next start looks again."""
        for task in list(self._followers):
            task.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)

    async def _follow(self, operation_id: str) -> None:
        deadline = time.monotonic() + _FOLLOW_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                known = (await self._agency.ask(do="operation", id=operation_id))["operation"]
            except AgentGoneError:
                known = {"done": False}  # its successor will not know; the deadline ends this
            if known is None:
                await self._end(operation_id, "unknown: the agent was replaced meanwhile")
                return
            if known["done"]:
                await self._end(operation_id, _result(known))
                return
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        await self._end(operation_id, "unknown: no end was seen")

    async def _end(self, operation_id: str, result: str) -> None:
        await self._database.write(lambda tx: audit.end(tx, operation_id, result))
        self._observer.note_act()

    async def _ask(self, **request: Any) -> dict[str, Any]:
        try:
            return await self._agency.ask(**request)
        except AgentGoneError as gone:
            raise web.Problem(503, "agent_gone", str(gone)) from gone

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._followers.add(task)
        task.add_done_callback(self._disown)

    def _disown(self, task: asyncio.Task[None]) -> None:
        self._followers.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("an operation's end was not noted", error=repr(task.exception()))


def _no_instance(name: str, instance: int, parts: list[dict[str, Any]]) -> web.Problem:
    known = ", ".join(f"{part['name']}/{part['instance']}" for part in parts)
    return web.Problem(404, "unknown_instance", f"There is no {name[:_WORD_MAX]}/{instance} (there are: {known})")


def _begun(act: str, name: str, instance: int, reason: str, by: str) -> dict[str, Any]:
    """An operation at its first step, in the shape that the agent's have."""
    return {
        "id": uuid.uuid4().hex, "act": act, "name": name, "instance": instance, "reason": reason, "by": by,
        "steps": [{"state": "requested", "at": time.time(), "text": ""}], "state": "requested", "text": "",
        "done": False, "ok": False,
    }  # fmt: skip


def _result(operation: dict[str, Any]) -> str:
    """How an operation ended, as the audit has it."""
    return f"{operation['state']}: {operation['text']}" if operation["text"] else str(operation["state"])


def _from_audit(row: dict[str, Any]) -> dict[str, Any]:
    """An operation that the agent no longer knows, as far as the audit tells."""
    name, _, number = str(row["target"]).partition("/")
    state, _, text = str(row["result"] or "unknown: the agent does not know it").partition(": ")
    steps = [{"state": "requested", "at": row["at"], "text": ""}]
    steps.append({"state": state, "at": row["ended_at"] or row["at"], "text": text})
    return {
        "id": row["operation_id"], "act": row["act"],
        "name": name, "instance": int(number) if number.isdecimal() else 0,
        "reason": row["reason"], "by": row["who"], "steps": steps, "state": state, "text": text, "done": True,
        "ok": state in ("started", "stopped", "paused", "resumed"),
    }  # fmt: skip
