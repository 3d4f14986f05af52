"""ADMIN's verbs: what operators see, and what they do to dead letters, groups, faults and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from . import codec, grants
from .commands import NULL, Admin
from .errors import EventRefusedError, WireError
from .events import head_of
from .faults import FaultSpec
from .groups import Group
from .letters import Choice
from .replays import REPLAY_EVENTS_MAX, Replay
from .storage import Place, Step, StoredEvent

if TYPE_CHECKING:
    from .core import Core

Result = dict[str, object]
Tell = Callable[[Result], None]
Refuse = Callable[[WireError], None]

GAP_ALARM_MS: Final = 86_400_000  # the gap stays on record; after a day everybody has been told

_faults: Final = msgspec.json.Decoder(FaultSpec)


def run(core: Core, command: Admin, identity: str, tell: Tell, refuse: Refuse) -> None:
    """Tells the fields of RESULT besides `request`, now or later. Raises WireError, or refuses later."""
    if command.verb in LATER:
        LATER[command.verb](core, command, identity, tell, refuse)
    elif command.verb in VERBS:
        tell(VERBS[command.verb](core, command))
    else:
        raise WireError("VERB", f"unknown verb; there are {', '.join(sorted([*VERBS, *LATER]))}", "verb")


def _groups(core: Core, _: Admin) -> Result:
    return {"groups": {name: _group(core, group) for name, group in core.groups.items()}}


def _group(core: Core, group: Group) -> Result:
    return {
        "part": group.config.part,
        "topics": sorted(group.topics),
        "lag": group.lag,
        "in_flight": group.in_flight,
        "parked_keys": group.parked_keys,
        "dead": group.dead,
        "members": len(group.members),
        "floor": group.floor,
        "oldest_age_ms": group.oldest_age_ms(),
        "detached": group.detached,
        "gaps": [_plain(gap) for gap in group.gaps],
        "rate": group.config.events_per_second_max or None,
        "delayed": group.delayed,
        "stalled_ms": int(_stalled_seconds(core, group) * 1000),
    }


def _stalled_seconds(core: Core, group: Group) -> float:
    """For how long it has had something to do and done nothing."""
    return core.now - group.progress_at if group.lag > 0 and not group.detached else 0.0


def _topics(core: Core, _: Admin) -> Result:
    names = set(core.log.topics) | {topic for group in core.groups.values() for topic in group.topics}
    return {"topics": {name: _topic(core, name) for name in sorted(names)}}


def _topic(core: Core, name: str) -> Result:
    takers = [group.name for group in core.groups.values() if name in group.topics]
    publishers = {session.identity for session in core.sessions if name in session.contract}
    return {
        "events": core.log.topics[name],
        "stored": core.log.stored[name],
        "groups": sorted(takers),
        "publishers": sorted(publishers),
    }


def _contracts(core: Core, _: Admin) -> Result:
    return {
        "contracts": [
            {
                "identity": session.identity,
                "slot": session.slot,
                "version": session.hello.version,
                "publishes": session.hello.contracts.publishes,
                "consumes": session.hello.contracts.consumes,
            }
            for session in core.sessions
        ]
    }


def _sessions(core: Core, _: Admin) -> Result:
    return {
        "sessions": [
            {
                "session": session.id,
                "identity": session.identity,
                "slot": session.slot,
                "process": session.hello.process,
                "version": session.hello.version,
                "sdk": session.hello.sdk,
                "state": "suspect" if session.suspect else "alive",
                "ready": session.ready,
                "why": session.why,
                "silent_ms": int((core.now - session.last_seen) * 1000),
                "lag_ms": session.ping.lag_ms,
                "oldest_ms": session.ping.oldest_ms,
                "publishes": sorted(session.hello.contracts.publishes),
                "groups": {
                    name: {
                        "in_flight": member.in_flight,
                        "credit_events": member.events,
                        "credit_bytes": member.bytes,
                        "draining": member.draining,
                    }
                    for name, member in session.members.items()
                },
            }
            for session in core.sessions
        ]
    }


def _list_letters(core: Core, command: Admin) -> Result:
    group = _named_group(core, command)
    letters = core.storage.dead_letters(group.name, command.subject, command.after, command.limit + 1)
    shown = [{name: value for name, value in _plain(letter).items() if name != "group"} for letter in letters]
    return {"letters": shown[: command.limit], "more": len(letters) > command.limit}


def _replay_letters(core: Core, command: Admin) -> Result:
    """Dead letters of a key, one, or a range, released to their group."""
    group = _named_group(core, command)
    chosen, held_back = group.choose(_choice(command))
    result: Result = {"replayed": len(chosen), "held_back": held_back, "replay": None}
    if not command.dry_run:
        replay = core.replays.begin(group.name, command.by, core.wall_ms(), len(chosen))
        _starts_to_work(core, group)
        group.release(chosen, [], replay)
        result["replay"] = replay.id
    return result


def _choice(command: Admin) -> Choice:
    if command.seq is not None:
        return Choice(command.subject, command.seq, command.seq)
    if command.first is not None or command.last is not None:
        first, last = _range(command)
        return Choice(command.subject, first, last)
    if command.subject is None:
        raise WireError("VERB", "dlq.replay needs what to release: subject, seq, or first and last", "subject")
    return Choice(command.subject)


def _range(command: Admin) -> tuple[int, int]:
    if command.first is None or command.last is None or command.first > command.last:
        field = "first" if command.first is None else "last"
        raise WireError("VERB", f"{command.verb} needs first and last, first not above last", field)
    return command.first, command.last


def _starts_to_work(core: Core, group: Group) -> None:
    if group.lag == 0:
        group.progress_at = core.now  # what was idle has not been stalled


def _replay(core: Core, command: Admin, _: str, tell: Tell, refuse: Refuse) -> None:
    """Events of a range that the group has finished come again, to this group alone."""
    group = _named_group(core, command)
    first, last = _range(command)
    if last - first >= REPLAY_EVENTS_MAX:
        raise WireError("VERB", f"at most {REPLAY_EVENTS_MAX} seqs at a time, got {last - first + 1}", "last")
    choice = Choice(command.subject, first, last)

    def found(answer: object) -> None:
        # After the commit that may be trimming some of them away right now.
        core.after_commit(lambda: _bring_back(core, command, group, choice, answer, tell), lambda: refuse(_full()))

    core.look_up(lambda: core.storage.select(sorted(group.topics), first, last, command.subject), found)


def _bring_back(core: Core, command: Admin, group: Group, choice: Choice, answer: object, tell: Tell) -> None:
    assert isinstance(answer, list)
    places: list[Place] = [place for place in answer if place.seq >= core.log.oldest]
    letters, held_back = group.choose(choice)
    finished = group.finished(places)
    dead = sum(choice.takes(seq, subject) for seq, _, subject in group.letters)
    result: Result = {
        "replayed": len(letters) + len(finished),
        "held_back": held_back,
        "pending": len(places) - len(finished) - dead,
        "replay": None,
    }
    if not command.dry_run:
        replay = core.replays.begin(group.name, command.by, core.wall_ms(), len(letters) + len(finished))
        _starts_to_work(core, group)
        group.release(letters, finished, replay)
        core.look_again()
        result["replay"] = replay.id
    tell(result)


def _replays(core: Core, command: Admin) -> Result:
    return {"replays": [_replay_state(replay) for replay in core.replays.known(command.id)]}


def _replay_state(replay: Replay) -> Result:
    names = ("id", "group", "by", "at_ms", "total", "waiting", "done", "duplicate", "failed")
    return {name: getattr(replay, name) for name in names} | {"ended": replay.waiting == 0}


def _detach(core: Core, command: Admin, _: str, tell: Tell, __: Refuse) -> None:
    group = _named_group(core, command)
    if group.members:
        slots = sorted(member.slot for member in group.members.values())
        raise WireError("VERB", f"{group.name} has members ({', '.join(slots)}): stop them first", "group")
    result: Result = {"floor": group.floor, "waiting": group.lag}
    group.detach(command.by)
    core.look_again()
    core.after_commit(lambda: tell(result))


def _publish(core: Core, command: Admin, identity: str, tell: Tell, refuse: Refuse) -> None:
    """An operator's own event: the grant is his part's, the schema is the one that the topic's publisher announces."""
    if command.event == NULL:
        raise WireError("VERB", "publish needs the event", "event")
    topic, event_id = _head_of(command.event)
    if not grants.may_publish(grants.grant_of(core.mesh, identity), topic):
        raise WireError("ACL", f"{identity} may not publish {topic}", "event.type", closes=False)
    publisher = core.contract_of(topic)
    if publisher is None:
        raise WireError("VERB", f"no live session announces the schema of {topic}: start its publisher", "event.type")
    try:
        seq = core.publishing.publish(identity, command.event, publisher.contract, core.now)
    except EventRefusedError as refused:
        field = f"event.{refused.field}" if refused.field else "event"
        raise WireError("VERB", f"{refused.code}: {refused.text}", field) from None
    core.after_commit(lambda: tell({"seq": seq, "event_id": event_id}), lambda: refuse(_full()))


