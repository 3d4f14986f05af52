"""mesh.toml while the broker runs: policy holds at once, the rest waits and says so, and nonsense changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from bus_helpers import MESH, Client, Consumer, Operator, Shop, event, hello, numbers

from atoll_broker import mesh
from atoll_broker.errors import ConfigurationError
from atoll_broker.testing import MemoryBroker


def reload(broker: MemoryBroker, text: str) -> None:
    broker.core.reload(mesh.parse(text))
    broker.turn()


def test_attempts_and_dead_letters_by_the_new_policy() -> None:
    broker = MemoryBroker(MESH)
    shop, bank, operator = Shop(broker), Consumer(broker), Operator(broker)
    reload(broker, MESH.replace("attempts_max = 3", "attempts_max = 1"))
    shop.publish(event(1))
    bank.nack(*bank.take())
    assert operator.group()["dead"] == 1


def test_a_rate_holds_at_once_and_goes_at_once() -> None:
    broker = MemoryBroker(MESH)
    shop, bank = Shop(broker), Consumer(broker)
    slow = '[group.bank]\npart = "bank"\nevents_per_second_max = 1'
    reload(broker, MESH.replace('[group.bank]\npart = "bank"', slow))
    shop.publish(*[event(n, f"o-{n}") for n in range(1, 11)])
    assert len(bank.take()) == 1
    reload(broker, MESH)
    assert len(bank.take()) == 9


def test_in_flight_is_bounded_anew() -> None:
    broker = MemoryBroker(MESH)
    shop, bank = Shop(broker), Consumer(broker)
    reload(broker, MESH.replace("in_flight_max = 256", "in_flight_max = 2"))
    shop.publish(*[event(n, f"o-{n}") for n in range(1, 11)])
    assert len(bank.take()) == 2


def test_a_session_beyond_its_grant_ends_and_the_others_do_not() -> None:
    broker = MemoryBroker(MESH)
    shop, bank = Shop(broker), Consumer(broker)
    reload(broker, MESH.replace('publish = ["shop.*"]\nannounce', 'publish = ["shop.order.placed.v1"]\nannounce'))
    (fenced,) = shop.heard("FENCED")
    assert "no longer granted" in fenced["reason"]
    assert "cancelled" in fenced["reason"]
    assert bank.say("PING")[-1]["command"] == "PONG"
    peer = broker.connect("shop")
    peer.say("HELLO", **hello("shop"))
    assert peer.heard()[0]["code"] == "ACL"


def test_a_watch_and_a_tap_are_taken_away_with_their_grant() -> None:
    broker = MemoryBroker(MESH)
    gateway, tapper = Client(broker, "gateway"), Operator(broker)
    gateway.say("WATCH", kind="keys")
    tapper.say("TAP", tap="~t", topics=["shop.*"])
    narrowed = MESH.replace('watch = ["registry", "keys", "revocations"]', 'watch = ["registry"]')
    reload(broker, narrowed.replace('tap = ["*"]', 'tap = ["bank.*"]'))
    assert gateway.heard("FENCED")
    assert tapper.heard("FENCED")


def test_a_new_grant_holds_at_once() -> None:
    broker = MemoryBroker(MESH)
    reload(broker, MESH + '[grant.guest]\npublish = ["guest.*"]\n')
    assert Client(broker, "guest").welcome["session"]


def test_what_can_not_change_while_it_runs_waits_and_is_named() -> None:
    broker = MemoryBroker(MESH)
    operator = Operator(broker)
    changed = MESH.replace("lease_seconds = 10", "lease_seconds = 5").replace("[group.mail]", "[group.post]")
    reload(broker, changed.replace("heartbeat_seconds = 1.0", "heartbeat_seconds = 2.0"))
    (alarm,) = [one for one in operator.ask("alarms")["alarms"] if one["name"] == "mesh_restart_needed"]
    for field in ("group.mail", "group.post", "group.bank.lease_seconds", "bus.heartbeat_seconds"):
        assert field in alarm["text"]
    reload(broker, MESH)
    assert "mesh_restart_needed" not in operator.alarm_names()


def test_events_go_on_while_policy_changes() -> None:
    broker = MemoryBroker(MESH)
    shop, bank = Shop(broker), Consumer(broker)
    shop.publish(event(1, "a"), event(2, "b"))
    taken = bank.take()
    reload(broker, MESH.replace('on_dead = "skip"', 'on_dead = "park"'))
    assert bank.ack(*taken) == []
    shop.publish(event(3, "a"))
    assert numbers(bank.take()) == [3]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("bus.log_seconds_kept", MESH + "log_seconds_kept = 0\n"),
        ("bus.log_events_kept", MESH + "log_events_kept = 0\n"),
        ("bus.stalled_seconds", MESH + "stalled_seconds = 0.1\n"),
        ("grant.shop.events_per_second_max", MESH.replace("[grant.shop]", "[grant.shop]\nevents_per_second_max = -1")),
        ("grant.shop.tap[0]", MESH.replace("[grant.shop]", '[grant.shop]\ntap = ["UP"]')),
        ("group.bank.events_per_second_max", MESH.replace("[group.bank]", '[group.bank]\nevents_per_second_max = "x"')),
    ],
)
def test_a_wrong_field_is_named(field: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "mesh.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=field.replace("[", r"\[")):
        mesh.load(tmp_path / "mesh.toml")
