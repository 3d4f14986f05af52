"""The invariants I1 to I12 of a bus, each a function over the histories of a run. No I/O, no clock.

A function yields what broke, in words that name events. A run that was too weak to break anything is no proof either:
`weaknesses` has what is missing, and `evidence` what there was.

What orders two operations is never a time of day: two lines of one process; two deliveries by their fences, which the
broker counts up over all boots; two events of an outbox by pseq; an event before those whose maker had read of its
acknowledgement (`causes`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from histories.index import Delivery, History, Letter, Published
from histories.records import Record

Broken = Iterator[str]
#: Of one invariant; the rest is counted.
TEXTS_MAX = 10
#: Of its promise, what the backlog may take before it counts as broken: machines differ.
DRAIN_FACTOR = 3
#: What failing means for a group that fails on purpose.
FAILING = ("poison", "reject")
COUNTED_CAUSES = ("FAILED", "LEASE_EXPIRED", "SESSION_DIED")

FAULT_KINDS = {
    "kill broker": 5, "restart storm": 3, "stop broker": 3, "clock +1 h": 2, "clock -1 h": 2, "kill publisher": 2,
    "kill consumer": 5, "stop publisher": 2, "stop consumer": 5, "kill island": 1, "stop island": 1,
    "cut to the broker": 5, "cut from the broker": 5, "reset": 5,
}  # fmt: skip


def _takers(history: History, one: Published) -> list[str]:
    return [name for name, group in history.plan.groups.items() if one.topic in group.topics]


def _received(history: History, group: str) -> set[str]:
    """Ids that reached the group: by its wire, or, where we did not see that, by their effects."""
    if history.plan.groups[group].members:
        return {one.id for one in history.by_group.get(group, ())}
    return history.effect_ids[group]


def i1(history: History) -> Broken:
    """An acknowledged event reaches every group that takes its topic, at least once."""
    received = {name: _received(history, name) for name in history.plan.groups}
    for one in history.published.values():
        if history.outcome(one) != "ok":
            continue
        for group in _takers(history, one):
            letter = history.dead[group].get(one.id)
            if one.id not in received[group] and not (letter and letter.cause == "BEHIND"):
                yield f"{one.id} was acknowledged and never reached {group}"


def i2(history: History) -> Broken:
    """Nothing is delivered that was not published."""
    for one in history.deliveries:
        if one.id not in history.published:
            yield f"{one.group} got {one.id} (seq {one.seq}), which nobody published"
    for group, ids in history.effects.items():
        for event_id in set(ids) - set(history.published):
            yield f"{group} has an effect of {event_id}, which nobody published"


def i3(history: History) -> Broken:
    """Payload, key, topic and trace arrive as they were published, and the same in every delivery."""
    for other in history.contradictions:
        yield f"its publisher says two things of {other.id}"
    first: dict[str, Delivery] = {}
    for one in history.deliveries:
        made = history.published.get(one.id)
        if made is None:
            continue
        said = (made.topic, made.key, made.digest, one.trace if made.trace is None else made.trace)
        if (one.topic, one.key, one.digest, one.trace) != said:
            yield f"{one.id} was published as {said} and reached {one.group} as {_content(one)}"
        seen = first.setdefault(one.id, one)
        if _content(one) != _content(seen):
            yield f"{one.id} is {_content(seen)} for {seen.group} and {_content(one)} for {one.group}"


def _content(one: Delivery) -> tuple[str, str, str, str | None]:
    return one.topic, one.key, one.digest, one.trace


def i4(history: History) -> Broken:
    """What failed for good is never delivered, and neither is what was never sent; a time-out may be either."""
    for one in history.deliveries:
        made = history.published.get(one.id)
        if made is not None and history.outcome(made) == "failed":
            yield f"{one.id} was refused for good and reached {one.group}"
    sent = {name: producer.sent_upto for name, producer in history.producers.items()}
    for one in history.deliveries:
        made = history.published.get(one.id)
        if made is not None and made.kind not in ("committed", "forged") and made.pseq > sent.get(made.producer, 0):
            yield f"{one.id} reached {one.group} and was never sent"


def i5(history: History) -> Broken:
    """One seq is one event, the log has no hole, and no mark covers what is not there."""
    yield from _one_seq_one_event(history)
    yield from _no_holes(history)
    yield from _marks(history)
    yield from _log_order_of_producers(history)


def _one_seq_one_event(history: History) -> Broken:
    ids: dict[int, str] = {}
    seqs: dict[str, int] = {}
    seen = [(one.seq, one.id) for one in history.deliveries] + [(one.seq, one.id) for one in history.letters]
    for seq, event_id in seen:
        if ids.setdefault(seq, event_id) != event_id:
            yield f"seq {seq} is {ids[seq]} and {event_id}"
        if seqs.setdefault(event_id, seq) != seq:
            yield f"{event_id} has seq {seqs[event_id]} and {seq}"


def _no_holes(history: History) -> Broken:
    """Some group takes every topic: between it and the others, every seq was seen."""
    seen = {one.seq for one in history.deliveries} | {one.seq for one in history.letters}
    missing = sorted(set(range(1, max(seen, default=0) + 1)) - seen)
    if missing:
        yield f"{len(missing)} seqs below {max(seen)} were never seen: {missing[:10]}"


def _marks(history: History) -> Broken:
    for name, producer in history.producers.items():
        acked = 0
        for heard in producer.heard:
            upto = _upto(heard)
            if upto > heard["sent_upto"]:
                yield f"{name}: the broker has {upto} and only {heard['sent_upto']} were sent"
            if upto < acked:
                yield f"{name}: {acked} were acknowledged, and then the broker has {upto}"
            acked = max(acked, upto)
            yield from _last_id(history, name, heard)


def _upto(heard: Record) -> int:
    """What the broker says it has: `upto` of a PUBACK, `mark` of a WELCOME."""
    return int(heard["upto"] if heard["op"] == "puback" else heard["mark"])


def _last_id(history: History, name: str, heard: Record) -> Broken:
    last_id, mark = heard.get("last_id"), heard.get("mark")
    made = history.by_pseq.get((name, mark)) if isinstance(mark, int) else None
    if last_id is not None and (made is None or made.id != last_id):
        yield f"{name}: the broker's {mark}th is {last_id}, the outbox's is {made.id if made else None}"


def _log_order_of_producers(history: History) -> Broken:
    """An outbox's events stand in the log in its order, each once, and none below an acknowledged one is missing."""
    of: dict[str, list[Published]] = defaultdict(list)
    for one in history.published.values():
        of[one.producer].append(one)
    for events in of.values():
        events.sort(key=lambda one: one.pseq)
        there = [one for one in events if one.id in history.seqs]
        for before, after in pairwise(there):
            if history.seqs[before.id] >= history.seqs[after.id]:
                yield f"{before.id} was published before {after.id} and stands behind it in the log"
        for one in events:
            if history.outcome(one) == "ok" and one.id not in history.seqs:
                yield f"{one.id} (pseq {one.pseq}) was acknowledged and is not in the log"


