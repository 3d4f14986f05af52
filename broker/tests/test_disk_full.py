"""A full disk: publishers are told BUSY, what is stored is read and acked on, and it passes by itself."""

from __future__ import annotations

from typing import Any

from bus_helpers import MESH, Consumer, Operator, Shop, event, numbers

from atoll_broker.errors import StorageFullError
from atoll_broker.storage import Trimmed, WriteBatch
from atoll_broker.storage_memory import MemoryStorage
from atoll_broker.testing import MemoryBroker


class FullStorage(MemoryStorage):
    full = False

    def commit(self, batch: WriteBatch) -> Trimmed | None:
        if self.full:
            raise StorageFullError("the disk is full")
        return super().commit(batch)


class World:
    def __init__(self) -> None:
        self.storage = FullStorage()
        self.broker = MemoryBroker(MESH, storage=self.storage)
        self.shop, self.bank, self.operator = Shop(self.broker), Consumer(self.broker), Operator(self.broker)

    def pass_on(self, seconds: float) -> None:
        while seconds > 0:
            self.broker.advance(0.25)
            seconds -= 0.25
            for client in (self.shop, self.bank, self.operator):
                client.peer.say("PING")


def of(answers: list[dict[str, Any]], command: str) -> list[dict[str, Any]]:
    return [answer for answer in answers if answer["command"] == command]


def test_publishers_are_told_busy_and_nothing_is_acked() -> None:
    world = World()
    world.storage.full = True
    answers = world.shop.publish(event(1), event(2, "b"))
    assert [answer["command"] for answer in answers] == ["PUBNACK"]
    assert (answers[0]["code"], answers[0]["retry_after_ms"]) == ("BUSY", 1000)
    assert "disk_full" in world.operator.alarm_names()
    assert world.shop.send(1, event(1))[0]["code"] == "BUSY"


def test_what_is_stored_is_delivered_and_acked_meanwhile() -> None:
    world = World()
    world.shop.publish(event(1, "a"), event(2, "b"))
    world.storage.full = True
    world.shop.publish(event(3, "c"))
    taken = world.bank.take()
    assert numbers(taken) == [1, 2]
    assert world.bank.ack(*taken) == []
    assert world.operator.group()["lag"] == 0
    world.pass_on(3)
    assert world.storage.floors["bank"] == 0, "nothing could be written"


def test_it_passes_by_itself_and_nothing_is_lost_or_doubled() -> None:
    world = World()
    world.shop.publish(event(1, "a"))
    world.storage.full = True
    world.shop.publish(event(2, "b"), event(3, "c"))
    world.bank.ack(*world.bank.take())
    world.pass_on(3)
    world.storage.full = False
    world.pass_on(2)
    assert "disk_full" not in world.operator.alarm_names()
    assert world.storage.floors["bank"] == 1, "the ack that waited is on disk"
    answers = world.shop.send(2, event(2, "b"), event(3, "c"))
    assert of(answers, "PUBACK")[0]["upto"] == 3
    assert numbers(world.bank.take()) == [2, 3]
    assert sorted(world.storage.events) == [1, 2, 3]


def test_what_came_while_the_commit_was_on_its_way_is_sent_again_too() -> None:
    """The second batch was numbered after the first: it can not be kept when that is dropped."""
    world = World()
    world.broker.hold_commits = True
    world.shop.publish(event(1, "a"))
    commit = world.broker.core.take_commit()
    assert commit is not None
    world.shop.publish(event(2, "b"))
    world.broker.core.disk_full(commit)
    world.broker.release()
    assert of(world.shop.heard(), "PUBNACK")
    world.pass_on(2)
    (nack,) = of(world.shop.send(2, event(2, "b")), "PUBNACK")
    assert (nack["code"], nack["expected"]) == ("EXPECTED", 1)
    assert of(world.shop.send(1, event(1, "a"), event(2, "b")), "PUBACK")[0]["upto"] == 2
    assert [world.storage.events[seq].pseq for seq in sorted(world.storage.events)] == [1, 2]


def test_verdicts_that_waited_for_room_survive_a_restart_after_it() -> None:
    world = World()
    world.shop.publish(event(1, "a"), event(2, "b"), event(3, "c"))
    first, second, third = world.bank.take()
    world.storage.full = True
    world.bank.term(first, reason="no")
    world.bank.nack(second, delay_ms=0)
    world.bank.ack(third)
    world.pass_on(2)
    world.storage.full = False
    world.pass_on(2)
    world.broker.restart()
    operator, bank = Operator(world.broker), Consumer(world.broker)
    assert operator.group()["dead"] == 1
    (again,) = bank.wait(0.5)
    assert (again["n"], again["attempt"]) == (2, 2)


def test_a_crash_while_it_is_full_makes_events_come_again_and_loses_none() -> None:
    world = World()
    world.shop.publish(event(1, "a"))
    world.storage.full = True
    world.bank.ack(*world.bank.take())
    world.pass_on(1)
    world.storage.full = False
    world.broker.restart()
    assert numbers(Consumer(world.broker).wait(0.5)) == [1]


def test_operators_are_told_what_could_not_be_done() -> None:
    world = World()
    world.storage.full = True
    answer = world.operator.ask("publish", event=event(1), by="amy")
    assert (answer["command"], answer["code"], answer["closes"]) == ("ERR", "BUSY", False)
