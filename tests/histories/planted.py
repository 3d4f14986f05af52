"""Violations to plant into a good history, each of one invariant: the checker must find every one of them.

A plant changes the logs in place, so that exactly that went wrong which its name says. It works on any history that has
what it needs: the synthetic one and a real one alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from histories.index import History, Published
from histories.records import Record

Plant = Callable[[History], None]
#: Places in a delivery's message.
SEQ, ATTEMPT, FENCE, ID, TOPIC, KEY, DIGEST, TRACE = range(8)


@dataclass(frozen=True)
class Planted:
    """`invariant` is what `plant` breaks."""

    invariant: str
    plant: Plant

    @property
    def name(self) -> str:
        """For the test's id."""
        return f"{self.invariant} {self.plant.__name__}"


PLANTED: list[Planted] = []


def _breaks(invariant: str) -> Callable[[Plant], Plant]:
    def add(plant: Plant) -> Plant:
        PLANTED.append(Planted(invariant, plant))
        return plant

    return add


# ---- finding what to spoil -------------------------------------------------------------------------------------------


def _messages(history: History, group: str | None = None) -> Iterator[list[object]]:
    for _, record in history.each("deliver"):
        if group in (None, record["group"]):
            yield from record["messages"]


def _of(history: History, event_id: str, group: str | None = None) -> list[list[object]]:
    return [message for message in _messages(history, group) if message[ID] == event_id]


def _some(history: History, *, kind: str = "plain", identity: str = "shop", key: str = "k-") -> Published:
    """A published event in the middle of the history, acknowledged."""
    return _found(history, kind, identity, key)[0]


