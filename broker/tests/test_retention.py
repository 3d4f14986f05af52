"""How much of the handled past is kept: by age and by count, as by bytes, and never what is still to be handled."""

from __future__ import annotations

from bus_helpers import MESH, Client, Consumer, Operator, Shop, event

from atoll_broker.storage import Storage
from atoll_broker.testing import MemoryBroker


def handled(broker: MemoryBroker, shop: Shop, members: tuple[Consumer, ...], first: int, last: int) -> None:
    for n in range(first, last + 1):
        shop.publish(event(n, f"o-{n}"))
        for member in members:
            member.ack(*member.take())


def pass_on(broker: MemoryBroker, seconds: float, *clients: Client) -> None:
    while seconds > 0:
        broker.advance(0.5)
        seconds -= 0.5
        for client in clients:
            client.peer.say("PING")


def test_no_more_events_than_so_many(storage: Storage) -> None:
    broker = MemoryBroker(MESH + "log_events_kept = 10\n", storage=storage)
    shop, members = Shop(broker), (Consumer(broker), Consumer(broker, "mail"))
    handled(broker, shop, members, 1, 50)
    pass_on(broker, 3, shop, *members)
    assert (broker.core.log.oldest, broker.core.log.last) == (41, 50)


def test_no_longer_than_so_long(storage: Storage) -> None:
    broker = MemoryBroker(MESH + "log_seconds_kept = 20\n", storage=storage)
    shop, members = Shop(broker), (Consumer(broker), Consumer(broker, "mail"))
    handled(broker, shop, members, 1, 5)
    pass_on(broker, 10, shop, *members)
    handled(broker, shop, members, 6, 9)
    pass_on(broker, 5, shop, *members)
    assert broker.core.log.oldest == 1
    pass_on(broker, 8, shop, *members)
    assert broker.core.log.oldest == 6
    pass_on(broker, 10, shop, *members)
    assert (broker.core.log.oldest, broker.core.log.last) == (10, 9)
    handled(broker, shop, members, 10, 10)
    assert broker.core.log.last == 10


def test_never_what_a_group_has_still_to_handle(storage: Storage) -> None:
    broker = MemoryBroker(MESH + "log_events_kept = 10\nlog_seconds_kept = 1\n", storage=storage)
    shop, bank, mail = Shop(broker), Consumer(broker), Consumer(broker, "mail", credit=0)
    handled(broker, shop, (bank,), 1, 50)
    pass_on(broker, 5, shop, bank, mail)
    assert broker.core.log.oldest == 1


def test_never_a_dead_letter_that_may_be_replayed(storage: Storage) -> None:
    broker = MemoryBroker(MESH + "log_events_kept = 1\n", storage=storage)
    shop, members = Shop(broker), (Consumer(broker), Consumer(broker, "mail"))
    handled(broker, shop, members, 1, 3)
    shop.publish(event(4, "o-4"))
    members[0].term(*members[0].take(), reason="no")
    members[1].ack(*members[1].take())
    handled(broker, shop, members, 5, 9)
    pass_on(broker, 3, shop, *members)
    assert broker.core.log.oldest == 4


def test_what_a_commit_on_its_way_trims_is_read_no_more(storage: Storage) -> None:
    """The disk has the trim before the loop hears of it; a look at ages and a tap's history come in between."""
    text = MESH + "log_events_kept = 10\nlog_seconds_kept = 600\ncache_bytes_max = 1024\n"
    broker = MemoryBroker(text, storage=storage)
    shop, members = Shop(broker), (Consumer(broker), Consumer(broker, "mail"))
    broker.hold_commits = True
    for first in (1, 26):
        shop.publish(*(event(n, f"o-{n}") for n in range(first, first + 25)))
        broker.commit()
        broker.turn()
        for member in members:
            member.ack(*member.take())
    pass_on(broker, 1, shop, *members)
    assert broker.core.take_commit() is None, "a trim waits for others a little"
    broker.advance(0.1)
    commit = broker.core.take_commit()
    assert commit is not None
    assert commit.batch.trim_below == 41
    trimmed = storage.commit(commit.batch)
    pass_on(broker, 1.5, shop, *members)
    tapper = Operator(broker)
    tapper.say("TAP", tap="~t", topics=["*"], after=0)
    assert tapper.say("CREDIT", group="~t", events=100, bytes=1_000_000) == []
    broker.core.committed(commit, trimmed)
    pass_on(broker, 1, shop, *members)
    heard = tapper.heard()
    assert [(gap["first"], gap["last"]) for m in heard if m["command"] == "GAP" for gap in m["gaps"]] == [(1, 40)]
    assert [e["data"]["n"] for m in heard if m["command"] == "MSG" for e in m["events"]] == list(range(41, 51))
    assert broker.core.log.oldest == 41


def test_the_alarm_of_a_log_that_fills_names_who_holds_it(storage: Storage) -> None:
    broker = MemoryBroker(MESH + "log_bytes_max = 8192\nlog_bytes_kept = 1024\n", storage=storage)
    shop, bank, mail, operator = Shop(broker), Consumer(broker), Consumer(broker, "mail"), Operator(broker)
    shop.publish(event(1))
    bank.term(*bank.take(), reason="no")
    mail.ack(*mail.take())
    handled(broker, shop, (bank, mail), 2, 20)
    pass_on(broker, 3, shop, bank, mail, operator)
    (alarm,) = [alarm for alarm in operator.ask("alarms")["alarms"] if alarm["name"] == "log_filling"]
    assert alarm["text"].endswith("; bank has a dead letter of event 1, which holds all after it")
