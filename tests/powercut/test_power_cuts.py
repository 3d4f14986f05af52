"""The power goes, again and again, and no acknowledged event with it.

The control shows that the disk of this suite is no kinder than a real one: with the log's fsync turned off, nearly
every cut loses what was acknowledged.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from random import Random

from measured import say
from parties import BrokenPromiseError, Consumer, Publisher
from rounds import SEED, Machine, choose, machine

pytest_plugins = ["power_fixtures"]

CUTS = 220
CUTS_MIN, IN_FLIGHT_SHARE_MIN, ACKED_MIN, CHECKPOINTS_HIT_MIN = 200, 0.5, 10_000, 10
CONTROL_CUTS, CONTROL_LOST_SHARE_MIN = 40, 0.95


def test_no_acked_event_is_lost_in_a_power_cut(tmp_path: Path, python: Path) -> None:
    dice = Random(SEED)
    began = time.monotonic()
    with machine(tmp_path, python, "small_checkpoints") as site:
        for number in range(1, CUTS + 1):
            moment = choose(dice)
            try:
                site.round(moment)
            except AssertionError as error:
                before = site.plug.status()["cuts"][-1:]
                where = f"ATOLL_SEED={SEED}, round {number} ({moment}), before it {before}"
                raise AssertionError(f"{where}: {error}") from error
        site.boot()
        take_everything(site)
        status = site.plug.status()
        site.plug.victims([site.broker.pid])
        site.plug.cut()
        site.broker.wait()
    judge(status["cuts"], site, time.monotonic() - began)


def take_everything(site: Machine) -> None:
    """What the log holds, in the end: for who acked as it came, and for who comes only now."""
    site.consumer.keeps_back = 0.0
    site.drain(site.consumer, "bank")
    late = Consumer("audit", Random(SEED))
    site.drain(late, "audit")
    assert late.acked == set(range(1, len(late.acked) + 1)), "an event was doubled or never published"
    assert len(late.acked) >= site.publisher.acked


def judge(cuts: list[dict[str, object]], site: Machine, seconds: float) -> None:
    """Print the figures; too few prove nothing."""
    flying = sum(1 for cut in cuts if cut["in_flight"])
    checkpointing = sum(1 for cut in cuts if cut["checkpointing"])
    points = Counter(str(cut["point"]) for cut in cuts)
    sectors = {name: sum(int(str(cut[name])) for cut in cuts) for name in ("kept", "gone", "torn_blocks")}
    say(
        f"power cuts: {len(cuts)} in {seconds:.0f} s, {flying} with a commit in flight, {checkpointing} in a"
        f" checkpoint, {site.publisher.acked} events acked, {site.consumer.deliveries} delivered, 0 lost"
    )
    say(
        f"power cuts, seed {SEED}: at {dict(points)}; of the unsynced sectors {sectors['kept']} were kept,"
        f" {sectors['gone']} not, {sectors['torn_blocks']} blocks torn"
    )
    assert len(cuts) >= CUTS_MIN
    assert flying >= IN_FLIGHT_SHARE_MIN * len(cuts)
    assert checkpointing >= CHECKPOINTS_HIT_MIN
    assert site.publisher.acked >= ACKED_MIN
    assert sectors["gone"] > 1000
    assert sectors["torn_blocks"] > 100


def test_without_its_fsync_nearly_every_cut_loses(tmp_path: Path, python: Path) -> None:
    dice = Random(SEED)
    with machine(tmp_path, python, "synchronous_off") as site:
        lost = sum(loses(site, dice, number) for number in range(CONTROL_CUTS))
        syncs = site.plug.status()["log_syncs"]
    say(f"power cuts, control (synchronous=OFF): {lost} of {CONTROL_CUTS} cuts lost acked events (seed {SEED})")
    assert syncs == 0, "the planted fault is not at work"
    assert lost >= CONTROL_LOST_SHARE_MIN * CONTROL_CUTS


def loses(site: Machine, dice: Random, number: int) -> bool:
    """One cut on a new log, then a look at what is left of it."""
    site.broker.data = site.broker.data.with_name(f"control-{number}")
    site.publisher, site.consumer = Publisher(), Consumer("bank", Random(number))
    site.round(choose(dice, ("write", "idle")))
    assert site.publisher.acked > 0, "nothing was acked before the cut"
    try:
        site.boot()
    except BrokenPromiseError:
        return True
    try:
        look_at_all(site)
    except BrokenPromiseError:
        return True
    finally:
        site.plug.victims([site.broker.pid])
        site.plug.cut()
        site.broker.wait()
        site.plug.on()
    return False


def look_at_all(site: Machine) -> None:
    """Raises BrokenPromiseError if something is missing."""
    acked = site.publisher.acked
    with site.peers("shop") as peers:
        site.publisher.meet(peers["shop"])
    site.publisher.acked = acked
    site.drain(Consumer("audit", Random(0)), "audit")
