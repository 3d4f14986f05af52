"""A group that is let go: retention may pass it, and what it will never get is said and kept on record."""

from __future__ import annotations

from bus_helpers import MESH, Client, Consumer, Operator, Shop, event, numbers

from atoll_broker.storage import Storage
from atoll_broker.testing import MemoryBroker

TIGHT = MESH + "log_bytes_kept = 1024\nlog_bytes_max = 65536\n"


def pass_on(broker: MemoryBroker, seconds: float, *clients: Client) -> None:
    while seconds > 0:
        broker.advance(0.5)
        seconds -= 0.5
        for client in clients:
            client.peer.say("PING")


def fill(broker: MemoryBroker, shop: Shop, bank: Consumer, first: int, last: int, *others: Client) -> None:
    """Events that the group `bank` handles."""
    for n in range(first, last + 1):
        shop.publish(event(n, f"o-{n}", pad="x" * 200))
        bank.ack(*bank.take())
    pass_on(broker, 3, shop, bank, *others)


def test_a_group_that_is_away_holds_the_log_until_it_is_detached(storage: Storage) -> None:
    broker = MemoryBroker(TIGHT, storage=storage)
    shop, bank, operator = Shop(broker), Consumer(broker), Operator(broker)
    fill(broker, shop, bank, 1, 30, operator)
    assert broker.core.log.oldest == 1, "the group mail has handled nothing"
    answer = operator.ask("group.detach", group="mail", by="amy: it is gone for good")
    assert (answer["floor"], answer["waiting"]) == (0, 30)
    fill(broker, shop, bank, 31, 40, operator)
    oldest = broker.core.log.oldest
    assert oldest > 1
    group = operator.group("mail")
    assert group["detached"]
    assert group["gaps"] == [
        {
            "first": 1,
            "last": oldest - 1,
            "why": "retention passed it while it was detached by amy: it is gone for good",
            "at_ms": group["gaps"][0]["at_ms"],
        }
    ]
    assert group["lag"] == 40 - oldest + 1
    assert {"group_detached", "group_gap"} <= operator.alarm_names()


def test_who_joins_again_goes_on_where_the_log_begins_and_hears_of_the_gap(storage: Storage) -> None:
    broker = MemoryBroker(TIGHT, storage=storage)
    shop, bank, operator = Shop(broker), Consumer(broker), Operator(broker)
    operator.ask("group.detach", group="mail", by="amy")
    fill(broker, shop, bank, 1, 30, operator)
    oldest = broker.core.log.oldest
    assert oldest > 1
    mail = Consumer(broker, "mail", credit=0)
    (gap,) = mail.heard("GAP")
    mail.credit(100)
    assert gap["group"] == "mail"
    assert [(one["first"], one["last"]) for one in gap["gaps"]] == [(1, oldest - 1)]
    taken = mail.wait(0.5)
    assert numbers(taken) == list(range(oldest, 31))
    mail.ack(*taken)
    state = operator.group("mail")
    assert (state["detached"], state["lag"]) == (False, 0)


def test_detached_without_loss_nothing_is_missed(storage: Storage) -> None:
    broker = MemoryBroker(MESH, storage=storage)
    shop, operator = Shop(broker), Operator(broker)
    shop.publish(event(1), event(2, "b"))
    operator.ask("group.detach", group="mail", by="amy")
    shop.publish(event(3, "c"))
    mail = Consumer(broker, "mail", credit=0)
    assert mail.heard("GAP") == []
    mail.credit(100)
    assert numbers(mail.wait(0.5)) == [1, 2, 3]


def test_gap_and_detachment_outlive_the_broker(storage: Storage) -> None:
    broker = MemoryBroker(TIGHT, storage=storage)
    shop, bank, operator = Shop(broker), Consumer(broker), Operator(broker)
    operator.ask("group.detach", group="mail", by="amy")
    fill(broker, shop, bank, 1, 30, operator)
    before = operator.group("mail")["gaps"]
    broker.restart()
    operator = Operator(broker)
    group = operator.group("mail")
    assert (group["detached"], group["gaps"]) == (True, before)


def test_a_group_with_members_is_not_let_go(broker: MemoryBroker) -> None:
    Consumer(broker, "mail", number=3)
    answer = Operator(broker).ask("group.detach", group="mail", by="amy")
    assert (answer["command"], answer["code"], answer["field"]) == ("ERR", "VERB", "group")
    assert "mail/3" in answer["text"]


def test_acks_above_the_floor_are_remembered_through_a_detachment(broker: MemoryBroker) -> None:
    shop, mail, operator = Shop(broker), Consumer(broker, "mail"), Operator(broker)
    shop.publish(event(1, "a"), event(2, "b"), event(3, "c"))
    _, second, _ = mail.take()
    mail.ack(second)
    mail.peer.say("BYE")
    operator.ask("group.detach", group="mail", by="amy")
    mail = Consumer(broker, "mail")
    assert numbers(mail.wait(0.5)) == [1, 3]
    assert operator.group("mail")["lag"] == 2


