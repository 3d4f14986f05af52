"""The demo's load for as long as a test needs it: `./atoll demo` at a steady rate, behind the tests' backs.

The services know an invoice that they have seen, so each round sends the same file under other invoice numbers.
"""

from __future__ import annotations

import csv
import subprocess
import threading
from pathlib import Path

from fleet import LAUNCHER, REPOSITORY, Fleet
from invoices import REAL

SAMPLE = REPOSITORY / "ops" / "src" / "atoll_ops" / "sample.csv"
_LINES_MAX = 20  # of one invoice: the real file has some of several hundred, which would come in bursts


class Load:
    """Orders through the gateway, `rate` a second, from `start` until `stop`; never more than `rounds_max` files."""

    def __init__(self, shop: Fleet, folder: Path, *, rate: float = 3.0, rounds_max: int = 50) -> None:
        self._shop = shop
        self._folder = folder
        self._rate = rate
        self._rounds_max = rounds_max
        self._over = threading.Event()
        self._demo: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End at once; what was accepted is still settled by the services."""
        self._over.set()
        if self._demo is not None and self._demo.poll() is None:
            self._demo.terminate()
        self._thread.join(30)

    def _run(self) -> None:
        for number in range(self._rounds_max):
            if self._over.is_set():
                return
            file = _renumbered(REAL if REAL.exists() else SAMPLE, self._folder / f"load-{number}.csv", number)
            command = [str(LAUNCHER), "demo", str(file), "--rate", str(self._rate), "--state", str(self._shop.state)]
            with (self._folder / "load.log").open("a") as log:
                self._demo = subprocess.Popen(
                    command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True
                )
                self._demo.wait()
            self._over.wait(0.5)  # a gateway that is away for good would be asked by a new demo at once, for ever


def _renumbered(source: Path, target: Path, number: int) -> Path:
    """The file's sales with `-number` after each invoice's, and no invoice longer than the bound."""
    seen: dict[str, int] = {}
    with source.open(newline="", encoding="utf-8") as stream, target.open("w", newline="", encoding="utf-8") as out:
        reader = csv.DictReader(stream)
        writer = csv.DictWriter(out, reader.fieldnames or [])
        writer.writeheader()
        for row in reader:
            invoice = row["InvoiceNo"]
            if invoice.startswith("C"):
                continue  # a demo asks for every return at its end: in that second nothing else is traced or listed
            seen[invoice] = seen.get(invoice, 0) + 1
            if seen[invoice] <= _LINES_MAX:
                writer.writerow(row | {"InvoiceNo": f"{invoice}-{number}"})
    return target
