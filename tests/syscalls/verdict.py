"""What must hold after a crash, looked at from outside: in the consumers' databases and in the broker's own."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from typing import Any

from polling import poll_until
from syscalls.clients import Cast, Consumer
from syscalls.ground import Ground

SETTLE_SECONDS = 5.0


def assert_word_kept(cast: Cast) -> None:
    """Everything acknowledged is there, had its effect once, in the order of its key; and there is nothing else."""
    _assert_settled(cast)
    _assert_effects(cast, cast.bank, [one.id for one in cast.publisher.made if not one.refused])
    rejected = cast.mail.rejects
    wanted = [one for one in cast.publisher.made if not one.refused and not rejected(one.event["data"]["n"])]
    _assert_effects(cast, cast.mail, [one.id for one in wanted])
    _assert_log(cast)
    _assert_letters(cast)


def _assert_settled(cast: Cast) -> None:
    def lags() -> dict[str, int]:
        groups: dict[str, Any] = cast.operator.ask("groups")["groups"]
        for one in cast.everybody:
            one.receive()  # what was given back and came again meanwhile
        return {name: group["lag"] for name, group in groups.items() if group["lag"]}

    poll_until("every group's lag to be 0", lags, lambda left: not left, seconds=SETTLE_SECONDS, every=0.005)


def _assert_effects(cast: Cast, consumer: Consumer, wanted: list[str]) -> None:
    found = consumer.effects()
    counts = Counter(event_id for event_id, _, _ in found)
    lost = sorted(set(wanted) - set(counts))
    acked = {one.id for one in cast.publisher.made[: cast.publisher.acked]}
    assert not lost, f"{consumer.identity}: no effect of {lost} ({len(acked & set(lost))} of them were acknowledged)"
    assert not set(counts) - set(wanted), (
        f"{consumer.identity}: effects of what was refused: {set(counts) - set(wanted)}"
    )
    assert not [one for one, times in counts.items() if times > 1], f"{consumer.identity}: effects more than once"
    by_key: dict[str, list[int]] = defaultdict(list)
    for _, key, n in found:
        by_key[key].append(n)
    backwards = {key: numbers for key, numbers in by_key.items() if numbers != sorted(numbers)}
    assert not backwards, f"{consumer.identity}: out of order in their key: {backwards}"


def log_of(ground: Ground) -> list[tuple[int, str, str, int, bytes]]:
    """(seq, event id, producer, pseq, body) of every event that the broker has kept, by seq."""
    uri = f"file:{ground.database}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=5)) as database:
        sql = "SELECT seq, event_id, producer, pseq, body FROM events ORDER BY seq"
        return database.execute(sql).fetchall()


def _assert_log(cast: Cast) -> None:
    """One row an event, no holes, the very bytes, in the producer's order, at the place that deliveries named."""
    publisher = cast.publisher
    rows = log_of(cast.ground)
    seqs = [row[0] for row in rows]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True, f"the log has holes: {seqs}"
    pseqs = [row[3] for row in rows]
    wanted = [one.pseq for one in publisher.made if not one.refused]
    assert pseqs == wanted[len(wanted) - len(pseqs) :], f"the log has {pseqs}, the end of {wanted} was published"
    for seq, event_id, producer, pseq, body in rows:
        made = publisher.made[pseq - 1]
        assert (producer, event_id) == (publisher.producer, made.id)
        assert body == json.dumps(made.event).encode(), f"event {seq} is not what was sent: {body!r}"
        for consumer in (cast.bank, cast.mail):
            assert consumer.places.get(seq) == event_id, f"{consumer.identity} got {consumer.places.get(seq)} as {seq}"


def _assert_letters(cast: Cast) -> None:
    letters = cast.operator.ask("dlq.list", group="mail", limit=1000)["letters"]
    found = [letter["seq"] for letter in letters]
    assert found == sorted(cast.mail.dead), f"dead letters {found}, rejected were {sorted(cast.mail.dead)}"
