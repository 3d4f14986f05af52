"""What a peer with a key, a full disk or an odd history may do: it costs that peer, and never the broker."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import zmq
from bus_helpers import MESH, PLACED, Client, Consumer, Operator, Shop, event, hello, numbers

from atoll_broker import codec, keys
from atoll_broker.storage import Storage
from atoll_broker.testing import MemoryBroker

DEPTHS = [codec.NESTING_MAX + 1, 300, 900, *range(940, 1000, 4)]


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def raw_event(**texts: str) -> bytes:
    """An event whose attributes are replaced by JSON text, which no encoder here would nest so deeply."""
    body = {name: json.dumps(value) for name, value in event(1).items()} | texts
    return ("{" + ",".join(f'"{name}":{text}' for name, text in body.items()) + "}").encode()


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("place", [{"data": '{{"n":{}}}'}, {"data": '{{"n":1,"x":{}}}'}, {"extension": "{}"}])
def test_an_event_that_nests_too_deeply_is_refused_and_nobody_must_read_it(depth: int, place: dict[str, str]) -> None:
    broker = MemoryBroker(MESH)
    shop, consumer = Shop(broker), Consumer(broker)
    bad = raw_event(**{name: text.format(nested(depth)) for name, text in place.items()})
    shop.peer.send([b"A1PUB", b'{"producer":"shop/box","first":1}', b"[" + bad + b"]"])
    answer = shop.heard()[0]
    if answer["command"] == "PUBACK":  # else the batch as a whole could not be read
        assert [refusal["code"] for refusal in answer["refused"]] == ["SCHEMA"]
        shop.send(2, event(2))
        assert numbers(consumer.take()) == [2]
    assert answer["command"] == "PUBACK" or answer["code"] == "PAYLOAD"


def test_brackets_in_text_and_wide_data_are_not_depth(broker: MemoryBroker) -> None:
    shop, consumer = Shop(broker), Consumer(broker)
    wide = [{"quantity": 1} for _ in range(codec.NESTING_MAX)]
    deep = json.loads(nested(codec.NESTING_MAX - 2))
    shop.publish(event(1, lines=wide, note='[{\\"[' * 100), event(2, "o-2", x=deep))
    assert numbers(consumer.take()) == [1, 2]


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_header_that_nests_too_deeply_is_refused(depth: int) -> None:
    broker = MemoryBroker(MESH)
    deep = msgspec.Raw(nested(depth).encode())
    where = {"url": "http://127.0.0.1:1", "prefixes": ["/shop"], "routes": [], "openapi": deep}
    for header in ({"contracts": {"publishes": {PLACED: {"default": deep}}}}, {"endpoints": where}):
        peer = broker.connect("shop")
        peer.say("HELLO", **hello("shop", **header))
        assert peer.heard()[0]["code"] == "HEADER"


def pings(broker: MemoryBroker, clients: tuple[Client, ...], seconds: float) -> None:
    for _ in range(round(seconds * 2)):
        broker.advance(0.5)
        for client in clients:
            client.peer.say("PING")


@pytest.mark.parametrize("kept", ["log_bytes_kept = 1024", ""])
def test_a_full_log_that_everybody_has_read_takes_publishers_again(storage: Storage, kept: str) -> None:
    """Also when nothing else happens that would make a commit due, and when more is to be kept than there may be."""
    broker = MemoryBroker(f"{MESH}log_bytes_max = 4096\n{kept}\n", storage=storage)
    shop, members = Shop(broker), [Consumer(broker, "bank"), Consumer(broker, "mail")]
    while shop.send(shop.next, event(shop.next, f"o-{shop.next}", pad="x" * 200))[0].get("code") != "BUSY":
        shop.next += 1
    for member in members:
        member.ack(*member.take())
    pings(broker, (shop, *members), 3)
    shop.heard()
    assert shop.send(shop.next, event(shop.next, pad="x" * 200))[0].get("upto") == shop.next


def test_retention_stops_before_a_replayed_letter_that_waits_behind_another_event(storage: Storage) -> None:
    tight = "log_bytes_max = 65536\nlog_bytes_kept = 1024\ncache_bytes_max = 1024\n"
    broker = MemoryBroker(MESH + tight, storage=storage)
    shop, bank, mail = Shop(broker), Consumer(broker, "bank"), Consumer(broker, "mail")
    operator = Operator(broker)
    shop.publish(event(1, "a"))
    mail.term(*mail.take())
    shop.publish(*[event(n, f"o-{n}", pad="x" * 200) for n in range(2, 30)], event(30, "a"))
    bank.ack(*bank.take())
    bank.ack(*bank.take())
    *others, last = sorted(mail.take(), key=lambda delivery: delivery["seq"])
    mail.ack(*others)
    assert operator.ask("dlq.replay", group="mail", subject="a")["replayed"] == 1
    for _ in range(6):
        pings(broker, (shop, bank, mail, operator), 0.5)
        mail.wip(last)
    mail.ack(last)
    assert numbers(mail.take()) == [1], "the replayed letter is still in the log"


def test_letters_of_a_group_that_was_away_too_long_stop_neither_replay_nor_retention(storage: Storage) -> None:
    tight = "log_bytes_max = 65536\nlog_bytes_kept = 1024\n"
    broker = MemoryBroker(MESH + tight, storage=storage)
    shop, mail = Shop(broker), Consumer(broker, "mail")
    shop.publish(event(1, "a"))
    mail.term(*mail.take())
    broker.advance(0.2)
    storage.close()
    without = MESH.replace('[group.mail]\npart = "mail"', '[group.post]\npart = "mail"')
    broker = MemoryBroker(without + tight, storage=storage)
    shop, members = Shop(broker), (Consumer(broker, "bank"), Consumer(broker, "post"))
    shop.publish(*[event(n, f"o-{n}", pad="x" * 200) for n in range(2, 30)])
    for member in members:
        member.ack(*member.take())
    pings(broker, (shop, *members), 3)
    assert broker.core.log.oldest > 1
    storage.close()
    broker = MemoryBroker(MESH + tight, storage=storage)
    mail, operator = Consumer(broker, "mail"), Operator(broker)
    assert operator.group("mail")["dead"] == 0
    assert operator.ask("dlq.replay", group="mail", subject="a")["replayed"] == 0
    mail.wait(0.5)
    assert broker.core._retention._oldest_needed() >= broker.core.log.oldest


def test_answers_that_come_too_late_are_no_progress() -> None:
    """A handler slower than its lease is as stalled as one that hangs: the alarm must name its group."""
    broker = MemoryBroker(MESH.replace("attempts_max = 3", "attempts_max = 100"))
    shop, consumer, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(event(1))
    (late,) = consumer.take()
    for _ in range(9):
        pings(broker, (shop, consumer, operator), 4)
        consumer.take()
        consumer.ack(late if broker.core.now > 10 else {**late, "fence": 1})
    named = [alarm["subject"] for alarm in operator.ask("alarms")["alarms"] if alarm["name"] == "group_stalled"]
    assert "bank" in named


def test_a_group_whose_events_are_all_rejected_makes_progress() -> None:
    broker = MemoryBroker(MESH.replace("attempts_max = 3", "attempts_max = 100"))
    shop, consumer, operator = Shop(broker), Consumer(broker, "mail"), Operator(broker)
    for n in range(1, 20):
        shop.send(n, event(n, f"o-{n}"), event(n + 1, f"o-{n + 1}"))
        pings(broker, (shop, consumer, operator), 2)
        consumer.term(*consumer.take()[:1])
    named = [alarm["subject"] for alarm in operator.ask("alarms")["alarms"] if alarm["name"] == "group_stalled"]
    assert "mail" not in named


def test_a_replay_in_an_idle_group_is_not_a_stall(broker: MemoryBroker) -> None:
    shop, consumer, operator = Shop(broker), Consumer(broker, credit=1), Operator(broker)
    shop.publish(event(1))
    consumer.term(*consumer.take())
    pings(broker, (shop, consumer, operator), 40)
    operator.ask("dlq.replay", group="bank", subject="o-1")
    assert operator.group()["lag"] == 1
    named = [alarm["subject"] for alarm in operator.ask("alarms")["alarms"] if alarm["name"] == "group_stalled"]
    assert "bank" not in named


def test_a_handler_that_hangs_is_named_although_its_leases_are_extended() -> None:
    broker = MemoryBroker(MESH)
    shop, consumer, operator = Shop(broker), Consumer(broker), Operator(broker)
    shop.publish(event(1))
    held = consumer.take()
    for second in range(35):
        pings(broker, (shop, operator), 1)
        consumer.say("PING", oldest_ms=second * 1000)
        consumer.wip(*held)
    named = {alarm["subject"]: alarm["text"] for alarm in operator.ask("alarms")["alarms"]}
    assert named["bank"] == "makes no progress, 1 events wait"
    oldest = {session["slot"]: session["oldest_ms"] for session in operator.ask("sessions")["sessions"]}
    assert oldest["bank/1"] > 30_000


def _write_keys(directory: Path, **identities: str) -> None:
    for name, text in identities.items():
        (directory / f"{name}.public").write_text(text, encoding="ascii")


def test_a_key_file_that_can_not_be_read_lets_its_identity_out_and_the_others_be(tmp_path: Path) -> None:
    good = {name: zmq.curve_keypair()[0].decode() for name in ("bank", "shop")}
    _write_keys(tmp_path, **good)
    before = keys.read_allow_list(tmp_path)
    _write_keys(tmp_path, shop="half a ke")
    allowed, unreadable = keys.reread_allow_list(tmp_path)
    assert list(allowed.identities.values()) == ["bank"]
    assert set(allowed.identities) < set(before.identities)
    assert len(unreadable) == 1
    assert "shop.public" in unreadable[0]


def test_a_directory_of_keys_that_is_gone_lets_nobody_in(tmp_path: Path) -> None:
    allowed, unreadable = keys.reread_allow_list(tmp_path / "clients")
    assert allowed.user_ids == {}
    assert unreadable


#: msgspec skips it unseen where it leaves a value unparsed, and refuses it where it parses one.
BEYOND_FLOATS = msgspec.Raw(b"1e999")


def test_a_number_beyond_floats_is_refused_where_it_comes_in(broker: MemoryBroker) -> None:
    """Or whoever decodes it later fails: the broker at `why`, each gateway at the registry."""
    where = {"url": "http://127.0.0.1:1", "prefixes": ["/shop"], "routes": [], "openapi": {"x": BEYOND_FLOATS}}
    for header, code in (
        ({"contracts": {"publishes": {PLACED: {"maximum": BEYOND_FLOATS}}}}, "CONTRACT"),
        ({"endpoints": where}, "HEADER"),
    ):
        peer = broker.connect("shop")
        peer.say("HELLO", **hello("shop", **header))
        assert peer.heard()[0]["code"] == code
    auth = Client(broker, "auth")
    (answer,) = auth.say("PUT", kind="revocations", value={"x": BEYOND_FLOATS}, request="r")
    assert (answer["code"], answer["field"]) == ("HEADER", "value")
    shop = Shop(broker)
    (ack,) = shop.publish(event(1) | {"extension": BEYOND_FLOATS}, event(2) | {"data": {"n": 2, "x": BEYOND_FLOATS}})
    assert [(refusal["code"], refusal["field"]) for refusal in ack["refused"]] == [("SCHEMA", ""), ("SCHEMA", "data")]


def test_an_outbox_without_a_grant_to_publish_is_not_remembered(broker: MemoryBroker) -> None:
    for number in range(3):
        mail = Client(broker, "mail", producer=f"mail/x{number}")
        answer = mail.say("PUB", [event(1)], producer=f"mail/x{number}", first=1)[0]
        assert (answer["code"], answer["closes"], answer["field"]) == ("ACL", False, "producer")
        mail.say("BYE")
    broker.restart()
    assert Client(broker, "mail", producer="mail/x0").welcome["producer"]["mark"] == 0
