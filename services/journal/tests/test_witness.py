"""The wire as a broker sees it: what the witness says, when, and what it does when things go wrong."""

import time
from pathlib import Path

import pytest
import zmq
from support import LOG, TOPIC, Broker, event, frames, rows, running, settings_for, until

from atoll_journal import reading
from atoll_journal import witness as module
from atoll_journal.errors import NoRoomError, StorageError
from atoll_journal.ledger import Ledger, Sighting, Stored


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_SECONDS", (0.02, 0.1))
    monkeypatch.setattr(module, "NO_ROOM_SECONDS", 0.1)
    monkeypatch.setattr(module, "REFUSED_SECONDS", 0.1)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a broker that is silent. One that speaks has its full time: it may share a busy machine."""
    monkeypatch.setattr(module, "HELLO_SECONDS", 0.5)


def test_a_session_from_hello_to_bye(broker: Broker, tmp_path: Path) -> None:
    with running(settings_for(broker, tmp_path)) as it:
        until("credit", lambda: broker.said("CREDIT"))
        broker.deliver((7, event(7)), (9, event(9, "o-2")))
        until("an ack", lambda: broker.acked() == [7, 9])
        assert it.witness is not None
        assert it.witness.degraded == []
        assert it.stop() < 3
    commands = [message.command for _, message in broker.heard]
    assert commands[0] == "HELLO"
    assert [each for each in commands if each not in ("PING", "HELLO")] == [
        "SUB", "CREDIT", "ACK", "CREDIT", "DRAIN", "BYE"
    ]  # fmt: skip
    [hello] = broker.said("HELLO")
    assert (hello["slot"], hello["resume"], hello["producer"]) == ("journal/1", None, None)
    assert hello["contracts"] == {"publishes": {}, "consumes": [TOPIC]}
    assert broker.said("SUB") == [{"group": "journal", "topics": [TOPIC], "max_in_flight": 256}]
    assert broker.said("ACK")[0]["done"] == [[7, (1 << 32) + 7], [9, (1 << 32) + 9]]
    first, second = broker.said("CREDIT")
    assert (first["events"], first["bytes"]) == (module.IN_FLIGHT_EVENTS_MAX, module.IN_FLIGHT_BYTES_MAX)
    assert (second["events"], second["bytes"]) == (2, len(event(7)) + len(event(9, "o-2")))
    assert [row.seq for row in rows(tmp_path)] == [7, 9]


def test_it_has_stored_what_it_acknowledges(broker: Broker, tmp_path: Path) -> None:
    """At the very moment of the ACK the row is committed: another connection sees it."""
    missing: list[int] = []

    def check(message: object) -> list[list[bytes]]:
        kept = {row.seq for row in rows(tmp_path)}
        missing.extend(seq for seq, _ in message.header["done"] if seq not in kept)  # type: ignore[attr-defined]
        return []

    broker.on["ACK"] = check
    with running(settings_for(broker, tmp_path)):
        until("credit", lambda: broker.said("CREDIT"))
        for seq in range(1, 50):
            broker.deliver((seq, event(seq, f"o-{seq}")))
        until("all acks", lambda: len(broker.acked()) == 49)
    assert not missing


def test_what_comes_again_is_acknowledged_as_a_duplicate_with_the_new_fence(broker: Broker, tmp_path: Path) -> None:
    with running(settings_for(broker, tmp_path)):
        until("credit", lambda: broker.said("CREDIT"))
        broker.deliver((1, event(1)))
        until("an ack", lambda: broker.acked() == [1])
        broker.deliver((1, event(1)), (2, event(2)), fence=2 << 32)
        until("another", lambda: len(broker.said("ACK")) == 2)
    assert broker.said("ACK")[1] == {
        "group": "journal", "done": [[2, (2 << 32) + 2]], "duplicate": [[1, (2 << 32) + 1]]
    }  # fmt: skip
    assert len(rows(tmp_path)) == 2


def test_an_integer_of_any_length_is_kept(broker: Broker, tmp_path: Path) -> None:
    """The broker takes it, so a witness that refused the delivery would be sent it again, and again nothing else."""
    long = event(1).replace(b'"n": 1', b'"n": ' + b"9" * 10_000)
    assert len(long) > 10_000
    with running(settings_for(broker, tmp_path)):
        until("credit", lambda: broker.said("CREDIT"))
        broker.deliver((1, long), (2, event(2)))
        until("an ack", lambda: broker.acked() == [1, 2])
    assert [row.event for row in rows(tmp_path)] == [long, event(2)]
    assert reading.verify(tmp_path) == 0


def test_a_record_that_is_not_whole_says_so(broker: Broker, tmp_path: Path) -> None:
    gap = {"first": 5, "last": 9, "why": "retention passed it while it was detached by amy", "at_ms": 1}
    with running(settings_for(broker, tmp_path)) as it:
        until("credit", lambda: broker.said("CREDIT"))
        broker.say(frames("GAP", group="journal", gaps=[gap]))
        assert it.witness is not None
        witness = it.witness
        until("the gap", lambda: witness.gaps == {5: (9, gap["why"])})
        assert witness.degraded == [
            "bus: the record has gaps that nothing will fill: seq 5 to 9 "
            "(retention passed it while it was detached by amy)"
        ]


def test_it_pings_every_heartbeat(broker: Broker, tmp_path: Path) -> None:
    with running(settings_for(broker, tmp_path)):
        until("pings", lambda: len(broker.said("PING")) >= 4, seconds=5)
        began = time.monotonic()
        count = len(broker.said("PING"))
        until("five more", lambda: len(broker.said("PING")) >= count + 5)
        assert 0.6 < time.monotonic() - began < 5


def test_after_a_loss_it_says_hello_anew_with_resume(broker: Broker, tmp_path: Path) -> None:
    with running(settings_for(broker, tmp_path)):
        until("credit", lambda: broker.said("CREDIT"))
        broker.say(frames("FENCED", reason="journal/1 said HELLO again"))
        until("another session", lambda: len(broker.said("CREDIT")) == 2)
    first, second = broker.said("HELLO")
    assert (second["resume"], second["process"]) == ("b1-1", first["process"])


@pytest.mark.parametrize(
    "message",
    [
        frames("BYE", reason="draining"),
        frames("ERR", code="LIMIT", text="full", field=None, closes=True, request=None),
        frames("SUBOK", group="journal"),
        [b"A1MSG", b'{"group":"journal","messages":[[1,1,1,1]]}', b"[}"],
        [b"A2PONG", b"{}"],
        [b"A1PONG", b"\xff"],
    ],
    ids=["BYE", "ERR that closes", "header", "payload", "version", "not UTF-8"],
)
def test_what_ends_a_session_begins_another(broker: Broker, tmp_path: Path, message: list[bytes]) -> None:
    with running(settings_for(broker, tmp_path)) as it:
        until("credit", lambda: broker.said("CREDIT"))
        broker.say(message)
        until("another session", lambda: len(broker.said("CREDIT")) == 2)
        broker.deliver((1, event(1)))
        until("an ack", lambda: broker.acked() == [1])
        assert it.error is None


def test_what_came_before_the_end_is_stored(broker: Broker, tmp_path: Path) -> None:
    with running(settings_for(broker, tmp_path)):
        until("credit", lambda: broker.said("CREDIT"))
        broker.deliver((1, event(1)))
        broker.say(frames("BYE", reason="draining"))
        until("it to be stored", lambda: len(rows(tmp_path)) == 1)


def test_a_silent_broker_is_left(broker: Broker, tmp_path: Path) -> None:
    broker.on["PING"] = lambda _: []
    with running(settings_for(broker, tmp_path)):
        until("another session", lambda: len(broker.said("HELLO")) >= 2, seconds=5)


@pytest.mark.usefixtures("_impatient")
def test_without_an_answer_to_hello_it_says_so_and_goes_on(broker: Broker, tmp_path: Path) -> None:
    broker.on["HELLO"] = lambda _: []
    with running(settings_for(broker, tmp_path)) as it:
        until("another try", lambda: len(broker.said("HELLO")) >= 2)
        assert it.witness is not None
        assert "no answer to HELLO" in it.witness.why
        assert it.witness.degraded == ["bus"]
        assert it.stop() < 3


def test_a_refused_hello_is_tried_again_slowly(broker: Broker, tmp_path: Path) -> None:
    refusal = frames("ERR", code="ACL", text="no group of journal takes it", field="contracts.consumes[0]", closes=True,
                     request=None)  # fmt: skip
    broker.on["HELLO"] = lambda _: [refusal]
    with running(settings_for(broker, tmp_path)) as it:
        until("another try", lambda: len(broker.said("HELLO")) >= 2)
        assert it.witness is not None
        assert it.witness.why == "ACL: no group of journal takes it (contracts.consumes[0])"


def test_a_refused_subscription_is_said(broker: Broker, tmp_path: Path) -> None:
    refusal = frames("ERR", code="GROUP", text="mesh.toml declares no group journal", field="group", closes=False,
                     request=None)  # fmt: skip
    broker.on["SUB"] = lambda _: [refusal]
    with running(settings_for(broker, tmp_path)) as it:
        assert it.witness is not None
        refused = "consumer: GROUP: mesh.toml declares no group journal (group)"
        until("it to be said", lambda: it.witness is not None and it.witness.degraded == [refused])


def test_nobody_there(tmp_path: Path, broker: Broker) -> None:
    broker.port = 9
    with running(settings_for(broker, tmp_path)) as it:
        until("it to be said", lambda: it.witness is not None and "refuses connections" in it.witness.why)


@pytest.mark.usefixtures("_impatient")
def test_another_brokers_key_is_not_spoken_to(broker: Broker, tmp_path: Path) -> None:
    settings = settings_for(broker, tmp_path)
    broker_public, _ = zmq.curve_keypair()
    wrong = type(settings)(**{name: getattr(settings, name) for name in settings.__slots__} | {"broker": broker_public})
    with running(wrong) as it:
        until("it to be said", lambda: it.witness is not None and it.witness.why != "no session yet")
        assert not broker.heard


def test_stale_is_no_error(broker: Broker, tmp_path: Path) -> None:
    with running(settings_for(broker, tmp_path)) as it:
        until("credit", lambda: broker.said("CREDIT"))
        broker.say(frames("STALE", group="journal", messages=[[7, 4294967297]]))
        until("it to be counted", lambda: it.witness is not None and it.witness.counts["stale"] == 1)
        assert len(broker.said("HELLO")) == 1


def test_a_command_of_a_later_broker_is_ignored(broker: Broker, tmp_path: Path) -> None:
    with running(settings_for(broker, tmp_path)):
        until("credit", lambda: broker.said("CREDIT"))
        broker.say(frames("DANCE"))
        broker.deliver((1, event(1)))
        until("an ack", lambda: broker.acked() == [1])
        assert len(broker.said("HELLO")) == 1


def test_a_full_disk_hands_back_what_is_held_says_so_and_mends(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True
    store = Ledger.store

    def sometimes(self: Ledger, log: str, sightings: list[Sighting]) -> Stored:
        if full:
            raise NoRoomError("journal.db: database or disk is full")
        return store(self, log, sightings)

    monkeypatch.setattr(Ledger, "store", sometimes)
    broker.on["SUB"] = lambda said: [
        frames("SUBOK", group=said.header["group"], lease_ms=2000),
        [*frames("MSG", group="journal", messages=[[1, 1, 2000, 1]]), b"[" + event(1) + b"]"],
    ]
    with running(settings_for(broker, tmp_path)) as it:
        until("several tries", lambda: len(broker.said("BYE")) >= 3)
        assert it.witness is not None
        assert any("disk is full; nothing is acknowledged" in why for why in it.witness.degraded)
        assert not broker.said("ACK"), "never for what is not on the disk"
        assert not broker.said("NACK"), "a NACK would count as an attempt"
        full = False
        until("an ack", lambda: broker.acked() == [1])
        assert it.witness.degraded == []
        assert {header["reason"] for header in broker.said("BYE")} == {"no room"}


def test_a_disk_that_fails_ends_the_process(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> Stored:
        raise StorageError("journal.db: disk I/O error")

    monkeypatch.setattr(Ledger, "store", failing)
    with running(settings_for(broker, tmp_path)) as it:
        until("credit", lambda: broker.said("CREDIT"))
        broker.deliver((1, event(1)))
        until("its end", lambda: isinstance(it.error, StorageError))
    assert not broker.said("ACK")


def test_a_bus_that_breaks_its_order_is_told_to_everybody(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(settings_for(broker, tmp_path)) as it:
        until("credit", lambda: broker.said("CREDIT"))
        broker.deliver((5, event(5)))
        broker.deliver((4, event(4)))
        until("acks", lambda: broker.acked() == [5, 4])
        assert it.witness is not None
        assert it.witness.degraded == ["bus: 1 violations were seen; `python -m atoll_journal verify` tells them"]
    assert '"kind": "ORDER"' in capsys.readouterr().err


def test_an_event_that_uses_an_old_ones_id_is_kept_acknowledged_and_told(broker: Broker, tmp_path: Path) -> None:
    with running(settings_for(broker, tmp_path)) as it:
        until("credit", lambda: broker.said("CREDIT"))
        broker.deliver((5, event(5)))
        broker.deliver((6, event(5, data={"refunded": "1000000.00"})))
        until("acks", lambda: broker.acked() == [5, 6])
        assert it.witness is not None
        assert it.witness.degraded == ["bus: 1 violations were seen; `python -m atoll_journal verify` tells them"]
    assert [row.event for row in rows(tmp_path)] == [event(5), event(5, data={"refunded": "1000000.00"})]


def test_a_new_log_is_another_log(broker: Broker, tmp_path: Path) -> None:
    logs = iter([LOG, "another"])
    broker.on["HELLO"] = lambda _: [broker.welcome(log=next(logs))]
    with running(settings_for(broker, tmp_path)):
        until("credit", lambda: broker.said("CREDIT"))
        broker.deliver((5, event(5)))
        until("an ack", lambda: broker.acked() == [5])
        broker.say(frames("BYE", reason="a new disk"))
        until("another session", lambda: len(broker.said("CREDIT")) == 3)
        broker.deliver((1, event(6)))
        until("an ack", lambda: broker.acked() == [5, 1])
    assert [(row.log, row.seq) for row in rows(tmp_path)] == [(LOG, 5), ("another", 1)]
