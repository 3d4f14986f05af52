"""Taps: they see what is committed, hold nothing up, and say how much they lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bus_helpers import CANCELLED, MESH, PLACED, Consumer, Operator, Shop, event

from atoll_broker import taps
from atoll_broker.storage import Storage
from atoll_broker.testing import MemoryBroker


class Tapper(Operator):
    def tap(self, *topics: str, credit: int = 100, **header: Any) -> dict[str, Any]:
        answer = self.say("TAP", tap="~t", topics=list(topics or ("*",)), **header)[0]
        if credit:
            self.credit(credit)
        return answer

    def credit(self, events: int) -> None:
        self.peer.say("CREDIT", group="~t", events=events, bytes=1_000_000)

    def seen(self) -> tuple[list[int], int]:
        """(n of the events, lost) since the last call."""
        messages = self.heard("MSG")
        assert all(tail == [0, 0, 0] for message in messages for _, *tail in message["messages"])
        return [e["data"]["n"] for m in messages for e in m["events"]], sum(m["lost"] for m in messages)


def test_a_tap_sees_what_is_committed_from_now_on(broker: MemoryBroker) -> None:
    shop, tapper = Shop(broker), Tapper(broker)
    shop.publish(event(1))
    assert tapper.tap() == {"command": "SUBOK", "group": "~t", "lease_ms": 0}
    broker.hold_commits = True
    shop.publish(event(2))
    assert tapper.seen() == ([], 0)
    broker.release()
    assert tapper.seen() == ([2], 0)


def test_a_tap_with_after_reads_what_is_kept_first(broker: MemoryBroker) -> None:
    shop, tapper = Shop(broker), Tapper(broker)
    for n in range(1, 600):
        shop.publish(event(n, f"o-{n}"))
    tapper.tap(after=100, credit=1000)
    broker.advance(0.5)
    assert tapper.seen() == (list(range(101, 600)), 0)
    shop.publish(event(600))
    assert tapper.seen() == ([600], 0)


def test_a_tap_sees_the_topics_that_it_asked_for(broker: MemoryBroker) -> None:
    shop, tapper = Shop(broker), Tapper(broker)
    tapper.tap(CANCELLED)
    shop.publish(event(1), event(2, topic=CANCELLED))
    assert tapper.seen() == ([2], 0)


def test_without_credit_nothing_comes_and_what_does_not_fit_is_counted(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taps, "BUFFER_EVENTS_MAX", 64)
    shop, tapper, bank = Shop(broker), Tapper(broker), Consumer(broker)
    tapper.tap(credit=0)
    total = taps.BUFFER_EVENTS_MAX + 30
    for n in range(1, total + 1):
        shop.publish(event(n, f"o-{n}"))
        bank.ack(*bank.take())
    assert tapper.seen() == ([], 0)
    tapper.credit(10)
    broker.advance(0.1)
    assert tapper.seen() == (list(range(31, 41)), 30)
    tapper.credit(1)
    broker.advance(0.1)
    assert tapper.seen() == ([41], 0), "what was lost is said once"


def test_a_tap_ends_and_holds_nothing_up(broker: MemoryBroker) -> None:
    shop, tapper = Shop(broker), Tapper(broker)
    tapper.tap()
    tapper.say("TAP", tap="~t", topics=[])
    shop.publish(event(1))
    assert tapper.seen() == ([], 0)
    err = tapper.say("CREDIT", group="~t", events=1, bytes=1)[0]
    assert (err["command"], err["code"]) == ("ERR", "GROUP")
    assert tapper.ask("groups")["groups"].keys() == {"bank", "mail", "shop"}


def test_a_tap_is_granted_by_pattern() -> None:
    broker = MemoryBroker(MESH.replace('tap = ["*"]', f'tap = ["{PLACED}"]'))
    tapper = Tapper(broker)
    assert tapper.tap(PLACED)["command"] == "SUBOK"
    refused = tapper.say("TAP", tap="~t", topics=[PLACED, "*"])[0]
    assert (refused["code"], refused["field"], refused["closes"]) == ("ACL", "topics[1]", False)
    bank = Consumer(broker)
    assert "ACL" in [answer.get("code") for answer in bank.say("TAP", tap="~t", topics=[PLACED])]


def test_a_session_has_a_bounded_number_of_taps(broker: MemoryBroker) -> None:
    tapper = Operator(broker)
    answers = [tapper.say("TAP", tap=f"~t{n}", topics=["*"])[0] for n in range(taps.TAPS_MAX + 1)]
    assert [answer["command"] for answer in answers] == ["SUBOK"] * taps.TAPS_MAX + ["ERR"]
    assert (answers[-1]["code"], answers[-1]["closes"]) == ("LIMIT", False)


def test_history_that_retention_took_is_a_gap() -> None:
    broker = MemoryBroker(MESH + "log_bytes_kept = 1024\nlog_bytes_max = 65536\n")
    shop, bank, mail = Shop(broker), Consumer(broker), Consumer(broker, "mail")
    for n in range(1, 31):
        shop.publish(event(n, f"o-{n}", pad="x" * 200))
        bank.ack(*bank.take())
        mail.ack(*mail.take())
    for _ in range(6):
        broker.advance(0.5)
        for client in (shop, bank, mail):
            client.peer.say("PING")
    oldest = broker.core.log.oldest
    assert oldest > 1
    tapper = Tapper(broker)
    tapper.tap(after=0)
    broker.advance(0.1)
    frames = tapper.heard()
    gaps = [gap for message in frames if message["command"] == "GAP" for gap in message["gaps"]]
    assert [(gap["first"], gap["last"]) for gap in gaps] == [(1, oldest - 1)]


def test_an_event_of_the_greatest_size_goes_through_a_tap(storage: Storage) -> None:
    """Also where a batch has room for nothing else."""
    broker = MemoryBroker(MESH.replace("batch_bytes_max = 65536", "batch_bytes_max = 4098"), storage=storage)
    shop, tapper = Shop(broker), Tapper(broker)
    tapper.tap()
    bare = len(json.dumps(event(1, pad=""), separators=(",", ":")))
    shop.publish(event(1, pad="x" * (4096 - bare)))
    shop.publish(event(2))
    assert tapper.seen() == ([1, 2], 0)


def test_a_long_reason_of_a_ping_is_heard(broker: MemoryBroker) -> None:
    shop = Shop(broker)
    assert [answer["command"] for answer in shop.say("PING", ready=False, why="w" * 4096)] == ["PONG"]
