"""A disk that is full refuses publishers and nobody else; one whose fsync fails ends the broker before any ack."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from measured import say
from parties import BrokenPromiseError, Consumer
from polling import poll_until
from rawbus import Peer
from rounds import SEED, Machine, Moment, machine

pytest_plugins = ["power_fixtures"]

EXIT_STORAGE = 74
ROOM_LEFT = 200_000
BACK_SECONDS_PROMISED = 2.0
FAILED_FSYNCS, EVENTS_AFTER = 12, 60


def test_a_full_disk_refuses_publishers_alone_and_recovers_by_itself(tmp_path: Path, python: Path) -> None:
    with machine(tmp_path, python) as site:
        site.consumer.keeps_back = 0.0
        site.boot()
        with site.peers("shop", "bank", "control") as peers:
            site.meet(peers)
            publish(site, 200)
            site.plug.bound(site.plug.status()["size"] + ROOM_LEFT)
            busy = publish_until_busy(site)
            assert busy["retry_after_ms"] > 0
            # It ends a second after the last refusal: by a small commit that finds room in what the failed one left.
            poll_until(
                "the alarm",
                lambda: publish_until_busy(site) and "disk_full" in alarms(peers["control"]),
                seconds=20,
            )
            stored = site.publisher.acked
            consume(site, stored)
            assert publish_until_busy(site)["code"] == "BUSY", "acks go on, publishers do not"
            site.plug.bound(None)
            began = time.monotonic()
            publish(site, stored + 200)
            took = time.monotonic() - began
            poll_until("the alarm to end", lambda: "disk_full" not in alarms(peers["control"]), seconds=5)
            consume(site, site.publisher.acked)
        stop(site)
        site.boot()
        site.drain(Consumer("audit", site.consumer.dice), "audit")
        stop(site)
    say(
        f"full disk: BUSY after {stored} events, all of them delivered and acked meanwhile; accepted again {took:.1f} s"
        f" after there was room (promised {BACK_SECONDS_PROMISED:g} s), 0 lost of {site.publisher.acked}"
    )
    assert took < 3 * BACK_SECONDS_PROMISED


def publish(site: Machine, upto: int) -> None:
    """Until all that is acked, going back after each BUSY."""

    def acked() -> int:
        for other in site.publisher.hear():
            assert other["command"] == "PUBNACK", other
            site.publisher.sent = site.publisher.acked
        site.publisher.publish(upto)
        return site.publisher.acked

    poll_until(f"{upto} events to be acked", acked, lambda last: last >= upto, seconds=20, every=0.02)


def publish_until_busy(site: Machine) -> dict[str, Any]:
    """The PUBNACK that a full disk gives."""

    def refused() -> list[dict[str, Any]]:
        others = site.publisher.hear()
        if not others:
            site.publisher.publish()
        return [other for other in others if other.get("code") == "BUSY"]

    busy = poll_until("a BUSY", refused, seconds=20, every=0.005)
    time.sleep(0.2)  # until the answers to what was on its way are there, whichever they are
    site.publisher.hear()
    site.publisher.sent = site.publisher.acked
    return busy[0]


def consume(site: Machine, upto: int) -> None:
    """Until all that is stored was delivered and acked, and the broker has heard it."""

    def acked() -> int:
        site.consumer.hear()
        return len(site.consumer.acked)

    poll_until(f"{upto} deliveries", acked, lambda count: count >= upto, seconds=20)


def alarms(control: Peer) -> set[str]:
    """Names of the alarms that are on."""
    control.send("ADMIN", {"request": "a", "verb": "alarms"})
    _, answer = control.receive("RESULT")
    return {alarm["name"] for alarm in answer["alarms"]}


def stop(site: Machine) -> None:
    """End it in peace."""
    site.broker.signal(signal.SIGTERM)
    assert site.broker.wait() == 0, site.broker.words()


def test_a_failed_fsync_gives_no_ack_and_exits_74_and_later_acks_hold(tmp_path: Path, python: Path) -> None:
    """The kernel shows the bytes of a failed fsync and calls the next one a success: nothing may be built on them."""
    with machine(tmp_path, python) as site:
        many_fail_and_then_lose_power(site)
        site.drain(Consumer("audit", site.consumer.dice), "audit")
        stop(site)
    say(
        f"failed fsync: {FAILED_FSYNCS} times exit {EXIT_STORAGE} and no ack; after each a power cut,"
        f" 0 lost of {site.publisher.acked} acked (seed {SEED})"
    )


def test_a_boot_that_builds_on_a_failed_fsync_is_caught(tmp_path: Path, python: Path) -> None:
    with machine(tmp_path, python, "builds_on_a_failed_fsync") as site, pytest.raises(BrokenPromiseError) as lost:
        many_fail_and_then_lose_power(site)
    say(f"failed fsync, control (the boot goes on behind what it sees): {lost.value}")


def many_fail_and_then_lose_power(site: Machine) -> None:
    """Again and again: fsync fails; then it works, events are acked, and the power goes. In the end it runs."""
    for _ in range(FAILED_FSYNCS):
        fails_without_ack(site)
        site.round(Moment("idle", "", EVENTS_AFTER))
    site.boot()


def fails_without_ack(site: Machine) -> None:
    """Publish on a disk whose fsync fails from the first commit of a publisher on."""
    site.boot()
    with site.peers("shop", "bank", "control") as peers:
        site.meet(peers)
        before = site.publisher.acked
        site.plug.fail_syncs("-wal")
        site.publisher.publish()
        assert site.broker.wait() == EXIT_STORAGE, site.broker.words()
        site.publisher.hear()
        if site.publisher.acked != before:
            raise BrokenPromiseError(f"{site.publisher.acked - before} events were acked that never reached the disk")
    site.plug.fail_syncs("")
