"""`./atoll topics | group | dlq | replay | tap | publish | fault | why`: the words, their bounds, what they ask.

What comes back is shown by `busview` and `whyview`; what takes time is followed by `busverbs`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

from cyclopts import App, Parameter, validators

from atoll_ops.command import BY_HAND, AsJson, Reason, StateOption, ask_control, state_of
from atoll_ops.errors import OperationError

group = App(name="group", help="Consumer groups on the bus.")
dlq = App(name="dlq", help="Dead letters: events that a group gave up on.")
fault = App(name="fault", help="Faults in deliveries, on purpose and for a time.")
SEQ_MAX = 2**53 - 1
RANGE_MAX = 10_000

Seq = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=SEQ_MAX))]
DryRun = Annotated[bool, Parameter(name="--dry-run", negative="", help="Only say what would come again.")]
Range = Annotated[str, Parameter(name="--range", help="From one seq to another, both included, as 120..180.")]
Wait = Annotated[
    float, Parameter(name="--wait", validator=validators.Number(gte=0, lte=3600), help="Seconds to wait for the end.")
]
_WAIT_SECONDS = 60.0


def register(app: App) -> None:
    """Add these verbs to the command line."""
    for one in (group, dlq, fault):
        app.command(one)
    for verb in (topics, replay, tap, publish, why):
        app.command(verb)


def span_of(given: str) -> tuple[int, int]:
    """`A..B` as two seqs. Raises OperationError naming what is wrong."""
    first, dots, last = given.partition("..")
    if not (dots and first.isascii() and first.isdecimal() and last.isascii() and last.isdecimal()):
        raise OperationError(f"--range {given}: expected two seqs, as 120..180")
    if not 0 <= int(first) <= int(last) <= SEQ_MAX:
        raise OperationError(f"--range {given}: expected the first not above the last")
    return int(first), int(last)


# ---- topics and groups -------------------------------------------------------------------------------------------


def topics(*, as_json: AsJson = False, state: StateOption = None) -> int:
    """Every topic on the bus: events kept, who publishes and who listens."""
    from atoll_ops import busview

    answer = ask_control(state, "GET", "/ops/topics")
    return busview.as_json(answer) if as_json else busview.topics(answer)


@group.command(name="list")
def group_list(*, as_json: AsJson = False, state: StateOption = None) -> int:
    """Every group with its lag, what is in flight, its dead letters, and what it will never get."""
    from atoll_ops import busview

    answer = ask_control(state, "GET", "/ops/groups")
    return busview.as_json(answer) if as_json else busview.groups(answer)


@group.command(name="detach")
def group_detach(name: str, /, *, reason: Annotated[str, Parameter(name="--reason")], state: StateOption = None) -> int:
    """Let go what a group has still to handle: the log need not be kept for it. A member that joins attaches it again.

    Args:
        reason: Why; it goes into the audit.
    """
    answer = _act(state, f"/ops/groups/{quote(name, safe='')}/detach", {"reason": reason})
    print(f"{name} is detached at seq {answer['floor']}: {answer['waiting']} events wait that the log may now forget")
    return 0


# ---- dead letters and replays ------------------------------------------------------------------------------------


def _dead_letters(state: Path | None, name: str, subject: str | None = None) -> Iterator[dict[str, Any]]:
    """Every dead letter of a group, or of a subject in it, oldest first."""
    query = {"group": name, "limit": "200"} | ({"subject": subject} if subject is not None else {})
    cursor: dict[str, str] = {}
    while True:
        found = ask_control(state, "GET", f"/ops/dlq?{urlencode(query | cursor)}")
        yield from found["items"]
        if found["next"] is None:
            return
        cursor = {"cursor": found["next"]}


@dlq.command(name="list")
def dlq_list(
    name: str | None = None, /, *, subject: str | None = None, as_json: AsJson = False, state: StateOption = None
) -> int:
    """The dead letters of a group, or of every group, with their cause.

    Args:
        subject: Of this key alone, as an order's id.
    """
    from atoll_ops import busview

    names = [name] if name is not None else sorted(ask_control(state, "GET", "/ops/groups")["groups"])
    letters = {one: _dead_letters(state, one, subject) for one in names}
    if as_json:
        return busview.as_json([{"group": one, **letter} for one, found in letters.items() for letter in found])
    return busview.dead_letters(letters)


@dlq.command(name="show")
def dlq_show(name: str, subject: str | None = None, /, *, seq: Seq | None = None, state: StateOption = None) -> int:
    """All that is known of dead letters in a group, as JSON: those of one subject, or the one with a seq.

    Args:
        seq: The letter's seq.
    """
    if subject is None and seq is None:
        raise OperationError(f"dlq show: expected a subject, or --seq; see `./atoll dlq list {name}`")
    found = [letter for letter in _dead_letters(state, name, subject) if seq in (None, letter["seq"])]
    if not found:
        what = f"of {subject}" if seq is None else f"with seq {seq}"
        raise OperationError(f"{name} has no dead letter {what}: see `./atoll dlq list {name}`")
    print(json.dumps(found, indent=2))
    return 0


@dlq.command(name="replay")
def dlq_replay(
    name: str, subject: str | None = None, /, *, seq: Seq | None = None,
    key: Annotated[str | None, Parameter(name="--key", help="Those of this key, as an order's id.")] = None,
    span: Range = "", dry_run: DryRun = False, wait: Wait = _WAIT_SECONDS, reason: Reason = BY_HAND,
    state: StateOption = None,
) -> int:  # fmt: skip
    """Deliver a group's dead letters again, to that group alone: all, or those of a key, of a range, or one.

    Args:
        subject: The same as --key.
        seq: The letter with this seq.
    """
    if subject is not None and key is not None:
        raise OperationError("dlq replay: expected one key, not a subject and --key")
    if seq is not None and span:
        raise OperationError("dlq replay: expected --seq or --range, not both")
    chosen = {"subject": key or subject, "seq": seq} | _span(span)
    return _replay(state, "/ops/dlq/replay", name, chosen, reason, dry_run=dry_run, wait=wait)


def replay(
    name: str, /, *, span: Range, key: Annotated[str | None, Parameter(name="--key", help="Of this key alone.")] = None,
    dry_run: DryRun = False, wait: Wait = _WAIT_SECONDS, reason: Reason = BY_HAND, state: StateOption = None,
) -> int:  # fmt: skip
    """Deliver events again that a group has handled, to that group alone. Its inbox knows them: `deduplicated`."""
    first, last = span_of(span)
    if last - first >= RANGE_MAX:
        raise OperationError(f"--range {span}: expected at most {RANGE_MAX} seqs at a time, not {last - first + 1}")
    chosen = {"subject": key, "first": first, "last": last}
    return _replay(state, "/ops/replay", name, chosen, reason, dry_run=dry_run, wait=wait)


def _span(given: str) -> dict[str, int]:
    return dict(zip(("first", "last"), span_of(given), strict=True)) if given else {}


def _replay(
    state: Path | None, path: str, name: str, chosen: dict[str, Any], reason: str, *, dry_run: bool, wait: float
) -> int:
    from atoll_ops import busverbs

    body = {"group": name, "reason": reason, "dry_run": dry_run}
    answer = _act(state, path, body | {key: value for key, value in chosen.items() if value is not None})
    if dry_run:
        return busverbs.would_replay(name, answer)
    return busverbs.follow_replay(lambda path: ask_control(state, "GET", path), name, answer, wait)


# ---- events ------------------------------------------------------------------------------------------------------


def tap(
    pattern: str, /, *more: str, after: Seq | None = None, subject: str | None = None,
    count: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    seconds: Annotated[float | None, Parameter(validator=validators.Number(gt=0))] = None,
    as_json: AsJson = False, reason: Reason = BY_HAND, state: StateOption = None,
) -> int:  # fmt: skip
    """Watch events as they are committed, until Ctrl-C. Nothing waits for this: what it is too slow for, it says.

    Args:
        pattern: A topic, or a pattern as orders.* (in quotes), or '*' for all.
        after: Those that are kept with a seq above this one come first; 0 for all that are kept.
        subject: Of this key alone, as an order's id.
        count: End after so many events.
        seconds: End after so long.
    """
    from atoll_ops import busverbs

    query = {"topics": ",".join((pattern, *more)), "after": after, "subject": subject, "reason": reason}
    asked = urlencode({name: value for name, value in query.items() if value is not None})
    look = busverbs.Look(count=count, seconds=seconds, as_json=as_json)
    return busverbs.tap(state_of(state), f"/ops/events?{asked}", look)


def publish(
    topic: str, data: str | None = None, /, *, file: Path | None = None, subject: str | None = None,
    reason: Reason = BY_HAND, state: StateOption = None,
) -> int:  # fmt: skip
    """Publish an event in your own name: DATA is the JSON that the topic's schema describes. Everybody listens to it.

    Args:
        file: Where DATA is, instead of the words; - for standard input.
        subject: Its key, as an order's id; default: one of its own.
    """
    from atoll_ops import busverbs

    body = {"topic": topic, "data": busverbs.data_of(data, file), "subject": subject, "reason": reason}
    answer = _act(state, "/ops/publish", {name: value for name, value in body.items() if name == "data" or value})
    print(f"seq {answer['seq']}, subject {answer['subject']}; what became of it: ./atoll why {answer['event_id']}")
    return 0


def why(event_id: str, /, *, as_json: AsJson = False, state: StateOption = None) -> int:
    """One event's story: published, committed, each delivery and error in each group, dead letter, replay, trace."""
    from atoll_ops import busview, whyview

    answer = ask_control(state, "GET", f"/ops/why/{quote(event_id, safe='')}")
    if as_json:
        return busview.as_json(answer)
    return whyview.show(answer, whyview.pages_of(state_of(state)))