class _Head(msgspec.Struct):
    type: str
    id: str = ""


def _head_of(event: msgspec.Raw) -> tuple[str, str]:
    try:
        head = msgspec.json.decode(event, type=_Head)
    except msgspec.ValidationError as error:
        raise WireError("VERB", str(error), f"event.{codec.field_of(error) or ''}".rstrip(".")) from None
    return head.type, head.id


def _full() -> WireError:
    return WireError("BUSY", "the disk is full: try again later")


def _why(core: Core, command: Admin, _: str, tell: Tell, __: Refuse) -> None:
    """One event's story, from its commit on."""
    event_id = command.event_id
    if event_id is None:
        raise WireError("VERB", "why needs the event's id", "event_id")

    def ask() -> tuple[StoredEvent, list[Step]] | None:
        event = core.storage.find(event_id)
        return None if event is None else (event, core.storage.steps(event.seq))

    def found(answer: object) -> None:
        event, steps = answer if isinstance(answer, tuple) else (None, [])
        told = core.history.of(event.seq, steps) if event is not None else []
        shown = [{name: value for name, value in _plain(step).items() if name not in ("n", "seq")} for step in told]
        known = None if event is None else _event(event)
        tell({"event": known, "steps": shown, "complete_since_ms": core.history.complete_since_ms})

    core.look_up(ask, found)