def i6(history: History) -> Broken:
    """What was acknowledged before another was made stands before it in the log."""
    for one in history.published.values():
        seq = history.seqs.get(one.id)
        for cause in one.causes:
            before = history.seqs.get(cause)
            if seq is not None and before is not None and before >= seq:
                yield f"{cause} (seq {before}) was acknowledged before {one.id} (seq {seq}) was made"


def i7(history: History) -> Broken:
    """By key and producer, first deliveries and effects are in the order of publishing; in a boot none goes back."""
    for group, deliveries in history.by_group.items():
        firsts: dict[str, None] = dict.fromkeys(one.id for one in deliveries)  # by fence, so the first of each
        yield from _in_order(history, group, firsts, "was first delivered")
        yield from _key_never_goes_back(group, deliveries)
    for group, ids in history.effects.items():
        yield from _in_order(history, group, dict.fromkeys(ids), "had its effect")


def _in_order(history: History, group: str, ids: Iterable[str], what: str) -> Broken:
    last: dict[tuple[str, str], Published] = {}
    for event_id in ids:
        one = history.published.get(event_id)
        if one is None:
            continue
        before = last.get((one.key, one.producer))
        if before is not None and before.pseq > one.pseq:
            yield f"{group}, key {one.key}: {before.id} {what} before {one.id}"
        last[one.key, one.producer] = one


