"""The whole shop on a disk that forgets: an order that was answered 202 is kept, and each of its effects happens once.

Every part loses its power at the same moment, at a write of any of their databases; the agent, which keeps nothing
there, starts them again.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import psutil
import pytest

import invoices
from fleet import Fleet, fleet, order, write_mesh
from history import assert_books_balance
from measured import say
from plug import Plug, forgetful_disk
from polling import poll_until
from rounds import PLANTED, SEED

pytest_plugins = ["power_fixtures"]

CUTS, ORDERS_A_CUT = 8, 12
_BACK_SECONDS_MAX = 30.0
#: What the books say of an orders database that fell back: orders that were taken are gone; others speak of orders that
#: it does not know; or its outbox begins again before what the broker has of it, and the relay stops rather than skip.
_ORDERS_ARE_LOST = "orders of another file, or missing ones|dead letters: .*'orders dead'|last seen: .*'orders outbox'"
#: The agent waits up to 30 s with a part that dies young again and again; one that lived so long is forgiven. A machine
#: that lost its power would have a new agent, which knows of no earlier deaths.
_FORGIVEN_AFTER_SECONDS = 5.0
_COLUMNS = (
    "InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country",
)  # fmt: skip


class Outlet:
    """Sets the trap, and plugs in again when all that was running is dead."""

    def __init__(self, shop: Fleet, plug: Plug) -> None:
        self.plug = plug
        self._shop = shop
        self._pids: list[int] = []

    def arm(self, point: str, count: int) -> None:
        """The power goes for every part at once."""
        parts = self._shop.status().items()
        self._pids = [part["pid"] for name, part in parts if name != "agent" and part["pid"]]
        self.plug.victims(self._pids)
        self.plug.arm(point, "-wal", count)

    def stumble(self, till: Till) -> None:
        """For one order every fsync fails, and every part that writes ends; then the disk is well again."""
        before = self.plug.status()["failed_syncs"]
        self.plug.fail_syncs("-wal")
        with suppress(AssertionError):
            till.take(seconds=3)
        self.plug.fail_syncs("")
        assert self.plug.status()["failed_syncs"] > before, "no fsync failed"

    def settle(self) -> None:
        """Until the agent has forgiven every part its last death: what comes next is its first."""
        poll_until("all to run and be forgiven", self._unforgiven, lambda parts: not parts, seconds=60, every=0.2)

    def _unforgiven(self) -> list[str]:
        parts = {name: part for name, part in self._shop.status().items() if name != "agent"}
        well = {name for name, part in parts.items() if (part["uptime_seconds"] or 0) > _FORGIVEN_AFTER_SECONDS}
        return [name for name, part in parts.items() if name not in well or part["state"] != "running"]

    def look(self) -> bool:
        """Is the trap still set? If it was sprung, the power is back now."""
        status = self.plug.status()
        if status["off"]:
            poll_until("everything to be dead", lambda: not any(map(psutil.pid_exists, self._pids)), seconds=20)
            self.plug.on()
        return bool(status["armed"])


class Till:
    """Places orders, each until it is answered 202, with the same body; knows which were."""

    def __init__(self, shop: Fleet, outlet: Outlet) -> None:
        self.taken: list[str] = []
        self.tries = 0
        self._shop = shop
        self._outlet = outlet

    def take(self, seconds: float = _BACK_SECONDS_MAX) -> None:
        """One more order; however often the shop falls over meanwhile."""
        invoice = f"P{len(self.taken) + 1}"
        try:
            poll_until(f"order {invoice} to be taken", lambda: self._place(invoice), seconds=seconds, every=0.1)
        except AssertionError as error:
            error.add_note(self._away())
            raise
        self.taken.append(invoice)

    def _place(self, invoice: str) -> bool:
        self.tries += 1
        self._outlet.look()
        token = self._shop.token()
        answer = self._shop.call("POST", "/orders", order(invoice, sku=f"S{len(invoice)}"), token=token, seconds=5)
        assert answer.status in (202, 429, 500, 502, 503, 504), f"{invoice}: {answer.status} {answer.raw!r}"
        return answer.status == 202

    def _away(self) -> str:
        """Which part is not running, and why."""
        parts = self._shop.status().items()
        return "not running: " + ", ".join(
            f"{name} ({part['state']}: {part['why']})" for name, part in parts if part["state"] != "running"
        )

    def book(self, path: Path) -> invoices.Book:
        """What was taken, as a file that the books are compared with."""
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(_COLUMNS)
            for invoice in self.taken:
                line = order(invoice, sku=f"S{len(invoice)}")["lines"][0]
                goods = (line["sku"], line["description"], line["quantity"])
                rows.writerow((invoice, *goods, "01/12/2010 08:26", line["unit_price"], "17850", "United Kingdom"))
        return invoices.read(path)


def test_an_order_that_was_taken_outlives_power_cuts_with_its_effects_once(
    state: Path, tmp_path: Path, python: Path
) -> None:
    dice, began = Random(SEED), time.monotonic()
    mesh = write_mesh(tmp_path / "mesh.toml", changes={"lease_seconds = 30": "lease_seconds = 2"})
    with shop_on_a_disk(state, mesh) as (shop, plug):
        outlet = Outlet(shop, plug)
        till = Till(shop, outlet)
        for number in range(CUTS):
            till.take()
            if number % 3 == 0:
                outlet.stumble(till)
            outlet.settle()
            point = dice.choice(("write", "write", "before-sync", "after-sync"))
            outlet.arm(point, dice.randint(20, 200) if point == "write" else dice.randint(3, 30))
            for _ in range(ORDERS_A_CUT):
                till.take()
            poll_until("the power to go and come back", lambda: not outlet.look(), seconds=20)
        status = plug.status()
        assert_books_balance(shop, till.book(tmp_path / "taken.csv"), settle_seconds=90)
    cuts = status["cuts"]
    hit = sorted({cut["file"].split("/")[2] for cut in cuts if cut["file"]})
    say(
        f"power cuts under the shop: {len(cuts)} (at a write of {', '.join(hit)}) and {status['failed_syncs']} failed"
        f" fsyncs, {len(till.taken)} orders taken in {till.tries} tries, each effect once"
        f" ({time.monotonic() - began:.0f} s, seed {SEED})"
    )
    assert len(cuts) == CUTS
    assert status["failed_syncs"] >= 3
    assert sum(cut["in_flight"] for cut in cuts) >= CUTS // 2
    assert len(till.taken) >= CUTS * ORDERS_A_CUT


def test_a_shop_whose_orders_are_not_flushed_is_caught(state: Path, tmp_path: Path, python: Path) -> None:
    """The control: with the fsync of orders' database turned off, the books can not balance."""
    mesh = write_mesh(
        tmp_path / "mesh.toml",
        settings={"orders": {"PYTHONPATH": str(PLANTED / "synchronous_off")}},
        changes={"lease_seconds = 30": "lease_seconds = 2"},
    )
    with shop_on_a_disk(state, mesh) as (shop, plug):
        outlet = Outlet(shop, plug)
        till = Till(shop, outlet)
        for _ in range(ORDERS_A_CUT):
            till.take()
        outlet.arm("write", 20)
        for _ in range(ORDERS_A_CUT):
            till.take()
        poll_until("the power to go and come back", lambda: not outlet.look(), seconds=20)
        assert plug.status()["cuts"], "the power never went"
        with pytest.raises(AssertionError, match=_ORDERS_ARE_LOST) as red:
            assert_books_balance(shop, till.book(tmp_path / "taken.csv"), settle_seconds=20)
    say(f"power cut under the shop, control (orders is not flushed): {str(red.value)[:120]}")


@contextmanager
def shop_on_a_disk(state: Path, mesh: Path) -> Iterator[tuple[Fleet, Plug]]:
    """A fleet whose parts keep their data on a disk that forgets."""
    state.mkdir(mode=0o700)
    with forgetful_disk(state.parent, SEED) as (disk, plug):
        (disk / "data").mkdir(mode=0o700)
        (state / "data").symlink_to(disk / "data")
        with fleet(state, mesh) as shop:
            yield shop, plug
