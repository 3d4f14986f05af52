"""Operators look into the bus of a real fleet and act on it: one event's story, replays, taps, faults, publishing.

One system for all tests here; each leaves it whole. Payments has a handler with a bug for as long as a test says so.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import measured
from fleet import LAUNCHER, REPOSITORY, Fleet, fleet, http, write_mesh
from polling import poll_until
from rawbus import Peer, event

RESERVED, PLACED = "inventory.stock.reserved.v1", "orders.order.placed.v1"
NOISE = "orders.noise.made.v1"  # a topic that no group takes
ATTEMPTS_MAX = 3
FAULT_SECONDS = 10.0
BATCH, BATCHES = 128, 100
PRODUCER = f"orders/{uuid.uuid4()}"
PASSWORD = "correct horse battery staple"
POISON = Path(__file__).parent / "planted" / "poison"


class Shop:
    """A system whose payments can be poisoned."""

    def __init__(self, running: Fleet, poison: Path) -> None:
        self.fleet = running
        self._poison = poison

    @contextmanager
    def poisoned(self, topic: str) -> Iterator[None]:
        """Payments cannot handle events of this topic inside the block."""
        self._poison.write_text(topic)
        try:
            yield
        finally:
            self._poison.unlink()

    def said(self, *words: str) -> str:
        """What a command says when all is well."""
        return self.fleet.atoll(*words, seconds=180).output

    def refused(self, *words: str) -> str:
        """The one line of a command that is refused."""
        ran = self.fleet.atoll(*words, seconds=180, check=False)
        assert ran.code in (1, 2), f"{words} exited {ran.code}: {ran.output}"
        assert ran.output.startswith("atoll: "), ran.output
        assert ran.output.count("\n") == 1, ran.output
        return ran.output

    def json(self, *words: str) -> Any:
        """What a command says with --json."""
        return json.loads(self.said(*words, "--json"))

    def person(self, role: str) -> str:
        """The token of somebody with a role."""
        python = REPOSITORY / ".atoll" / "env" / "auth" / "bin" / "python"
        added = subprocess.run(
            [str(python), "-P", "-m", "atoll_auth", "users", "add", f"some-{role}", "--role", role], text=True,
            input=PASSWORD + "\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=60,
            env=os.environ | {"ATOLL_DATA": str(self.fleet.state / "data" / "auth-1")},
        )  # fmt: skip
        assert added.returncode == 0, added.stdout
        body = {"username": f"some-{role}", "password": PASSWORD}
        return str(http("POST", f"{self.fleet.gateway}/auth/login", body=body).body["access_token"])

    def peer(self) -> Peer:
        """A client with the keys of orders, beside it."""
        keys = self.fleet.state / "keys"
        return Peer(self.fleet.bus, keys / "orders", (keys / "orders" / "broker.public").read_bytes().strip())


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("bus")
    poison = folder / "poisoned"
    mesh = write_mesh(
        folder / "mesh.toml",
        changes={
            "attempts_max = 8": f"attempts_max = {ATTEMPTS_MAX}",
            "backoff_seconds = [0.1, 30]": "backoff_seconds = [0.05, 0.1]",
        },
        settings={"payments": {"PYTHONPATH": str(POISON), "PLANTED_POISON": str(poison)}},
    )
    with fleet(folder / "state", mesh) as running:
        yield Shop(running, poison)


def whats(story: dict[str, Any], group: str) -> list[str]:
    """What happened to an event in one group, in order."""
    return [step["what"] for step in story["steps"] if step["group"] == group]


# ---- one event's story -------------------------------------------------------------------------------------------


def test_a_poison_event_dies_its_story_shows_each_attempt_and_its_replay_has_one_effect(shop: Shop) -> None:
    with shop.poisoned(RESERVED):
        order_id = shop.fleet.place("P1")
        poll_until("the dead letter", lambda: shop.fleet.lags().get("payments dead"), seconds=40)
        (letter,) = shop.json("dlq", "list", "payments")
        story = shop.json("why", letter["event_id"])
        read = shop.said("why", letter["event_id"])
    assert (letter["subject"], letter["topic"], letter["attempts"]) == (order_id, RESERVED, ATTEMPTS_MAX)
    assert whats(story, "payments") == ["leased", "nack"] * ATTEMPTS_MAX + ["dead"]
    assert [step["attempt"] for step in story["steps"] if step["what"] == "nack"] == [1, 2, 3]
    assert whats(story, "journal") == ["leased", "done"]
    assert story["groups"]["payments"]["state"] == "dead"
    assert story["trace_id"] == letter["traceparent"].split("-")[1]
    for number in range(1, ATTEMPTS_MAX + 1):
        assert re.search(rf"payments +failed at payments/1, attempt {number}: KeyError", read), read
    for words in (
        f"trace {story['trace_id']}",
        "made, number",
        "committed by the broker",
        "dead letter after 3 attempts",
    ):
        assert words in read, read

    seq = str(letter["seq"])
    assert shop.said("dlq", "replay", "payments", "--seq", seq, "--dry-run") == "payments: 1 would come again\n"
    assert shop.fleet.lags().get("payments dead") == 1, "a dry run did something"
    again = shop.said("dlq", "replay", "payments", "--seq", seq, "--reason", "the bug is mended")
    assert again == "replayed 1, deduplicated 0, failed 0\n"
    shop.fleet.wait_order(order_id, "confirmed")
    second = shop.said("replay", "payments", "--range", f"{seq}..{seq}")
    assert second == "replayed 0, deduplicated 1, failed 0\n"
    with shop.fleet.database("payments") as database:
        taken = database.execute("SELECT count(*) FROM payments WHERE order_id = ?", (order_id,)).fetchone()[0]
    assert taken == 1, "the replay charged twice"
    story = shop.json("why", letter["event_id"])
    assert whats(story, "payments")[-6:] == ["replayed", "leased", "done", "replayed", "leased", "duplicate"]
    assert story["groups"]["payments"]["state"] == "handled"
    assert "the bug is mended" in shop.said("audit", "--act", "dlq.replay")


def test_a_replay_that_dies_again_says_failed(shop: Shop) -> None:
    with shop.poisoned(RESERVED):
        order_id = shop.fleet.place("P2")
        poll_until(
            "retries of payments, which hands it back, and of the broker, which delivers it again",
            lambda: [shop.fleet.status()[name]["rates"]["retries"] for name in ("payments", "broker")],
            all,
            seconds=20,
        )
        poll_until("the dead letter", lambda: shop.fleet.lags().get("payments dead"), seconds=40)
        ran = shop.fleet.atoll("dlq", "replay", "payments", "--key", order_id, check=False, seconds=180)
        assert (ran.code, ran.output) == (1, "replayed 0, deduplicated 0, failed 1\n")
    assert shop.said("dlq", "replay", "payments") == "replayed 1, deduplicated 0, failed 0\n"
    shop.fleet.wait_order(order_id, "confirmed")


def test_an_unknown_event_is_said_to_be_unknown(shop: Shop) -> None:
    assert "event_id: The log has no event with the id nowhere" in shop.refused("why", "nowhere")


# ---- taps --------------------------------------------------------------------------------------------------------


def test_a_tap_sees_an_order_go_by_and_starts_in_the_past(shop: Shop) -> None:
    order_id = shop.fleet.place("T1")
    shop.fleet.wait_order(order_id, "confirmed")
    ran = shop.fleet.atoll("tap", "*", "--after", "0", "--subject", order_id, "--count", "4", "--json", seconds=180)
    *lines, summary = ran.output.splitlines()
    events = [json.loads(line) for line in lines]
    assert summary == "4 events, lost 0"
    assert {one["event"]["subject"] for one in events} == {order_id}
    assert events[0]["event"]["type"] == PLACED
    assert [one["seq"] for one in events] == sorted(one["seq"] for one in events)


@contextmanager
def tapping(shop: Shop) -> Iterator[subprocess.Popen[str]]:
    """`./atoll tap` of the noise, for as long as the block lasts; at its end it is interrupted, as by Ctrl-C."""
    command = [str(LAUNCHER), "tap", NOISE, "--json", "--state", str(shop.fleet.state)]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield reader
    finally:
        reader.send_signal(signal.SIGCONT)
        reader.send_signal(signal.SIGINT)
        reader.wait(timeout=60)


@contextmanager
def noisy(shop: Shop) -> Iterator[Peer]:
    """A peer that may publish the noise, with the outbox that it had."""
    peer = shop.peer()
    try:
        assert peer.hello("orders", publishes={NOISE: {}}, producer=PRODUCER)[0] == "WELCOME"
        yield peer
    finally:
        peer.send("BYE", {})
        peer.close()


def test_a_tap_that_is_too_slow_says_how_many_it_lost_and_goes_on_after_the_brokers_death(shop: Shop) -> None:
    """Its reader is stopped while 12,800 events go by; then seen + lost is all of them."""
    with tapping(shop) as reader:
        with noisy(shop) as peer:
            first = _until_the_tap_sees(peer, reader)
            reader.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            for number in range(BATCHES):
                loud = [event("orders", NOISE, "loud", {"n": number, "pad": "x" * 200}) for _ in range(BATCH)]
                first = _publish(peer, first, loud)
            seconds = time.monotonic() - began
            reader.send_signal(signal.SIGCONT)
            first = _publish(peer, first, [event("orders", NOISE, "last", {})])
            said = _read_to(reader, "last")
        shop.fleet.wait_back("broker", shop.fleet.signal("broker", signal.SIGKILL))
        with noisy(shop) as peer:
            _publish(peer, first, [event("orders", NOISE, "after", {})])
            (after,) = _read_to(reader, "after")
    seen = sum(one.get("event", {}).get("subject") == "loud" for one in said)
    lost = sum(one.get("missed") or 0 for one in said)
    measured.say(
        f"a stopped tap: {seen} seen, {lost} lost of {BATCH * BATCHES}, published in {seconds:.1f} s meanwhile"
    )
    assert lost > 0, "nothing was lost: the reader was never too slow, and the test proves nothing"
    assert seen + lost == BATCH * BATCHES
    assert after["seq"] > said[-1]["seq"]
    assert reader.stderr is not None
    assert f"lost {lost}" in reader.stderr.read()


def _until_the_tap_sees(peer: Peer, reader: subprocess.Popen[str]) -> int:
    """Publish one event after another until the tap shows one, then read to a last one; the next pseq."""
    assert reader.stdout is not None
    first = 1

    def seen() -> bool:
        nonlocal first
        assert reader.stdout is not None
        first = _publish(peer, first, [event("orders", NOISE, "early", {})])
        return bool(select.select([reader.stdout], [], [], 0)[0])

    poll_until("the tap to see", seen, seconds=60, every=0.3)
    first = _publish(peer, first, [event("orders", NOISE, "ready", {})])
    _read_to(reader, "ready")
    return first


def _read_to(reader: subprocess.Popen[str], subject: str) -> list[dict[str, Any]]:
    """What a tap says, up to the event with this subject."""
    assert reader.stdout is not None
    said = []
    for line in reader.stdout:
        said.append(json.loads(line))
        if said[-1].get("event", {}).get("subject") == subject:
            return said
    raise AssertionError(f"the tap ended before it saw {subject}: {reader.communicate()[1]}")


def _publish(peer: Peer, first: int, events: list[dict[str, Any]]) -> int:
    """Publish, and wait for the ack; the next pseq."""
    peer.send("PUB", {"producer": PRODUCER, "first": first}, events)
    upto = first + len(events) - 1
    while True:
        command, header = peer.receive("PUBACK", "PUBNACK", "ERR", seconds=30)
        assert command == "PUBACK", header
        assert not header["refused"], header
        if header["upto"] >= upto:
            return upto + 1


# ---- faults ------------------------------------------------------------------------------------------------------


def test_a_fault_is_seen_hits_and_ends_by_itself(shop: Shop) -> None:
    said = shop.said(
        "fault", "put", "sales", "delay", "--seconds", str(FAULT_SECONDS), "--delay-ms", "500", "--reason", "drill"
    )
    began = time.monotonic()
    fault_id = said.split()[1].rstrip(":")
    fault = poll_until(  # control answers nothing about faults while it does not hear the broker in time
        "the fault to be seen",
        lambda: next(
            one for one in json.loads(shop.fleet.atoll("status", "--json").output)["faults"] if one["id"] == fault_id
        ),
        seconds=FAULT_SECONDS / 2,
    )
    assert (fault["kind"], fault["target"], fault["by"], fault["reason"]) == (
        "delay", "sales", f"local:{os.geteuid()}", "drill",
    )  # fmt: skip
    poll_until(
        "the alarm",
        lambda: json.loads(shop.fleet.atoll("status", "--json").output)["alarms"],
        lambda alarms: ("fault_active", "sales") in {(alarm["kind"], alarm["target"]) for alarm in alarms},
        seconds=FAULT_SECONDS,
    )
    poll_until(
        "the fault to end by itself",
        lambda: json.loads(shop.fleet.atoll("status", "--json").output)["faults"],
        lambda faults: not faults,
        seconds=3 * FAULT_SECONDS + 10,
    )
    measured.say(
        f"a fault for {FAULT_SECONDS:g} s was gone {time.monotonic() - began:.1f} s after its `put` was answered"
    )
    assert shop.said("fault", "list") == "no faults\n"


def test_a_fault_that_fails_deliveries_is_in_the_events_story_and_can_be_stopped(shop: Shop) -> None:
    shop.said("fault", "put", "notifications", "error", "--seconds", "120", "--share", "1")
    try:
        order_id = shop.fleet.place("F1")
        shop.fleet.wait_order(order_id, "confirmed")
        poll_until("the dead letter", lambda: shop.fleet.lags().get("notifications dead"), seconds=40)
        (fault,) = shop.json("fault", "list")["faults"]
        assert fault["hits"] >= ATTEMPTS_MAX
    finally:
        assert shop.said("fault", "stop") == "1 stopped\n"
    (letter,) = shop.json("dlq", "list", "notifications", "--subject", order_id)
    assert whats(shop.json("why", letter["event_id"]), "notifications").count("fault") == ATTEMPTS_MAX
    assert "hit by a fault" in shop.said("why", letter["event_id"])
    assert shop.said("dlq", "replay", "notifications", order_id) == "replayed 1, deduplicated 0, failed 0\n"


# ---- groups, publishing, contracts -------------------------------------------------------------------------------


def test_a_group_is_detached_once_nobody_is_in_it_and_attached_by_who_comes(shop: Shop) -> None:
    assert "sales has members (sales/1)" in shop.refused("group", "detach", "sales", "--reason", "r")
    shop.said("stop", "sales")
    try:
        assert "sales is detached at seq" in shop.said("group", "detach", "sales", "--reason", "retired")
        assert shop.json("group", "list")["groups"]["sales"]["detached"] is True
        assert re.search(r"^sales .* detached", shop.said("group", "list"), re.MULTILINE)
        order_id = shop.fleet.place("D1")
        shop.fleet.wait_order(order_id, "confirmed")
    finally:
        shop.said("start", "sales")
    poll_until(
        "sales to be attached",
        lambda: shop.json("group", "list")["groups"]["sales"],
        lambda group: not group["detached"],
        seconds=30,
    )
    shop.fleet.wait_settled()


def test_an_event_that_an_admin_publishes_is_heard_once_a_key(shop: Shop) -> None:
    data = {"reference": "by hand", "lines": [{"sku": "A", "quantity": 1, "reason": "found"}]}
    said = shop.said(
        "publish", "inventory.stock.adjusted.v1", json.dumps(data), "--subject", "by-hand", "--reason", "test"
    )
    event_id = said.split()[-1]
    heard = poll_until(
        "the witness to have it",
        lambda: shop.json("why", event_id),
        lambda story: "done" in whats(story, "journal"),
        seconds=30,
    )
    assert heard["event"]["producer"] == "control/operator"
    wrong = data | {"lines": []}
    assert "data.lines" in shop.refused("publish", "inventory.stock.adjusted.v1", json.dumps(wrong), "--reason", "test")
    token = shop.person("admin")
    body = {"topic": "inventory.stock.adjusted.v1", "data": data, "reason": "test"}
    answers = [
        shop.fleet.call("POST", "/ops/publish", body, token=token, headers={"Idempotency-Key": "once"})
        for _ in range(2)
    ]
    assert [one.status for one in answers] == [200, 200], answers
    assert answers[0].body == answers[1].body


def test_live_sessions_are_held_to_the_contracts(shop: Shop) -> None:
    assert ", 0 broken\n" in shop.said("contracts", "check", "--running")
    peer = shop.peer()
    try:
        assert peer.hello("orders", publishes={PLACED: {"type": "object"}})[0] == "WELCOME"
        with ThreadPoolExecutor(1) as pool:
            check = pool.submit(shop.fleet.atoll, "contracts", "check", "--running", check=False, seconds=180)
            while not check.done():  # who is silent for five heartbeats is no live session
                peer.send("PING", {})
                wait([check], timeout=0.5)
        ran = check.result()
    finally:
        peer.send("BYE", {})
        peer.close()
    assert ran.code == 1, ran.output
    place = "orders/9 (version 0.0.0) for services/payments/contract/consumes/orders.order.placed.v1.schema.json"
    assert any(
        line.startswith(f"{place}: data.total: ") and line.endswith("[field]") for line in ran.output.splitlines()
    )


# ---- who may -----------------------------------------------------------------------------------------------------


def test_through_the_gateway_a_viewer_reads_an_operator_acts_and_an_admin_does_the_rest(shop: Shop) -> None:
    viewer, operator = shop.person("viewer"), shop.person("operator")
    call = shop.fleet.call
    reads = ("topics", "groups", "contracts", "replays", "faults", "dlq?group=payments")
    assert [call("GET", f"/ops/{path}", token=viewer).status for path in reads] == [200] * len(reads)
    fault = {"group": "sales", "kind": "duplicate", "seconds": 1, "reason": "r"}
    acts: dict[str, tuple[str, str, dict[str, Any] | None]] = {
        "replay": ("POST", "/ops/dlq/replay", {"group": "payments", "reason": "r"}),
        "fault": ("POST", "/ops/faults", fault),
        "stop": ("DELETE", "/ops/faults", None),
    }
    above: dict[str, tuple[str, str, dict[str, Any] | None]] = {
        "detach": ("POST", "/ops/groups/payments/detach", {"reason": "r"}),
        "publish": ("POST", "/ops/publish", {"topic": PLACED, "data": {}, "reason": "r"}),
    }
    for name, (method, path, body) in (acts | above).items():
        refused = call(method, path, body, token=viewer)
        assert (refused.status, refused.code) == (403, "insufficient_scope"), (name, refused.raw)
    assert call("GET", "/ops/events?topics=*", token=viewer).status == 403
    for name, (method, path, body) in acts.items():
        assert call(method, path, body, token=operator).status == 200, name
    for name, (method, path, body) in above.items():
        assert call(method, path, body, token=operator).status == 403, name
    denied = call("GET", "/ops/audit?who=some-viewer&limit=50", token=viewer).body["items"]
    assert {one["act"] for one in denied} >= {"dlq.replay", "fault.put", "fault.stop", "group.detach", "publish", "tap"}
    assert {one["result"] for one in denied} == {"denied"}


def test_through_the_gateway_a_tap_streams(shop: Shop) -> None:
    shop.fleet.place("G1")
    token = _operators(shop)
    request = urllib.request.Request(
        f"{shop.fleet.gateway}/ops/events?topics=orders.*&after=0", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=15) as answer:
        assert answer.headers.get_content_type() == "text/event-stream"
        lines = [answer.readline().decode() for _ in range(3)]
    assert lines[0].startswith("id: ")
    assert json.loads(lines[2].removeprefix("data: "))["type"].startswith("orders.")


def _operators(shop: Shop) -> str:
    known = shop.fleet.credentials
    body = {"username": known["username"], "password": known["password"]}
    return str(http("POST", f"{shop.fleet.gateway}/auth/login", body=body).body["access_token"])


#: Words that the broker would take amiss → what the line names.
WRONG: dict[str, tuple[list[str], str]] = {
    "unknown group": (["dlq", "list", "lost"], "group: There is no group 'lost'"),
    "a group's name too long": (["dlq", "list", "g" * 65], "group: "),
    "a fault in no group": (["fault", "put", "lost", "drop", "--seconds", "1"], "group: There is no group 'lost'"),
    "a fault on a topic not taken": (
        ["fault", "put", "sales", "drop", "--seconds", "1", "--topic", PLACED], "topic: sales does not take",
    ),
    "a fault on no topic": (["fault", "put", "sales", "drop", "--seconds", "1", "--topic", "X"], "topic: "),
    "a fault that is not": (["fault", "stop", "9-9"], "id: There is no fault 9-9"),
    "a pattern that is none": (["tap", "Orders"], "topics: Expected a topic"),
    "a topic nobody publishes": (["publish", "lost.a.b.v1", "{}"], "topic: no live session announces"),
    "a topic that is none": (["publish", "Lost", "{}"], "topic: "),
    "an order that is none": (["publish", PLACED, "{}"], "data.invoice: "),
    "an event's id too long": (["why", "e" * 129], "event_id: "),
}  # fmt: skip


def test_bad_words_are_one_line_each_and_cost_control_no_session(shop: Shop) -> None:
    sessions = _sessions_of_control(shop)
    for name, (words, named) in WRONG.items():
        said = shop.refused(*words)
        assert named in said, f"{name}: {said}"
    assert _sessions_of_control(shop) == sessions, "the broker ended control's session over a malformed word"


def _sessions_of_control(shop: Shop) -> float:
    """How many sessions control has opened since its start."""
    samples = shop.fleet.metrics("control")
    return next(value for name, value in samples.items() if "sessions_total" in name)
