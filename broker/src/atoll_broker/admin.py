"""ADMIN's verbs: what operators see, and dead letters listed and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .commands import Admin
from .errors import WireError
from .groups import Group

if TYPE_CHECKING:
    from .core import Core

STALLED_SECONDS: Final = 30.0

Result = dict[str, object]


def run(core: Core, command: Admin) -> Result:
    """The fields of RESULT besides `request`. Raises WireError VERB."""
    verb = VERBS.get(command.verb)
    if verb is None:
        raise WireError("VERB", f"unknown verb; there are {', '.join(sorted(VERBS))}", "verb")
    return verb(core, command)


def _groups(core: Core, _: Admin) -> Result:
    return {"groups": {name: _group(group) for name, group in core.groups.items()}}


def _group(group: Group) -> Result:
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
    }


def _topics(core: Core, _: Admin) -> Result:
    names = set(core.log.topics) | {topic for group in core.groups.values() for topic in group.topics}
    return {"topics": {name: _topic(core, name) for name in sorted(names)}}


def _topic(core: Core, name: str) -> Result:
    takers = [group.name for group in core.groups.values() if name in group.topics]
    return {"events": core.log.topics[name], "stored": core.log.stored[name], "groups": sorted(takers)}


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
    letters = core.storage.dead_letters(group.name, command.after, command.limit + 1)
    shown = [{name: getattr(x, name) for name in x.__struct_fields__ if name != "group"} for x in letters]
    return {"letters": shown[: command.limit], "more": len(letters) > command.limit}


def _replay_letters(core: Core, command: Admin) -> Result:
    group = _named_group(core, command)
    if command.subject is None:
        raise WireError("VERB", "dlq.replay needs the subject to release", "subject")
    if group.lag == 0:
        group.progress_at = core.now  # what was idle has not been stalled
    return {"replayed": group.replay(command.subject)}


def _alarms(core: Core, _: Admin) -> Result:
    return {"alarms": alarms(core)}


def alarms(core: Core) -> list[Result]:
    """What an operator should look at now. Each names its subject; none of them stops anything."""
    found = [alarm for group in core.groups.values() for alarm in _group_alarms(core, group)]
    if core.log.bytes * 2 > core.mesh.bus.log_bytes_max:
        slowest = min(core.groups.values(), key=lambda group: group.floor, default=None)
        where = f"; {slowest.name} is the slowest group" if slowest is not None else ""
        share = 100 * core.log.bytes // core.mesh.bus.log_bytes_max
        found.append(_alarm("log_filling", "log", f"the log is {share} % of log_bytes_max{where}"))
    return found


def _group_alarms(core: Core, group: Group) -> list[Result]:
    found = []
    stalled = core.now - group.progress_at
    if group.lag > 0 and stalled > STALLED_SECONDS:
        why = "has no member" if not group.members else "makes no progress"
        found.append(_alarm("group_stalled", group.name, f"{why}, {group.lag} events wait", int(stalled * 1000)))
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


VERBS: Final[dict[str, Callable[[Core, Admin], Result]]] = {
    "groups": _groups,
    "topics": _topics,
    "sessions": _sessions,
    "dlq.list": _list_letters,
    "dlq.replay": _replay_letters,
    "alarms": _alarms,
}
# These must see what was said before them: they run once it is on disk.
AFTER_COMMIT: Final = frozenset({"dlq.list", "dlq.replay"})