# ---- faults ------------------------------------------------------------------------------------------------------


@fault.command(name="put")
def fault_put(
    name: str, kind: Literal["delay", "drop", "duplicate", "error"], /, *,
    seconds: Annotated[float, Parameter(validator=validators.Number(gt=0, lte=900))],
    topic: str | None = None, share: Annotated[float, Parameter(validator=validators.Number(gt=0, lte=1))] = 1.0,
    delay_ms: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=600_000))] = 1000,
    reason: Reason = BY_HAND, state: StateOption = None,
) -> int:  # fmt: skip
    """Make deliveries to a group late (delay), lost (drop), double (duplicate) or failed (error). It ends by itself.

    Args:
        seconds: For so long, at most 900.
        topic: Of this topic alone.
        share: This part of the deliveries, above 0 and at most 1.
        delay_ms: How late, for delay.
    """
    body = {"group": name, "kind": kind, "seconds": seconds, "topic": topic, "share": share, "delay_ms": delay_ms}
    answer = _act(state, "/ops/faults", body | {"reason": reason})
    print(f"fault {answer['id']}: {kind} for {name}, for {seconds:g} s; ./atoll fault stop {answer['id']} ends it now")
    return 0


@fault.command(name="list")
def fault_list(*, as_json: AsJson = False, state: StateOption = None) -> int:
    """The faults that are active, and what they hit so far."""
    from atoll_ops import busview

    answer = ask_control(state, "GET", "/ops/faults")
    return busview.as_json(answer) if as_json else busview.faults(answer)


@fault.command(name="stop")
def fault_stop(fault_id: str | None = None, /, *, reason: Reason = BY_HAND, state: StateOption = None) -> int:
    """End one fault now, or every fault."""
    path = "/ops/faults" + (f"/{quote(fault_id, safe='')}" if fault_id is not None else "")
    answer = ask_control(state, "DELETE", f"{path}?{urlencode({'reason': reason})}")
    print(f"{answer['stopped']} stopped")
    return 0


def _act(state: Path | None, path: str, body: dict[str, Any]) -> Any:
    """POST once: the key lets control tell a request that is sent again from a second one."""
    import uuid

    return ask_control(state, "POST", path, body, {"Idempotency-Key": uuid.uuid4().hex})
