"""The witness, which was written from the spec alone, beside the real broker and the real services."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import invoices
from fleet import LAUNCHER, REPOSITORY, Fleet
from measured import say
from polling import poll_until
from topology import TOPICS
from witness import assert_witness_is_complete, journal_of, published, run_journal, witnessed

INVOICES = 40
RATE = 8
#: What services/journal/README.md says of the disk.
OVERHEAD_BYTES = 1000


def test_it_has_every_event_of_an_order_and_its_bytes(shop: Fleet) -> None:
    order_id = shop.place(f"seen-{uuid4()}")
    shop.wait_order(order_id, "confirmed")
    shop.wait_settled()
    assert_witness_is_complete(shop)
    seen = [each.topic for each in witnessed(shop) if each.subject == order_id]
    assert seen == [
        "orders.order.placed.v1", "inventory.stock.reserved.v1", "payments.payment.captured.v1",
        "orders.order.confirmed.v1",
    ]  # fmt: skip


def test_what_is_read_is_what_was_published(shop: Fleet) -> None:
    order_id = shop.place(f"read-{uuid4()}")
    shop.wait_order(order_id, "confirmed")
    shop.wait_settled()
    assert_witness_is_complete(shop)
    read = run_journal(shop, "read", "--subject", order_id)
    assert read.returncode == 0, read.stderr
    lines = [json.loads(line) for line in read.stdout.splitlines()]
    log = {each.seq: json.loads(each.body) for each in published(shop)}
    assert len(lines) == 4
    assert all(line["event"] == log[line["seq"]] for line in lines)
    after = run_journal(shop, "read", "--after", str(lines[1]["position"]), "--topic", "orders.order.confirmed.v1")
    found = [json.loads(line) for line in after.stdout.splitlines()]
    assert order_id in {line["event"]["subject"] for line in found}
    assert {line["event"]["type"] for line in found} == {"orders.order.confirmed.v1"}


def test_real_orders_with_the_witness_the_broker_and_services_killed(
    shop: Fleet, real_orders: Path, tmp_path: Path
) -> None:
    file = invoices.write(tmp_path / "some.csv", real_orders, INVOICES)
    demo = subprocess.Popen(
        [str(LAUNCHER), "demo", str(file), "--rate", str(RATE), "--state", str(shop.state)],
        cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    before = len(witnessed(shop))
    try:
        for number, part in enumerate(("journal", "broker", "journal", "orders", "journal"), start=1):
            wait_for_events(shop, before + 15 * number)
            shop.wait_back(part, shop.signal(part, signal.SIGKILL))
        demo.wait(timeout=120)  # its code compares sums: other tests have sold here too
    finally:
        demo.kill()
        demo.wait()
    shop.wait_settled()
    count = assert_witness_is_complete(shop)
    say(f"{INVOICES} real invoices, 3 kills of the witness, 1 of broker and orders: {count} events, once, in order")


def wait_for_events(shop: Fleet, count: int) -> None:
    poll_until(f"{count} events", lambda: len(witnessed(shop)), lambda seen: seen >= count, seconds=60)


def test_it_uses_no_more_disk_an_event_than_its_readme_says(shop: Fleet) -> None:
    kept = witnessed(shop)
    assert len(kept) > 100
    shop.atoll("stop", "journal")
    try:
        size = shop.database_path("journal").stat().st_size
    finally:
        shop.atoll("start", "journal")
    body = sum(len(each.body) for each in kept) / len(kept)
    overhead = size / len(kept) - body
    say(f"journal: {size / len(kept):.0f} bytes an event on disk, of which the event has {body:.0f}")
    assert overhead < OVERHEAD_BYTES


def test_its_metrics_say_what_it_has(shop: Fleet) -> None:
    shop.wait_settled()
    count = assert_witness_is_complete(shop)
    metrics = poll_until(  # an earlier test has started it, and it is ready before it has a session
        "its session", lambda: shop.metrics("journal"), lambda seen: seen["atoll_session_up"] == 1, seconds=10
    )
    assert metrics["atoll_journal_events"] == count
    assert metrics["atoll_journal_violations"] == 0


def test_it_stops_in_good_order_and_nothing_is_tried_again(shop: Fleet) -> None:
    """BYE hands back what was under way: no attempt rises, and no event comes twice."""
    began = time.monotonic()
    shop.atoll("stop", "journal")
    took = time.monotonic() - began
    assert took < 10
    order_id = shop.place(f"unseen-{uuid4()}")
    shop.wait_order(order_id, "confirmed")  # its absence stops nothing
    assert not [each for each in witnessed(shop) if each.subject == order_id]
    shop.atoll("start", "journal")
    shop.wait_settled()  # what was confirmed may still lie in the outbox
    assert_witness_is_complete(shop)
    assert order_id in {each.subject for each in witnessed(shop)}


def test_the_group_takes_every_topic_that_anybody_publishes(shop: Fleet) -> None:
    assert {each.topic for each in published(shop)} <= set(TOPICS)
    # A gap or a violation would stay; "without bus" may be the agent's last look at a start that has just been.
    poll_until(
        "no complaint of the journal",
        lambda: shop.status()["journal"],
        lambda part: part["state"] == "running",
        seconds=10,
    )


def test_tampering_is_found(shop: Fleet) -> None:
    """Last: it spoils the journal, and mends it again."""
    shop.wait_settled()
    assert_witness_is_complete(shop)
    shop.atoll("stop", "journal")
    database = journal_of(shop)
    try:
        (body,) = database.execute("SELECT event FROM events WHERE position = 3").fetchone()
        forged = body.replace(b'"specversion"', b'"specversioN"')
        database.execute("UPDATE events SET event = ? WHERE position = 3", (forged,))
        spoilt = run_journal(shop, "verify")
        database.execute("UPDATE events SET event = ? WHERE position = 3", (body,))
    finally:
        database.close()
        shop.atoll("start", "journal")
    assert (spoilt.returncode, spoilt.stdout.split(":")[0]) == (1, "broken at position 3")
    assert run_journal(shop, "verify").returncode == 0
