"""One order is one trace: from the demo's request to the mail, through whatever befalls it on the way.

The edges are data (tests/topology.py); the trace is read back from the Jaeger that `./atoll up` starts. Each test finds
it as an engineer would, by the order's id, and none may hold a span whose parent is missing.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from fleet import LAUNCHER, REPOSITORY, Fleet, write_mesh
from jaeger import Jaeger, Span, Trace, wait_whole, watched_fleet
from measured import say
from polling import poll_until
from topology import TRACE_EDGES

PLANTED = Path(__file__).parent / "planted" / "misbehaving"
LEASE_SECONDS = 2
OPENING_STOCK = 1000
DECLINE_ABOVE = 100
#: What Jaeger remarks of a span that ends after its parent and lasted less long, as a consumer's may. One whose parent
#: is missing is told in other words.
ASYNCHRONOUS = "clock skew adjustment disabled; not applying calculated delta"
RESERVED, CAPTURED = "inventory.stock.reserved.v1", "payments.payment.captured.v1"
HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
#: What may be on a span; anything else is new, and its author says here that it is no customer's data.
ATTRIBUTES = re.compile(
    r"messaging\.(system|operation\.(name|type)|destination\.name|message\.id|consumer\.group\.name)"
    r"|atoll\.(attempt|outcome|service)|cloudevents\.event_subject|mail\.(channel|name)|error(\.type)?"
    r"|http\.(request\.method|response\.status_code|route)|url\.(scheme|path|full)|server\.(address|port)"
    r"|network\.protocol\.version|client\.address|user_agent\.original"
    r"|span\.kind|otel\.(scope\.(name|version)|status_code|status_description)"
)


@dataclass
class Shop:
    """A system that is looked at, whose payments can be told to misbehave."""

    fleet: Fleet
    jaeger: Jaeger
    armed: Path

    def misbehave(self, verdict: str, topic: str) -> None:
        """The next event of a topic goes badly in payments: `fail`, `reject` or `die` (see planted/misbehaving)."""
        (self.armed / "payments").write_text(f"{verdict} {topic}")

    @property
    def misbehaved(self) -> bool:
        return not (self.armed / "payments").exists()

    def order_id(self, invoice: str) -> str:
        """The order of an invoice, once orders has it."""

        def found() -> str:
            with self.fleet.database("orders") as database:
                return str(database.execute("SELECT id FROM orders WHERE invoice = ?", (invoice,)).fetchone()["id"])

        return poll_until(f"the order of {invoice}", found, seconds=30)

    def handled(self, service: str, topic: str) -> int:
        """Events of a topic that a service has handled, by its own count."""
        count = f'atoll_handler_seconds_count{{topic="{topic}"}}'
        return int(self.fleet.metrics(service).get(count, 0))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, jaeger_binary: Path) -> Iterator[Shop]:
    """Little stock, small payments, a short lease, and payments with the planted handler."""
    folder = tmp_path_factory.mktemp("seen")
    armed = folder / "armed"
    armed.mkdir()
    mesh = write_mesh(
        folder / "mesh.toml",
        changes={"lease_seconds = 30": f"lease_seconds = {LEASE_SECONDS}"},
        settings={
            "inventory": {"INVENTORY_OPENING_STOCK": str(OPENING_STOCK)},
            "payments": {
                "PAYMENTS_DECLINE_ABOVE": str(DECLINE_ABOVE),
                "PYTHONPATH": str(PLANTED),
                "PLANTED_MISBEHAVIOUR": str(armed),
            },
        },
    )
    with watched_fleet(folder / "state", mesh) as (fleet, jaeger):
        yield Shop(fleet, jaeger, armed)


@contextmanager
def ordered(shop: Shop, folder: Path, *, quantity: int = 1, price: str = "3") -> Iterator[str]:
    """The demo sends one invoice of one line; its order's id. At the end of the block its span has reached Jaeger."""
    invoice = f"{uuid4().int % 10**9}"
    file = folder / f"{invoice}.csv"
    line = f"{invoice},SKU-{invoice},A MUG,{quantity},2010-12-01T08:26:00Z,{price},17850,United Kingdom"
    file.write_text(f"{HEADER}\n{line}\n")
    demo = subprocess.Popen(
        [str(LAUNCHER), "demo", str(file), "--state", str(shop.fleet.state)],
        cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        order_id = shop.order_id(invoice)
        yield order_id
        poll_until("the demo's span", lambda: shop.jaeger.of_order(order_id).of("demo", "POST"), seconds=15)
    finally:  # it would look until the sagas have ended, for sums that a shop which sold before does not have
        demo.kill()
        demo.wait(timeout=10)


def whole(shop: Shop, order_id: str, way: str) -> Trace:
    """The order's trace, as soon as it has the edges of its way, and after all that holds for any trace."""
    began = time.monotonic()
    trace = wait_whole(lambda: shop.jaeger.of_order(order_id), TRACE_EDGES[way])
    say(f"{way}: {len(trace.spans)} spans of {len(trace.services)} services, whole {time.monotonic() - began:.1f} s on")
    assert trace.roots == [("demo", "POST")], trace.tree()
    assert {span.trace for span in trace.spans} == {trace.id}
    for span in trace.spans:
        warnings = [warning for warning in span.warnings if not warning.startswith(ASYNCHRONOUS)]
        assert not warnings, (span.place, warnings)
        _says_what_it_is(span)
    _has_links(shop, trace)
    _is_in_time(trace)
    return trace


def _says_what_it_is(span: Span) -> None:
    """Names, kinds and attributes by the conventions, and nothing that a customer wrote."""
    strange = {name for name in span.tags if not ATTRIBUTES.fullmatch(name)}
    assert not strange, f"{span.place} has {strange}"
    assert {"service.version", "service.instance.id"} <= set(span.resource), span.resource
    assert span.resource["service.version"] != "0", span.place
    assert span.resource["service.instance.id"] == f"{span.service}/1"
    word, _, topic = span.name.partition(" ")
    kinds = {"publish": ("producer", "create"), "relay": ("client", "send"), "process": ("consumer", "process")}
    if word in kinds:
        tags = span.tags
        assert (span.kind, tags["messaging.operation.type"]) == kinds[word], span.place
        assert (tags["messaging.operation.name"], tags["messaging.destination.name"]) == (word, topic)
        assert tags["messaging.message.id"]
        assert tags["cloudevents.event_subject"]
    if word == "process":
        assert span.tags["messaging.consumer.group.name"] == span.service
        assert span.attempt >= 1


def _has_links(shop: Shop, trace: Trace) -> None:
    """Each consumer span links to the span that published its event, which is its parent too."""
    producers = {span.tags["messaging.message.id"]: span.id for span in trace.spans if span.kind == "producer"}
    for span in trace.spans:
        if span.kind == "consumer":
            wanted = producers[span.tags["messaging.message.id"]]
            assert span.parent == wanted, span.place
            assert shop.jaeger.links(trace.id)[span.id] == [(trace.id, wanted)], span.place


def _is_in_time(trace: Trace) -> None:
    """No span begins before its parent; a relay's begins with its event, not when its turn comes."""
    known = {span.id: span for span in trace.spans}
    relays = [span for span in trace.spans if span.name.startswith("relay ")]
    again = {span.tags["messaging.message.id"] for span in relays if span.failed}  # a next try begins when it is made
    for span in trace.spans:
        if parent := known.get(span.parent):
            assert span.begin_us >= parent.begin_us, (parent.place, span.place)
            if span in relays and span.tags["messaging.message.id"] not in again:
                assert span.begin_us - parent.begin_us < 50_000 or span.duration_us < 1_000_000, span.place


def failures(trace: Trace) -> list[tuple[str, str, int]]:
    """Spans that are marked as failed: service, name, attempt."""
    return [(*span.place, span.attempt) for span in trace.spans if span.failed]


def test_an_order_that_goes_well(shop: Shop, tmp_path: Path) -> None:
    with ordered(shop, tmp_path) as order_id:
        shop.fleet.wait_order(order_id, "confirmed")
    trace = whole(shop, order_id, "confirmed")
    assert trace.services == {"demo", "gateway", "orders", "inventory", "payments", "sales", "notifications"}
    assert failures(trace) == []
    assert {span.attempt for span in trace.spans} == {0, 1}
    print(trace.tree())


def test_an_order_whose_payment_is_declined(shop: Shop, tmp_path: Path) -> None:
    with ordered(shop, tmp_path, price=str(DECLINE_ABOVE + 1)) as order_id:
        shop.fleet.wait_order(order_id, "cancelled")
    assert failures(whole(shop, order_id, "payment declined")) == [], "no is an answer, not a failure"


def test_an_order_without_stock(shop: Shop, tmp_path: Path) -> None:
    with ordered(shop, tmp_path, quantity=OPENING_STOCK + 1, price="0.01") as order_id:
        shop.fleet.wait_order(order_id, "cancelled")
    assert failures(whole(shop, order_id, "stock rejected")) == []


def test_a_handler_that_fails_first(shop: Shop, tmp_path: Path) -> None:
    """Both attempts are children of what published the event; the first says what was wrong."""
    shop.misbehave("fail", RESERVED)
    with ordered(shop, tmp_path) as order_id:
        shop.fleet.wait_order(order_id, "confirmed")
    first, second = whole_twice(shop, order_id)
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.parent == second.parent
    assert first.failed
    assert first.tags["otel.status_description"] == "ZeroDivisionError: planted"
    assert (first.tags["atoll.outcome"], first.tags["error.type"]) == ("failed", "ZeroDivisionError")
    assert not second.failed


def whole_twice(shop: Shop, order_id: str) -> list[Span]:
    """The two attempts of payments at the event, in a trace that is otherwise as any."""
    trace = whole(shop, order_id, "confirmed")
    attempts = trace.of("payments", f"process {RESERVED}")
    assert len(attempts) == 2, trace.tree()
    assert failures(trace) == [("payments", f"process {RESERVED}", 1)]
    return attempts


def test_a_consumer_that_is_killed_in_the_middle_of_an_event(shop: Shop, tmp_path: Path) -> None:
    """The attempt that died has no span: it died with its process. The next one shows that it is the second.

    Inventory is down at first, so that what payments did before has left its process by the time that it is killed.
    """
    shop.fleet.atoll("stop", "inventory")
    shop.misbehave("die", RESERVED)
    with ordered(shop, tmp_path) as order_id:
        before = ("payments", "process orders.order.placed.v1")
        poll_until("payments' first span", lambda: shop.jaeger.of_order(order_id).of(*before), seconds=15)
        old = shop.fleet.pid("payments")
        shop.fleet.atoll("start", "inventory")
        shop.fleet.wait_back("payments", old)
        assert shop.misbehaved
        shop.fleet.wait_order(order_id, "confirmed")
    (attempt,) = whole(shop, order_id, "confirmed").of("payments", f"process {RESERVED}")
    assert attempt.attempt == 2
    assert not attempt.failed


def test_a_consumer_that_outlives_its_lease(shop: Shop, tmp_path: Path) -> None:
    """Stopped with the event in hand: whatever comes twice is in the trace, with one effect."""
    shop.fleet.atoll("stop", "inventory")
    with ordered(shop, tmp_path) as order_id:
        before = ("payments", "process orders.order.placed.v1")
        poll_until("payments' first span", lambda: shop.jaeger.of_order(order_id).of(*before), seconds=15)
        pid = shop.fleet.signal("payments", signal.SIGSTOP)
        try:
            shop.fleet.atoll("start", "inventory")
            time.sleep(LEASE_SECONDS * 2)  # the fault itself
        finally:
            shop.fleet.signal("payments", signal.SIGCONT, pid)
        shop.fleet.wait_order(order_id, "confirmed")
    trace = whole(shop, order_id, "confirmed")
    attempts = trace.of("payments", f"process {RESERVED}")
    effects = [one for one in attempts if one.tags.get("atoll.outcome") != "duplicate"]
    say(f"stopped past its lease: attempts {[one.attempt for one in attempts]}, {len(effects)} effect")
    assert len(effects) == 1, trace.tree()
    assert len(trace.of("payments", f"publish {CAPTURED}")) == 1
    assert failures(trace) == []


def test_a_dead_letter_and_its_replay(shop: Shop, tmp_path: Path) -> None:
    """Rejected it is an error in the order's trace; replayed it goes on in the same one."""
    shop.misbehave("reject", RESERVED)
    with ordered(shop, tmp_path) as order_id:
        poll_until("the dead letter", lambda: shop.fleet.lags().get("payments dead"), seconds=20)
        dead = wait_whole(
            lambda: shop.jaeger.of_order(order_id),
            {edge for edge in TRACE_EDGES["confirmed"] if _before_payment(edge)},
        )
        (rejected,) = dead.of("payments", f"process {RESERVED}")
        assert rejected.failed
        assert (rejected.tags["atoll.outcome"], rejected.tags["error.type"]) == ("rejected", "Reject")
        shop.fleet.atoll("dlq", "replay", "payments")
        shop.fleet.wait_order(order_id, "confirmed")
    first, second = whole_twice(shop, order_id)
    assert first.id == rejected.id
    assert first.parent == second.parent
    assert not second.failed
    shop.fleet.wait_settled()
    assert not [name for name in shop.fleet.lags() if name.endswith(" dead")]


def _before_payment(edge: tuple[tuple[str, str], tuple[str, str]]) -> bool:
    """Whether an order comes to this edge before payments has handled its reserved stock."""
    names = [name for _, name in edge]
    return not any("captured" in name or "confirmed" in name for name in names)


def test_a_broker_that_is_killed_in_the_middle_of_an_order(shop: Shop, tmp_path: Path) -> None:
    """The order waits in the log for payments, the broker dies and comes back, and the trace goes on."""
    shop.fleet.atoll("stop", "payments")
    with ordered(shop, tmp_path) as order_id:
        so_far = ("inventory", f"relay {RESERVED}")
        poll_until("the event to be on the bus", lambda: shop.jaeger.of_order(order_id).of(*so_far), seconds=15)
        shop.fleet.wait_back("broker", shop.fleet.signal("broker", signal.SIGKILL))
        shop.fleet.atoll("start", "payments")
        shop.fleet.wait_order(order_id, "confirmed", seconds=40)
    assert failures(whole(shop, order_id, "confirmed")) == []


def test_a_broker_that_is_away_when_an_order_is_placed(shop: Shop, tmp_path: Path) -> None:
    """The outbox holds the event; its relay's span shows for how long."""
    pid = shop.fleet.signal("broker", signal.SIGSTOP)
    began = time.monotonic()
    try:
        with ordered(shop, tmp_path) as order_id:
            shop.fleet.signal("broker", signal.SIGKILL, pid)
            shop.fleet.wait_back("broker", pid)
            shop.fleet.wait_order(order_id, "confirmed", seconds=40)
    finally:
        if shop.fleet.status()["broker"]["pid"] == pid:
            shop.fleet.signal("broker", signal.SIGCONT, pid)
    took = time.monotonic() - began
    trace = whole(shop, order_id, "confirmed")
    relayed = trace.of("orders", "relay orders.order.placed.v1")
    waited = (relayed[-1].begin_us + relayed[-1].duration_us - relayed[0].begin_us) / 1e6
    say(f"broker away: order.placed waited {waited:.1f} s in {len(relayed)} tries; the whole took {took:.1f} s")
    assert not relayed[-1].failed
    assert all(one.tags["error.type"] == "not_acknowledged" for one in relayed[:-1])
    assert {name for _, name, _ in failures(trace)} <= {"relay orders.order.placed.v1"}


def test_an_operators_act_has_its_trace(shop: Shop) -> None:
    """The audit's trace id leads to what the act was part of."""
    shop.fleet.atoll("restart", "sales", "--reason", "to see it in the traces")
    (act,) = [one for one in _audit(shop) if one["target"] == "sales/1" and one["act"] == "restart"]
    trace = poll_until("the act's trace", lambda: shop.jaeger.trace(act["trace_id"]), lambda one: one.spans, seconds=15)
    assert not trace.orphans
    assert trace.services == {"control"}
    assert [span.tags["http.route"] for span in trace.spans] == ["/ops/instances/{name}/{n}/{act}"]


def _audit(shop: Shop) -> list[dict[str, str]]:
    with shop.fleet.database("control") as database:
        return [dict(row) for row in database.execute("SELECT act, target, trace_id FROM audit")]