def _found(history: History, kind: str, identity: str, key: str) -> list[Published]:
    """Such events, from the middle one on."""
    found = [
        one for one in history.published.values()
        if one.kind == kind and one.identity == identity and one.key.startswith(key)
        and (history.outcome(one) == "ok" or kind.startswith("bad"))
    ]  # fmt: skip
    assert found, f"the history has no {kind} event of {identity}"
    return found[len(found) // 2 :]


def _two_of_a_key(history: History) -> tuple[Published, Published]:
    """The first event from the middle on that has another of its producer and key behind it, and the next such."""
    for first in _found(history, "plain", "shop", "k-"):
        later = [
            one for one in history.published.values()
            if (one.producer, one.key) == (first.producer, first.key) and one.pseq > first.pseq
            and one.id in history.seqs
        ]  # fmt: skip
        if later:
            return first, min(later, key=lambda one: one.pseq)
    raise AssertionError("from its middle on the history has no two events of one producer and key")


def _forget_deliveries(history: History, event_id: str, group: str | None = None) -> None:
    """Nobody (of the group) ever saw it."""
    for _, record in history.each("deliver"):
        if group in (None, record["group"]):
            record["messages"] = [message for message in record["messages"] if message[ID] != event_id]


def _forget_acks(history: History, group: str, seq: int) -> None:
    for _, record in history.each("ack"):
        if record["group"] == group:
            for what in ("done", "duplicate"):
                record[what] = [one for one in record[what] if one[0] != seq]


def _only(history: History, op: str, **wanted: object) -> Record:
    """The last record that has these fields."""
    return [r for _, r in history.each(op) if all(r.get(name) == value for name, value in wanted.items())][-1]


def _pub(history: History, event_id: str) -> list[Record]:
    return [record for _, record in history.each("pub") if record["id"] == event_id]


def _exchange_seqs(history: History, one: int, other: int) -> None:
    """As if the log had them the other way round; fences stay with their deliveries' new seqs."""
    turned = {one: other, other: one}
    for message in _messages(history):
        seq = message[SEQ]
        assert isinstance(seq, int)
        message[SEQ] = turned.get(seq, seq)
    for _, record in history.each("ack"):
        for what in ("done", "duplicate"):
            record[what] = [[turned.get(seq, seq), fence] for seq, fence in record[what]]


def _letter(history: History, cause: str, group: str = "ledger") -> Record:
    letters: list[Record] = [one for one in _only(history, "letters", group=group)["letters"] if one["cause"] == cause]
    return letters[0]


# ---- I1 to I4: what is delivered -------------------------------------------------------------------------------------


@_breaks("I1")
def a_group_never_gets_an_acknowledged_event(history: History) -> None:
    one = _some(history)
    _forget_deliveries(history, one.id, "mail")


@_breaks("I1")
def a_floor_that_ran_ahead_skips_an_event(history: History) -> None:
    """No delivery, no ack, no effect: only the publisher knows."""
    one = _some(history, identity="depot")
    seq = history.seqs[one.id]
    _forget_deliveries(history, one.id, "ledger")
    _forget_acks(history, "ledger", seq)
    _only(history, "effects", group="ledger")["ids"].remove(one.id)


@_breaks("I1")
def an_acknowledged_event_is_lost_in_a_crash(history: History) -> None:
    one = _some(history)
    _forget_deliveries(history, one.id)


@_breaks("I1")
def what_the_islands_outbox_promised_reaches_nobody(history: History) -> None:
    one = _some(history, kind="committed", identity="island")
    _forget_deliveries(history, one.id)


@_breaks("I1")
def the_island_has_no_effect_of_an_event(history: History) -> None:
    _only(history, "effects", group="island")["ids"].remove(_some(history).id)


@_breaks("I2")
def a_delivery_that_nobody_published(history: History) -> None:
    _of(history, _some(history).id, "mail")[0][ID] = "nobody-1"


@_breaks("I2")
def an_echo_of_a_transaction_that_was_rolled_back(history: History) -> None:
    one = _some(history, kind="committed", identity="island")
    for records in history.logs.values():
        records[:] = [record for record in records if record["op"] != "pub" or record["id"] != one.id]


@_breaks("I2")
def an_effect_of_what_nobody_published(history: History) -> None:
    _only(history, "effects", group="island")["ids"].append("nobody-1")


@_breaks("I3")
def a_payload_changes_on_its_way(history: History) -> None:
    _of(history, _some(history).id, "witness")[0][DIGEST] = "0" * 16


@_breaks("I3")
def a_key_changes_on_its_way(history: History) -> None:
    _of(history, _some(history).id, "ledger")[0][KEY] = "another"


@_breaks("I3")
def a_trace_is_lost_on_its_way(history: History) -> None:
    _of(history, _some(history).id, "mail")[0][TRACE] = None


@_breaks("I3")
def two_groups_get_different_traces_of_an_echo(history: History) -> None:
    one = _some(history, kind="committed", identity="island")
    _of(history, one.id, "ledger")[0][TRACE] = "00-other"


@_breaks("I4")
def a_refused_event_is_delivered(history: History) -> None:
    bad, good = _some(history, kind="bad-data", key="k-" if _has_plain_bad(history) else "bad"), _some(history)
    message = _of(history, good.id, "mail")[0]
    message[ID], message[KEY], message[DIGEST], message[TRACE] = bad.id, bad.key, bad.digest, bad.trace


def _has_plain_bad(history: History) -> bool:
    return any(one.kind == "bad-data" and one.key.startswith("k-") for one in history.published.values())


@_breaks("I4")
def a_delivered_event_is_refused_all_the_same(history: History) -> None:
    one = _some(history)
    answers = (r for role, r in history.each("puback") if role == f"publisher-{one.identity}")
    answer = next(r for r in answers if r["upto"] >= one.pseq)
    answer["refused"].append([one.pseq, "SCHEMA"])


@_breaks("I4")
def an_event_is_delivered_that_was_never_sent(history: History) -> None:
    one = _some(history)
    for role, records in history.logs.items():
        if role == f"publisher-{one.identity}":
            records[:] = [r for r in records if r["op"] != "send" or r["last"] < one.pseq]


# ---- I5 to I7: order -------------------------------------------------------------------------------------------------


@_breaks("I5")
def one_seq_is_two_events(history: History) -> None:
    one = _some(history)
    other = _some(history, identity="depot")
    _of(history, one.id, "witness")[0][SEQ] = history.seqs[other.id]


@_breaks("I5")
def one_event_is_stored_twice(history: History) -> None:
    one = _some(history)
    message = _of(history, one.id, "witness")[-1]
    _only(history, "deliver", group="witness")["messages"].append([max(history.topics) + 1, *message[1:]])


@_breaks("I5")
def the_log_has_a_hole(history: History) -> None:
    """No publisher ever heard that it was there: only the numbers know."""
    _forget_deliveries(history, _some(history).id)


@_breaks("I5")
def the_broker_acknowledges_what_was_not_sent(history: History) -> None:
    answers = [r for role, r in history.each("puback") if role == "publisher-shop"]
    answers[0]["upto"] = answers[-1]["upto"] + 100


@_breaks("I5")
def a_mark_falls_back_behind_what_was_acknowledged(history: History) -> None:
    """A broker that acknowledged before the disk had it, and was killed."""
    acked = 0
    for role, record in history.each("welcome", "puback"):
        if role == "publisher-shop" and record["op"] == "welcome" and acked:
            record["mark"], record["last_id"] = acked - 1, None
            return
        if role == "publisher-shop" and record["op"] == "puback":
            acked = record["upto"]
    raise AssertionError("the history has no second session of the publisher")


@_breaks("I5")
def the_last_id_of_a_mark_is_anothers(history: History) -> None:
    _only_with_last_id(history)["last_id"] = "shop-0"


def _only_with_last_id(history: History) -> Record:
    return next(r for role, r in history.each("welcome") if role.startswith("publisher") and r["last_id"])


@_breaks("I5")
def an_outboxs_events_are_stored_in_another_order(history: History) -> None:
    one = _some(history)
    following = history.by_pseq[one.producer, one.pseq + 1]
    while following.id not in history.seqs:
        following = history.by_pseq[one.producer, following.pseq + 1]
    _exchange_seqs(history, history.seqs[one.id], history.seqs[following.id])


@_breaks("I6")
def an_echo_stands_before_its_cause(history: History) -> None:
    one = _some(history, kind="committed", identity="island")
    _exchange_seqs(history, history.seqs[one.causes[0]], history.seqs[one.id])


@_breaks("I6")
def an_event_stands_before_one_that_was_acknowledged_before_it_was_made(history: History) -> None:
    one = next(
        one for one in history.published.values()
        if one.identity == "depot" and one.id in history.seqs and any(cause in history.seqs for cause in one.causes)
    )  # fmt: skip
    cause = next(cause for cause in one.causes if cause in history.seqs)
    _exchange_seqs(history, history.seqs[cause], history.seqs[one.id])


@_breaks("I7")
def two_of_a_key_are_first_delivered_in_the_wrong_order(history: History) -> None:
    one, after = _two_of_a_key(history)
    fences = [message[FENCE] for message in _of(history, one.id, "witness")]
    highest = max(fence for fence in fences if isinstance(fence, int))
    for message in _of(history, one.id, "witness"):
        message[FENCE] = max(int(str(m[FENCE])) for m in _of(history, after.id, "witness")) + highest % 2 + 1


@_breaks("I7")
def two_effects_of_a_key_change_places(history: History) -> None:
    one, after = _two_of_a_key(history)
    ids = _only(history, "effects", group="mail")["ids"]
    first, second = ids.index(one.id), ids.index(after.id)
    ids[first], ids[second] = ids[second], ids[first]


@_breaks("I7")
def the_islands_effects_of_a_key_change_places(history: History) -> None:
    one, after = _two_of_a_key(history)
    ids = _only(history, "effects", group="island")["ids"]
    first, second = ids.index(one.id), ids.index(after.id)
    ids[first], ids[second] = ids[second], ids[first]


@_breaks("I7")
def a_key_goes_back_within_a_boot(history: History) -> None:
    """The second of a key is out before the first is finished: the first comes again after it."""
    one, after = _two_of_a_key(history)
    last = _of(history, after.id, "witness")[-1]
    again = list(_of(history, one.id, "witness")[-1])
    again[FENCE] = int(str(last[FENCE])) + 1
    _only(history, "deliver", group="witness")["messages"].append(again)


# ---- I8 to I10: effects, grants, floors ------------------------------------------------------------------------------


@_breaks("I8")
def an_effect_happens_twice(history: History) -> None:
    _only(history, "effects", group="mail")["ids"].append(_some(history).id)


@_breaks("I8")
def the_islands_effect_happens_twice(history: History) -> None:
    ids = _only(history, "effects", group="island")["ids"]
    ids.append(ids[-1])


@_breaks("I8")
def an_acknowledged_event_has_no_effect(history: History) -> None:
    _only(history, "effects", group="witness")["ids"].remove(_some(history).id)


@_breaks("I9")
def a_stranger_may_subscribe(history: History) -> None:
    _only(history, "outcome")["outcome"] = "granted SUBOK"


@_breaks("I9")
def a_member_of_one_group_gets_anothers_delivery(history: History) -> None:
    one = _some(history)
    message = _of(history, one.id, "ledger")[0]
    history.logs["consumer-mail-1"].append({"op": "deliver", "session": "s", "group": "ledger", "messages": [message]})


@_breaks("I9")
def a_group_gets_a_topic_that_is_not_its_own(history: History) -> None:
    one = _some(history, identity="depot")
    _only(history, "deliver", group="mail")["messages"].append(_of(history, one.id, "witness")[0])


@_breaks("I9")
def a_publisher_speaks_for_another(history: History) -> None:
    one = _some(history, identity="depot")
    for record in _pub(history, one.id):
        record["topic"] = "shop.order.placed.v1"
    for message in _of(history, one.id):
        message[TOPIC] = "shop.order.placed.v1"


@_breaks("I9")
def what_the_stranger_published_is_delivered(history: History) -> None:
    forged = {"op": "pub", "id": "stranger-1", "kind": "forged", "topic": "shop.order.placed.v1"}
    history.logs.setdefault("stranger", []).append(forged | {"producer": "stranger", "pseq": 0})
    _of(history, _some(history).id, "mail")[0][ID] = "stranger-1"


@_breaks("I10")
def a_floor_covers_what_nobody_acknowledged(history: History) -> None:
    one = _some(history)
    _forget_acks(history, "witness", history.seqs[one.id])


@_breaks("I10")
def a_floor_of_an_early_boot_covers_what_a_later_one_acknowledged(history: History) -> None:
    """The first boot says that everything is finished."""
    seen = next(record for _, record in history.each("offsets"))
    seen["groups"]["witness"][0] = max(history.topics)


@_breaks("I10")
def a_floor_covers_what_the_island_has_not_handled(history: History) -> None:
    one = _some(history)
    _only(history, "effects", group="island")["ids"].remove(one.id)


# ---- I11, I12: dead letters, the end ---------------------------------------------------------------------------------


@_breaks("I11")
def a_dead_letter_is_there_twice(history: History) -> None:
    letters = _only(history, "letters", group="ledger")["letters"]
    letters.append(dict(letters[0]))


@_breaks("I11")
def what_fails_always_is_no_dead_letter(history: History) -> None:
    record = _only(history, "letters", group="mail")
    record["letters"] = [one for one in record["letters"] if one["cause"] != "FAILED"]


@_breaks("I11")
def a_dead_letter_names_another_cause(history: History) -> None:
    _letter(history, "FAILED")["cause"] = "REJECTED"


@_breaks("I11")
def a_dead_letter_has_somebody_elses_error(history: History) -> None:
    _letter(history, "FAILED")["error"] = "another error"


@_breaks("I11")
def an_event_dies_before_its_last_attempt(history: History) -> None:
    _letter(history, "FAILED")["attempts"] -= 1


@_breaks("I11")
def an_event_is_tried_once_too_often(history: History) -> None:
    one = _some(history, kind="poison", key="poison")
    _of(history, one.id, "mail")[-1][ATTEMPT] = history.plan.groups["mail"].attempts_max + 1


@_breaks("I11")
def a_parked_event_is_behind_nothing(history: History) -> None:
    _letter(history, "BEHIND")["behind"] = 1_000_000


@_breaks("I11")
def a_key_is_not_parked(history: History) -> None:
    """Who follows a dead letter is handled all the same."""
    record = _only(history, "letters", group="ledger")
    record["letters"] = [one for one in record["letters"] if one["cause"] != "BEHIND"]


@_breaks("I11")
def an_event_has_its_effect_and_is_a_dead_letter(history: History) -> None:
    _only(history, "effects", group="ledger")["ids"].append(_letter(history, "FAILED")["event_id"])


@_breaks("I12")
def the_backlog_takes_too_long(history: History) -> None:
    _only(history, "drained")["seconds"] = 3 * history.plan.drain_seconds + 1


@_breaks("I12")
def a_group_never_gets_to_its_end(history: History) -> None:
    _only(history, "drained")["groups"]["mail"][1] = 1


@_breaks("I12")
def an_outbox_is_never_empty(history: History) -> None:
    _only(history, "drained")["island_outbox"] = 3


@_breaks("I12")
def a_publisher_never_hears_of_its_last_events(history: History) -> None:
    for role, record in history.each("puback", "welcome"):
        if role == "publisher-shop":
            name = "upto" if record["op"] == "puback" else "mark"
            record[name] = min(record[name], _some(history).pseq)


@_breaks("I12")
def nothing_is_ever_seen_to_drain(history: History) -> None:
    for records in history.logs.values():
        records[:] = [record for record in records if record["op"] != "drained"]