def _key_never_goes_back(group: str, deliveries: list[Delivery]) -> Broken:
    """One event of a key is out at a time, so within a boot its seqs only rise; a boot may begin anew."""
    last: dict[tuple[str, int], Delivery] = {}
    for one in deliveries:
        place = one.key, one.fence >> 32
        before = last.get(place)
        if before is not None and before.seq > one.seq:
            yield f"{group}, key {one.key}: seq {before.seq} was out before seq {one.seq} was finished"
        last[place] = one


def i8(history: History) -> Broken:
    """One effect for each (group, id): never two, and never none for what was acknowledged."""
    ids_of = {seq: event_id for event_id, seq in history.seqs.items()}
    for group, ids in history.effects.items():
        for event_id, count in Counter(ids).items():
            if count != 1:
                yield f"{event_id} has {count} effects in {group}"
        there = history.effect_ids[group]
        for seq in history.acked.get(group, {}):
            if ids_of.get(seq) not in there:
                yield f"{group} acknowledged seq {seq} ({ids_of.get(seq)}) and has no effect of it"


def i9(history: History) -> Broken:
    """Nobody gets, publishes or does what he is not granted."""
    for role, record in history.each("outcome"):
        if record["outcome"].startswith("granted"):
            yield f"{role}: {record['what']} was {record['outcome']}"
    for role, record in history.each("deliver"):
        part = history.plan.groups[record["group"]].part if record["group"] in history.plan.groups else None
        if _identity_of(role) != part:
            yield f"{role} got a delivery of group {record['group']}"
        elif foreign := [one[4] for one in record["messages"] if one[4] not in history.plan.groups[part].topics]:
            yield f"{role} got {foreign[0]}, which is no topic of its group"
    for one in history.deliveries:
        made = history.published.get(one.id)
        if made is not None and made.topic not in history.plan.publishes.get(made.identity, ()):
            yield f"{made.id} of {made.identity} was accepted, and {made.topic} is not its to publish"


def _identity_of(role: str) -> str:
    """`consumer-ledger-2` -> `ledger`."""
    words = role.split("-")
    return words[1] if len(words) > 1 else role


def i10(history: History) -> Broken:
    """No floor covers what was not acknowledged by then, or dead: `by then` is the boot that showed the floor."""
    limits = {group: _finished(history, group) for group in history.plan.groups}
    highest: dict[tuple[str, int], int] = {}
    for _, record in history.each("offsets"):
        for group, (floor, _, _) in record["groups"].items():
            place = group, record["boot"]
            highest[place] = max(floor, highest.get(place, 0))
    for (group, boot), floor in sorted(highest.items()):
        first = _first_unfinished(limits[group], boot)
        if first is not None and first <= floor:
            yield f"{group}: boot {boot} has its floor at {floor}, and seq {first} was not acknowledged"


def _finished(history: History, group: str) -> list[tuple[int, int | None]]:
    """(seq, the first boot that could know it finished, or None) of every event of the group's topics."""
    config = history.plan.groups[group]
    acked = dict(history.acked.get(group, {}))
    if not config.members:
        acked = {history.seqs[one]: 0 for one in history.effects.get(group, ()) if one in history.seqs}
    acked |= {letter.seq: 0 for letter in history.dead[group].values()}
    return [(seq, acked.get(seq)) for seq, topic in sorted(history.topics.items()) if topic in config.topics]


def _first_unfinished(finished: list[tuple[int, int | None]], boot: int) -> int | None:
    return next((seq for seq, known in finished if known is None or known > boot), None)


