"""What operators see and do on the bus: the broker's administration, with permission, record and one clear answer.

An act goes: may this operator do it · was it done already (Idempotency-Key) · into the audit · to the broker · its end
into the audit, with the answer that a repeated request gets. If control dies between the last two, the repeated request
does it again. That is harmless by what the acts are: an event that is replayed or published twice has one effect, for
its id is the same and consumers' inboxes know it; a fault ends by itself; a group that is detached stays so.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from opentelemetry import propagate

import atoll
from atoll import web
from atoll_ops.control import audit, why
from atoll_ops.control.observer import Observer
from atoll_ops.control.permissions import Asker
from atoll_ops.control.tracing import trace_id

SEQ_MAX = 2**53 - 1
TARGET_MAX = 200  # of an act's target in the audit
_WHO_MAX = 256  # of `by` on the wire
_NAMESPACE = uuid.UUID("5b0f6f3e-3f51-5c57-9f0e-6a7a4d3c2b1a")

Once = Callable[[atoll.Transaction, Callable[[], web.Answer]], web.Answer]
"""Answers a request in a transaction, once per Idempotency-Key."""
CheckMay = Callable[[Asker, str, str, str], Awaitable[None]]
Work = Callable[[], Awaitable[tuple[dict[str, Any], str]]]
"""Does it: the answer's body, and the result in the audit's words."""


class _FreshError(Exception):
    """This request has not been answered before."""


class BusDesk:
    """The broker's verbs for operators. `session` is set once the application is attached to the bus."""

    session: atoll.Session

    def __init__(self, check_may: CheckMay, database: atoll.Database, observer: Observer) -> None:
        self._check_may = check_may
        self._database = database
        self._observer = observer

    # ---- seeing --------------------------------------------------------------------------------------------------

    async def admin(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """One request to the broker. Raises Problem 503 while it does not answer, 422 if it refuses."""
        try:
            return await self.session.admin(verb, **arguments)
        except atoll.BusRefusedError as error:
            raise self._refusal(error, arguments) from error
        except atoll.AtollError as error:
            raise web.Problem(503, "bus_unavailable", str(error), headers={"Retry-After": "1"}) from error

    def _refusal(self, error: atoll.BusRefusedError, arguments: dict[str, Any]) -> web.Problem:
        if error.code in ("BUSY", "LIMIT"):
            return web.Problem(503, "bus_busy", error.text, headers={"Retry-After": "1"})
        field = (error.field or "").removeprefix("fault.").removeprefix("event.") or None
        if field == "group" and "declared group" in error.text:
            wanted = arguments.get("group") or (arguments.get("fault") or {}).get("group")
            known = ", ".join(sorted(self._observer.bus.seen["groups"])) if self._observer.bus.seen else "none is known"
            return web.Problem(404, "unknown_group", f"There is no group {wanted!r} (there are: {known})", "group")
        return web.Problem(422, "bus_refused", error.text, "topic" if field == "type" else field)

    async def why(self, event_id: str) -> dict[str, Any]:
        """One event's story. Raises Problem 404 for an id that the log does not have."""
        answer = await self.admin("why", event_id=event_id)
        if answer["event"] is None:
            text = f"The log has no event with the id {event_id} (it may be older than what is kept)"
            raise web.Problem(404, "unknown_event", text, "event_id")
        return why.told(answer, (await self.admin("groups"))["groups"])

    @asynccontextmanager
    async def tap(
        self, asker: Asker, topics: list[str], after: int | None, subject: str | None, reason: str
    ) -> AsyncIterator[Sight]:
        """Events as they are committed, of one subject or all. Audited: events tell about people.

        Raises Problem 503 without a bus, or with too many taps open already.
        """
        target = ", ".join(topics)[:TARGET_MAX]
        await self._check_may(asker, "tap", target, reason)
        if self.session.state != "up":
            raise web.Problem(503, "bus_unavailable", f"no session with the broker: {self.session.state}")
        try:
            tap = self.session.tap(topics, after)
        except atoll.OverloadedError as error:
            raise web.Problem(503, "taps", str(error), headers={"Retry-After": "5"}) from error
        async with tap:
            operation_id, sight = await self._begin(asker, "tap", target, reason), Sight(tap, subject)
            try:
                yield sight
            finally:
                await self._end(operation_id, f"{sight.seen} events seen")

    # ---- doing ---------------------------------------------------------------------------------------------------

    async def replay_letters(
        self, asker: Asker, group: str, choice: dict[str, Any], reason: str, once: Once, *, dry_run: bool
    ) -> web.Answer:
        """Dead letters come again: of a key, one, a range, or (an empty choice) all of the group's."""
        arguments = choice or {"first": 0, "last": SEQ_MAX}
        return await self._replayed(asker, "dlq.replay", group, arguments, reason, once, dry_run=dry_run)

    async def replay(
        self, asker: Asker, group: str, choice: dict[str, Any], reason: str, once: Once, *, dry_run: bool
    ) -> web.Answer:
        """Events of a range that the group has finished come again, to it alone."""
        return await self._replayed(asker, "replay", group, choice, reason, once, dry_run=dry_run)

    async def _replayed(
        self, asker: Asker, act: str, group: str, choice: dict[str, Any], reason: str, once: Once, *, dry_run: bool
    ) -> web.Answer:
        target = _target(group, choice)

        async def work() -> tuple[dict[str, Any], str]:
            found = await self.admin(act, group=group, by=asker.who[:_WHO_MAX], dry_run=dry_run, **choice)
            body = {"group": group, "dry_run": dry_run, **found}
            held = f", {found['held_back']} held back" if found["held_back"] else ""
            return body, f"{found['replayed']} replayed{held}"

        if dry_run:  # a look: nothing to record, nothing to repeat
            await self._check_may(asker, act, target, reason)
            return web.Answer(200, (await work())[0])
        return await self._carry_out(asker, act, target, reason, once, work)

    async def detach(self, asker: Asker, group: str, reason: str, once: Once) -> web.Answer:
        """Let a group's floor go: what retention takes away, it will never get."""

        async def work() -> tuple[dict[str, Any], str]:
            found = await self.admin("group.detach", group=group, by=asker.who[:_WHO_MAX])
            return {"group": group, **found}, f"detached at {found['floor']}, {found['waiting']} events waited"

        return await self._carry_out(asker, "group.detach", group, reason, once, work)

    async def publish(
        self, asker: Asker, topic: str, subject: str | None, data: msgspec.Raw, key: str | None, reason: str, once: Once
    ) -> web.Answer:
        """An event in the operator's own name, which everybody who listens takes for one of its topic."""
        event_id = str(uuid.uuid5(_NAMESPACE, f"{asker.who} {key}") if key is not None else uuid.uuid4())
        event = _event(asker.who, topic, subject or event_id, event_id, data)

        async def work() -> tuple[dict[str, Any], str]:
            found = await self.admin("publish", event=event, by=asker.who[:_WHO_MAX])
            return {"topic": topic, "subject": event["subject"], **found}, f"seq {found['seq']}, id {event_id}"

        return await self._carry_out(asker, "publish", topic, reason, once, work)

    async def put_fault(self, asker: Asker, fault: dict[str, Any], reason: str, once: Once) -> web.Answer:
        """Make deliveries of a group late, lost, double or failed, for a time."""

        async def work() -> tuple[dict[str, Any], str]:
            found = await self.admin("fault.put", fault=fault, by=asker.who[:_WHO_MAX])
            self._observer.bus.note_fault(str(found["id"]), reason)
            return {**fault, **found}, f"fault {found['id']}"

        target = f"{fault['group']}: {fault['kind']}"
        return await self._carry_out(asker, "fault.put", target, reason, once, work)

    async def stop_faults(self, asker: Asker, fault_id: str | None, reason: str, once: Once) -> web.Answer:
        """End one fault, or all. Raises Problem 404 for one that there is not."""

        async def work() -> tuple[dict[str, Any], str]:
            found = await self.admin("fault.stop", id=fault_id)
            if fault_id is not None and not found["stopped"]:
                text = f"There is no fault {fault_id}: it may have ended by itself"
                raise web.Problem(404, "unknown_fault", text, "id")
            return found, f"{found['stopped']} stopped"

        return await self._carry_out(asker, "fault.stop", fault_id or "all", reason, once, work)

    # ---- on the record -------------------------------------------------------------------------------------------

    async def _carry_out(self, asker: Asker, act: str, target: str, reason: str, once: Once, work: Work) -> web.Answer:
        await self._check_may(asker, act, target, reason)
        earlier = await self._answered(once)
        if earlier is not None:
            return earlier
        operation_id = await self._begin(asker, act, target, reason)
        try:
            body, result = await work()
        except web.Problem as problem:
            await self._end(operation_id, f"failed: {problem.detail}")
            raise
        answer = web.Answer(200, body)

        def note(tx: atoll.Transaction) -> web.Answer:
            audit.end(tx, operation_id, result)
            return once(tx, lambda: answer)

        done = await self._database.write(note)
        self._observer.note_act()
        await self._observer.bus.look()
        return done

    async def _answered(self, once: Once) -> web.Answer | None:
        """What this request was answered before, if it was."""

        def fresh() -> web.Answer:
            raise _FreshError

        try:
            return await self._database.write(lambda tx: once(tx, fresh))
        except _FreshError:
            return None

    async def _begin(self, asker: Asker, act: str, target: str, reason: str) -> str:
        operation_id = uuid.uuid4().hex
        await self._database.write(
            lambda tx: audit.begin(
                tx, who=asker.who, act=act, target=target, reason=reason, operation_id=operation_id, trace_id=trace_id()
            )
        )
        return operation_id

    async def _end(self, operation_id: str, result: str) -> None:
        await self._database.write(lambda tx: audit.end(tx, operation_id, result))
        self._observer.note_act()


def _target(group: str, choice: dict[str, Any]) -> str:
    """A group, and which of its events, for the audit."""
    span = f"{choice['first']}..{choice['last']}" if choice.get("last", SEQ_MAX) != SEQ_MAX else None
    of = [choice.get("subject"), span, f"seq {choice['seq']}" if "seq" in choice else None]
    return ": ".join([group, *filter(None, of)])


class _Subject(msgspec.Struct):
    subject: str


class Sight:
    """What an operator sees through a tap: of one subject, or all."""

    def __init__(self, tap: atoll.Tap, subject: str | None) -> None:
        self.seen = 0
        self._tap = tap
        self._subject = subject

    async def next(self) -> atoll.Tapped | atoll.Missed:
        """The next that is of interest. Raises BusRefusedError."""
        while True:
            one = await anext(self._tap)
            if isinstance(one, atoll.Missed):
                return one
            if self._subject is None or msgspec.json.decode(one.event, type=_Subject).subject == self._subject:
                self.seen += 1
                return one


def _event(who: str, topic: str, subject: str, event_id: str, data: msgspec.Raw) -> dict[str, Any]:
    """The CloudEvent, made in the trace of the request that asked for it."""
    context: dict[str, str] = {}
    propagate.inject(context)
    return {
        "specversion": "1.0", "id": event_id, "source": f"/operators/{who}", "type": topic, "subject": subject,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "datacontenttype": "application/json", "data": data,
        **{name: value for name, value in context.items() if name in ("traceparent", "tracestate")},
    }  # fmt: skip