def _event(event: StoredEvent) -> Result:
    place = {name: value for name, value in _plain(event).items() if name != "body"}
    return place | _plain(head_of(event.body))


def _put_fault(core: Core, command: Admin) -> Result:
    if command.fault == NULL:
        raise WireError("VERB", "fault.put needs the fault", "fault")
    try:
        spec = _faults.decode(command.fault)
    except msgspec.ValidationError as error:
        raise WireError("VERB", str(error), f"fault.{codec.field_of(error) or ''}".rstrip(".")) from None
    group = core.groups.get(spec.group)
    if group is None:
        raise WireError("VERB", "a fault needs a declared group", "fault.group")
    if spec.topic is not None and spec.topic not in group.topics:
        raise WireError("VERB", f"{spec.group} does not take {spec.topic}", "fault.topic")
    return {"id": core.faults.put(spec, command.by, core.now)}


def _list_faults(core: Core, _: Admin) -> Result:
    return {
        "faults": [
            {
                "id": fault.id,
                "group": fault.spec.group,
                "topic": fault.spec.topic,
                "kind": fault.spec.kind,
                "share": fault.spec.share,
                "delay_ms": fault.spec.delay_ms,
                "left_ms": max(0, int((fault.until - core.now) * 1000)),
                "by": fault.by,
                "hits": fault.hits,
            }
            for fault in core.faults
        ]
    }


def _stop_fault(core: Core, command: Admin) -> Result:
    return {"stopped": core.faults.stop(command.id)}


def _alarms(core: Core, _: Admin) -> Result:
    return {"alarms": alarms(core)}