def i11(history: History) -> Broken:
    """So many failures make exactly one dead letter, which names its cause; nothing else makes one."""
    for (group, seq), count in Counter((one.group, one.seq) for one in history.letters).items():
        if count != 1:
            yield f"{group}: seq {seq} has {count} dead letters"
    verdicts: dict[tuple[str, int], list[tuple[str, int, str]]] = defaultdict(list)
    for verdict in history.verdicts:
        verdicts[verdict.group, verdict.seq].append((verdict.what, verdict.attempt, verdict.error))
    for letter in history.letters:
        yield from _letter(history, letter, verdicts[letter.group, letter.seq])
    yield from _what_fails_is_dead(history)
    for one in history.deliveries:
        limit = history.plan.groups[one.group].attempts_max if one.group in history.plan.groups else 0
        if one.attempt > limit:
            yield f"{one.group}: attempt {one.attempt} at {one.id}, of at most {limit}"


def _letter(history: History, letter: Letter, verdicts: list[tuple[str, int, str]]) -> Broken:
    config, name = history.plan.groups[letter.group], f"{letter.group}: the dead letter of {letter.id}"
    if letter.cause == "BEHIND":
        yield from _behind(history, letter)
    elif letter.cause in COUNTED_CAUSES and letter.attempts != config.attempts_max:
        yield f"{name} says {letter.attempts} attempts, of {config.attempts_max}"
    if letter.cause == "FAILED" and ("nack", config.attempts_max, letter.error) not in verdicts:
        yield f"{name} says FAILED, {letter.error!r}, which no consumer said at the last attempt"
    terms = [error for what, _, error in verdicts if what == "term"]
    if letter.cause == "REJECTED" and not any(letter.error.endswith(error) for error in terms):
        yield f"{name} says REJECTED, {letter.error!r}, which no consumer said"
    if letter.cause not in (*COUNTED_CAUSES, "REJECTED", "BEHIND"):
        yield f"{name} has the cause {letter.cause}"
    if letter.cause in ("FAILED", "REJECTED", "BEHIND") and letter.id in history.effect_ids[letter.group]:
        yield f"{name} is {letter.cause}, and the event had its effect"


def _behind(history: History, letter: Letter) -> Broken:
    config, name = history.plan.groups[letter.group], f"{letter.group}: the dead letter of {letter.id}"
    if config.on_dead != "park":
        yield f"{name} says BEHIND in a group that parks nothing"
    causes = [one for one in history.dead[letter.group].values() if one.seq == letter.behind and one.cause != "BEHIND"]
    if not any(one.key == letter.key and one.seq < letter.seq for one in causes):
        yield f"{name} is behind {letter.behind}, which is no earlier dead letter of its key"


def _what_fails_is_dead(history: History) -> Broken:
    """Every event that its consumers always fail on has its letter, and what is behind it in a parked key too."""
    for one in history.published.values():
        if one.kind not in FAILING or history.outcome(one) != "ok":
            continue
        for group in _takers(history, one):
            if history.plan.groups[group].fails and one.id not in history.dead[group]:
                yield f"{group}: {one.id} fails always and is no dead letter"
    for group, config in history.plan.groups.items():
        parked = {one.key: one.seq for one in history.dead[group].values() if one.cause != "BEHIND"}
        for event_id, seq in history.seqs.items() if config.on_dead == "park" and parked else ():
            made = history.published.get(event_id)
            behind = made is not None and made.topic in config.topics and seq > parked.get(made.key, seq)
            if behind and event_id not in history.dead[group]:
                yield f"{group}: {event_id} is behind a dead letter of its key and is none"