def test_a_group_that_was_not_declared_for_a_while_is_told_what_it_missed(storage: Storage) -> None:
    broker = MemoryBroker(TIGHT, storage=storage)
    shop, mail = Shop(broker), Consumer(broker, "mail")
    shop.publish(event(1, "a"))
    mail.ack(*mail.take())
    broker.advance(0.2)
    storage.close()
    without = TIGHT.replace('[group.mail]\npart = "mail"', '[group.post]\npart = "mail"')
    broker = MemoryBroker(without, storage=storage)
    shop, bank, post = Shop(broker), Consumer(broker), Consumer(broker, "post")
    for n in range(2, 30):
        shop.publish(event(n, f"o-{n}", pad="x" * 200))
        bank.ack(*bank.take())
        post.ack(*post.take())
    pass_on(broker, 3, shop, bank, post)
    oldest = broker.core.log.oldest
    assert oldest > 2
    storage.close()
    broker = MemoryBroker(TIGHT, storage=storage)
    (gap,) = Consumer(broker, "mail").heard("GAP")
    assert [(one["first"], one["last"]) for one in gap["gaps"]] == [(2, oldest - 1)]
    assert "not declared" in gap["gaps"][0]["why"]


def test_letters_and_replays_of_a_detached_group_go_with_the_log(storage: Storage) -> None:
    """They hold nothing any more, and none of them may point at an event that is gone."""
    broker = MemoryBroker(TIGHT, storage=storage)
    shop, bank, mail, operator = Shop(broker), Consumer(broker), Consumer(broker, "mail"), Operator(broker)
    shop.publish(event(1, "a"), event(2, "b"))
    bank.ack(*bank.take())
    first, second = mail.take()
    mail.term(first, reason="no")
    mail.ack(second)
    mail.peer.say("BYE")
    operator.ask("replay", group="mail", first=2, last=2)
    operator.ask("group.detach", group="mail", by="amy")
    fill(broker, shop, bank, 3, 30, operator)
    assert broker.core.log.oldest > 2
    assert operator.group("mail")["dead"] == 0
    assert operator.ask("dlq.list", group="mail")["letters"] == []
    broker.restart()
    mail = Consumer(broker, "mail")
    taken = mail.wait(0.5)
    assert numbers(taken) == list(range(broker.core.log.oldest, 31))


def test_a_detach_that_comes_after_a_sub_on_its_way_holds(storage: Storage) -> None:
    broker = MemoryBroker(MESH, storage=storage)
    operator = Operator(broker)
    operator.ask("group.detach", group="mail", by="amy")
    broker.hold_commits = True
    mail = Consumer(broker, "mail")
    mail.peer.say("BYE")
    operator.peer.say("ADMIN", request="again", verb="group.detach", group="mail", by="amy")
    broker.release()
    assert operator.group("mail")["detached"]
    broker.restart()
    assert Operator(broker).group("mail")["detached"]


def test_what_was_finished_above_the_floor_before_a_boot_does_not_come_again(storage: Storage) -> None:
    broker = MemoryBroker(MESH, storage=storage)
    shop, mail = Shop(broker), Consumer(broker, "mail")
    shop.publish(event(1, "a"), event(2, "b"), event(3, "c"))
    _, second, _ = mail.take()
    mail.ack(second)
    broker.advance(0.2)
    broker.restart()
    operator = Operator(broker)
    operator.ask("group.detach", group="mail", by="amy")
    assert numbers(Consumer(broker, "mail").wait(0.5)) == [1, 3]
    assert operator.group("mail")["lag"] == 2


def test_letters_below_the_floor_go_with_the_log_too(storage: Storage) -> None:
    """Their group has handled everything, but what a detached group leaves behind holds nothing."""
    broker = MemoryBroker(TIGHT, storage=storage)
    shop, bank, mail, operator = Shop(broker), Consumer(broker), Consumer(broker, "mail"), Operator(broker)
    for n in range(1, 31):
        shop.publish(event(n, f"o-{n}", pad="x" * 200))
        bank.ack(*bank.take())
        taken = mail.take()
        (mail.term if n == 1 else mail.ack)(*taken)
    mail.peer.say("BYE")
    pass_on(broker, 3, shop, bank, operator)
    assert (operator.group("mail")["floor"], broker.core.log.oldest) == (30, 1), "the letter holds the log"
    operator.ask("group.detach", group="mail", by="amy")
    pass_on(broker, 3, shop, bank, operator)
    assert broker.core.log.oldest > 1
    assert (operator.group("mail")["dead"], operator.group("mail")["lag"]) == (0, 0)
    assert operator.ask("dlq.list", group="mail")["letters"] == []


def test_a_letter_that_was_released_and_handled_does_not_come_again(storage: Storage) -> None:
    """It was buried as it was read, behind another of its key: the window never had it."""
    broker = MemoryBroker(MESH, storage=storage)
    shop, bank, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(event(1, "held"), event(2, "a"))
    held, first = bank.take()
    bank.term(first, reason="no")
    shop.publish(event(3, "a"))
    operator.ask("dlq.replay", group="bank", subject="a")
    for _ in range(2):
        bank.ack(*bank.wait(0.2))
    assert operator.group()["dead"] == 0
    bank.nack(held, delay_ms=0)
    bank.peer.say("BYE")
    operator.ask("group.detach", group="bank", by="amy")
    assert numbers(Consumer(broker).wait(0.5)) == [1]