def alarms(core: Core) -> list[Result]:
    """What an operator should look at now. Each names its subject; none of them stops anything."""
    found = [alarm for group in core.groups.values() for alarm in _group_alarms(core, group)]
    if core.log.bytes * 2 > core.mesh.bus.log_bytes_max:
        share = 100 * core.log.bytes // core.mesh.bus.log_bytes_max
        found.append(_alarm("log_filling", "log", f"the log is {share} % of log_bytes_max{_what_holds(core)}"))
    if core.publishing.full_until is not None:
        found.append(_alarm("disk_full", "log", "the disk is full: publishers are told BUSY until there is room"))
    for fault in core.faults:
        text = f"{fault.spec.kind} for another {fault.until - core.now:.0f} s, by {fault.by or 'unknown'}"
        found.append(_alarm("fault_active", fault.spec.group, text))
    if core.mesh_problem is not None:
        found.append(_alarm("mesh_invalid", "mesh.toml", f"the change is not in force: {core.mesh_problem}"))
    if core.mesh_waiting:
        text = f"these wait for the broker's restart: {', '.join(core.mesh_waiting)}"
        found.append(_alarm("mesh_restart_needed", "mesh.toml", text))
    return found


def _what_holds(core: Core) -> str:
    """Which group retention must not pass: for what it has not handled, or for a letter that may be replayed."""
    holding = [group for group in core.groups.values() if not group.detached]
    last = min(holding, key=lambda group: group.needs_from, default=None)
    if last is None:
        return ""
    if last.needs_from == last.floor + 1:
        return f"; {last.name} is the slowest group"
    return f"; {last.name} has a dead letter of event {last.needs_from}, which holds all after it"


def _group_alarms(core: Core, group: Group) -> list[Result]:
    found = []
    stalled = _stalled_seconds(core, group)
    if stalled > core.mesh.bus.stalled_seconds:
        why = "has no member" if not group.members else "makes no progress"
        found.append(_alarm("group_stalled", group.name, f"{why}, {group.lag} events wait", int(stalled * 1000)))
    if group.detached:
        text = f"retention may pass it ({group.lag} events wait); it is attached when a member joins"
        found.append(_alarm("group_detached", group.name, text))
    if group.gaps and core.wall_ms() - group.gaps[-1].at_ms < GAP_ALARM_MS:
        last = group.gaps[-1]
        found.append(_alarm("group_gap", group.name, f"it never got {last.first} to {last.last}: {last.why}"))
    if group.members and (topics := group.untaken_topics()):
        found.append(_alarm("topic_untaken", group.name, f"no member takes {', '.join(topics)}"))
    if group.dead:
        found.append(_alarm("dead_letters", group.name, f"{group.dead} dead letters, {group.parked_keys} keys parked"))
    if group.dead >= core.mesh.bus.dead_letters_max:
        found.append(_alarm("dead_letters_full", group.name, "dead_letters_max is reached: the group stands still"))
    return found


def _alarm(name: str, subject: str, text: str, for_ms: int | None = None) -> Result:
    return {"name": name, "subject": subject, "text": text, "for_ms": for_ms}


def _named_group(core: Core, command: Admin) -> Group:
    group = core.groups.get(command.group or "")
    if group is None:
        raise WireError("VERB", f"{command.verb} needs a declared group", "group")
    return group


def _plain(struct: msgspec.Struct) -> Result:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


VERBS: Final[dict[str, Callable[[Core, Admin], Result]]] = {
    "groups": _groups,
    "topics": _topics,
    "sessions": _sessions,
    "contracts": _contracts,
    "dlq.list": _list_letters,
    "dlq.replay": _replay_letters,
    "replays": _replays,
    "fault.put": _put_fault,
    "fault.list": _list_faults,
    "fault.stop": _stop_fault,
    "alarms": _alarms,
}
# These answer when the disk has.
LATER: Final[dict[str, Callable[[Core, Admin, str, Tell, Refuse], None]]] = {
    "replay": _replay,
    "publish": _publish,
    "why": _why,
    "group.detach": _detach,
}
# These must see what was said before them: they run once it is on disk.
AFTER_COMMIT: Final = frozenset({"dlq.list", "dlq.replay", "replay", "why"})