def i12(history: History) -> Broken:
    """After the heal everybody sends what he has, and every group has nothing left, within T."""
    limit, drained = DRAIN_FACTOR * history.plan.drain_seconds, history.drained
    if history.healed is None or drained is None:
        yield "the faults never ended, or nothing drained"
        return
    if drained["seconds"] > limit:
        yield f"the backlog took {drained['seconds']} s after the heal, of at most {limit:g} s"
    for group in history.plan.groups:
        lag = drained["groups"].get(group, [0, None, 0])[1]
        if lag != 0:
            yield f"{group} has {lag} events left"
    if drained["island_outbox"] != 0:
        yield f"the island's outbox has {drained['island_outbox']} events left"
    for one in history.published.values():
        if history.outcome(one) == "unknown" and one.kind != "forged":
            yield f"{one.id} was neither acknowledged nor refused in the end"


INVARIANTS: dict[str, Callable[[History], Broken]] = {
    f"I{number}": function for number, function in enumerate((i1, i2, i3, i4, i5, i6, i7, i8, i9, i10, i11, i12), 1)
}


def check(history: History) -> dict[str, list[str]]:
    """Invariant -> what broke it; those that hold are not there."""
    found = {name: _bounded(function(history)) for name, function in INVARIANTS.items()}
    return {name: texts for name, texts in found.items() if texts}


def _bounded(texts: Broken) -> list[str]:
    all_of_them = list(texts)
    rest = len(all_of_them) - TEXTS_MAX
    return all_of_them[:TEXTS_MAX] + ([f"and {rest} more"] if rest > 0 else [])


# ---- was it a test at all? -------------------------------------------------------------------------------------------


def faults(history: History) -> Counter[str]:
    """Faults that hit, by kind."""
    return Counter(record["kind"] for _, record in history.each("fault") if record["evidence"])


def evidence(history: History) -> dict[str, int]:
    """How much of everything that an invariant could have broken on there was."""
    outcomes = Counter(history.outcome(one) for one in history.published.values())
    firsts = len({(one.group, one.id) for one in history.deliveries})
    refusals = [r for _, r in history.each("outcome") if r["outcome"].startswith("refused")]
    return {
        "events acknowledged": outcomes["ok"],
        "events refused for good": sum(len(one.refused) for one in history.producers.values()),
        "events sent again": sum(_sent_again(one.sent) for one in history.producers.values()),
        "first deliveries": firsts,
        "redeliveries": len(history.deliveries) - firsts,
        "late acks answered STALE": sum(len(r["messages"]) for _, r in history.each("stale")),
        "duplicates without effect": sum(len(r["duplicate"]) for _, r in history.each("ack")),
        "pairs in causal order": sum(len(one.causes) for one in history.published.values()),
        "attempts without a grant, refused": len(refusals),
        "floors looked at": sum(len(r["groups"]) for _, r in history.each("offsets")),
        "boots": len({r["boot"] for _, r in history.each("welcome", "offsets")}),
        "dead letters": len(history.letters),
        "effects": sum(map(len, history.effects.values())),
    }


def _sent_again(sent: list[tuple[int, int]]) -> int:
    again, highest = 0, 0
    for first, last in sent:
        again += max(0, min(last, highest) - first + 1)
        highest = max(highest, last)
    return again


def weaknesses(history: History, *, faults_min: int, acks_min: int, seconds_min: float) -> list[str]:
    """Why this run proves nothing, if it does not."""
    hit, found = faults(history), []
    if hit.total() < faults_min:
        found.append(f"{hit.total()} faults hit, of at least {faults_min}")
    found += [
        f"{hit[kind]} of `{kind}`, of at least {least}" for kind, least in FAULT_KINDS.items() if hit[kind] < least
    ]
    if history.acks < acks_min:
        found.append(f"{history.acks} acknowledgements, of at least {acks_min}")
    lasted = history.healed["seconds"] if history.healed else 0
    if lasted < seconds_min:
        found.append(f"{lasted} s under faults, of at least {seconds_min:g} s")
    found += [f"no {name}" for name, count in evidence(history).items() if count == 0]
    found += [
        f"{r['role']} ended with {r['code']}" for _, r in history.each("exit", "finished") if r.get("code", 0) != 0
    ]
    return found
