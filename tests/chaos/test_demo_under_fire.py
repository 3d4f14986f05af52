"""The real invoices cross the system while every part of it is killed, and most are stopped past their lease.

Workload: `./atoll demo` with the real file. Faults: SIGKILL and SIGSTOP to process groups, in an order drawn from a
seed. A kill of broker, gateway or a service counts only if the part had work in hand just before the signal. Safety is
checked on effects afterwards (history.py): sums, final states, movements, captures.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest

import invoices
from fleet import LAUNCHER, REPOSITORY, Fleet, fleet, write_mesh
from history import assert_books_balance
from measured import say
from polling import poll_until
from topology import PARTS
from witness import assert_witness_is_complete
from work_in_hand import wait_for_work

LEASE_SECONDS = 2
#: Parts whose kill must catch them at work, and how often.
AT_WORK = {"broker": 2, "gateway": 2, "orders": 2, "inventory": 2, "payments": 2, "sales": 2, "notifications": 2,
           "journal": 2}  # fmt: skip
KILLED = (
    "broker", "orders", "inventory", "payments", "sales", "notifications", "journal", "auth", "gateway", "agent",
    "control",
)  # fmt: skip
STOPPED = KILLED[:9]
#: Invoices a second: slow enough that the demo outlives the faults, which the test checks.
RATE = 2.5


@dataclass
class Plan:
    """The faults of one run, in order, and what came of them."""

    seed: int
    steps: list[tuple[str, str]] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)

    @classmethod
    def draw(cls, seed: int) -> Plan:
        """Every part killed once, those of AT_WORK as often as asked, those of STOPPED stopped once; shuffled."""
        steps = [("kill", part) for part in KILLED for _ in range(AT_WORK.get(part, 1))]
        steps += [("stop", part) for part in STOPPED]
        random.Random(seed).shuffle(steps)
        return cls(seed, steps)

    def note(self, line: str) -> None:
        """Say what happened, now and in the record."""
        self.log.append(line)
        say(line)


@pytest.fixture(scope="module")
def burnt(real_orders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Plan]]:
    """A system that the real file crossed under fire."""
    folder = tmp_path_factory.mktemp("fire")
    lease = {"lease_seconds = 30": f"lease_seconds = {LEASE_SECONDS}"}
    mesh = write_mesh(folder / "mesh.toml", changes=lease)
    plan = Plan.draw(int(os.environ.get("ATOLL_SEED", random.randrange(2**32))))
    say(f"seed {plan.seed} (ATOLL_SEED={plan.seed} repeats this plan)")
    with fleet(folder / "state", mesh) as shop:
        report = folder / "demo.txt"
        with report.open("w") as out:
            demo = subprocess.Popen(
                [str(LAUNCHER), "demo", str(real_orders), "--rate", str(RATE), "--state", str(shop.state)],
                cwd=REPOSITORY, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                under_fire(shop, plan, demo)
                code = demo.wait(timeout=180)
            finally:
                demo.kill()
                demo.wait()
        print(report.read_text()[-1200:])
        assert code == 0, f"the demo exited {code} (seed {plan.seed}):\n{report.read_text()[-3000:]}\n{shop.tails()}"
        yield shop, plan


def under_fire(shop: Fleet, plan: Plan, demo: subprocess.Popen[bytes]) -> None:
    """Carry out the plan while the demo runs."""
    ports = {name: int(part["port"]) for name, part in shop.status().items() if part["port"]}
    poll_until("the first orders", lambda: shop.call("GET", "/orders?limit=1").body["items"], seconds=60)
    for what, part in plan.steps:
        if what == "kill":
            kill(shop, plan, part, ports)
        else:
            stop(shop, plan, part)
        assert demo.poll() is None, f"the demo ended before the faults did (at {what} {part}): lower RATE"


def kill(shop: Fleet, plan: Plan, part: str, ports: dict[str, int]) -> None:
    """SIGKILL a part's process group, at work where that is asked for; wait until it is back."""
    pid = shop.pid(part)
    at_work = part in AT_WORK
    in_hand = wait_for_work(shop, part, ports, seconds=20) if at_work else ""
    shop.signal(part, signal.SIGKILL, pid)
    began = time.monotonic()
    if in_hand or not at_work:
        plan.counted[part] += 1
    if part == "agent":
        adopted = shop.up()  # what an operator does: the new agent adopts what runs
        plan.note(f"up again in {adopted.seconds:.1f} s: {adopted.output.strip()}")
    shop.wait_back(part, pid)
    plan.note(f"kill {part}: in hand: {in_hand or 'not asked'}; back after {time.monotonic() - began:.1f} s")


def stop(shop: Fleet, plan: Plan, part: str) -> None:
    """SIGSTOP a part for longer than its lease, then let it go on."""
    pid = shop.signal(part, signal.SIGSTOP)
    began = time.monotonic()
    time.sleep(LEASE_SECONDS * 1.25)  # the fault itself: nothing to wait for but the lease's end
    shop.signal(part, signal.SIGCONT, pid)
    plan.counted[f"{part} stopped"] += 1
    plan.note(f"stop {part}: {time.monotonic() - began:.1f} s (lease {LEASE_SECONDS} s)")


def test_enough_faults_hit_parts_at_work(burnt: tuple[Fleet, Plan]) -> None:
    _, plan = burnt
    say(f"seed {plan.seed}: {dict(plan.counted)}")
    short = {part: plan.counted[part] for part, wanted in AT_WORK.items() if plan.counted[part] < wanted}
    assert not short, f"too few kills with work in hand (seed {plan.seed}): {short}"
    assert all(plan.counted[part] for part in KILLED)
    assert all(plan.counted[f"{part} stopped"] for part in STOPPED)


def test_the_sums_are_the_files_to_the_penny(burnt: tuple[Fleet, Plan]) -> None:
    shop, plan = burnt
    shop.wait_settled()
    for pause in (0, 5):
        time.sleep(pause)  # again 5 s later: nothing may still be on its way
        total = shop.call("GET", "/sales?by=country").body["total"]
        found = (Decimal(total["revenue"]), total["units"], total["orders"])
        assert found == (invoices.REAL_REVENUE, invoices.REAL_UNITS, invoices.REAL_ORDERS), f"seed {plan.seed}"


def test_every_effect_happened_once(burnt: tuple[Fleet, Plan], real_orders: Path) -> None:
    shop, plan = burnt
    try:
        assert_books_balance(shop, invoices.read(real_orders))
    except AssertionError as error:
        raise AssertionError(f"seed {plan.seed}: {error}\n" + "\n".join(plan.log)) from error


def test_the_witness_saw_every_event_once_and_in_order(burnt: tuple[Fleet, Plan]) -> None:
    shop, plan = burnt
    try:
        count = assert_witness_is_complete(shop)
    except AssertionError as error:
        raise AssertionError(f"seed {plan.seed}: {error}\n" + "\n".join(plan.log)) from error
    say(f"the witness has all {count} events, each once, in order per key, its chain whole")


def test_every_part_is_up_again(burnt: tuple[Fleet, Plan]) -> None:
    shop, _ = burnt
    poll_until(
        "every part to be up",
        lambda: {name: part["state"] for name, part in shop.status().items() if name in PARTS},
        lambda states: set(states.values()) <= {"running", "degraded"},
        seconds=20,
    )
