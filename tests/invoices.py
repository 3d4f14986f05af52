"""The shop's file read by the test's own few lines, independent of the product's."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
#: Real orders of 1 and 2 December 2010; lies beside the repository, never in it.
REAL = REPOSITORY.parent / "shared" / "data" / "online-retail-2010-12-01.csv"

#: The literals that the file is known by.
REAL_REVENUE = Decimal("104842.84")
REAL_UNITS = 47885
REAL_REVENUE_BY_DAY = {"2010-12-01": Decimal("58635.56"), "2010-12-02": Decimal("46207.28")}
REAL_ORDERS, REAL_RETURNS, REAL_WRITE_OFFS = 279, 29, 2


@dataclass
class Sums:
    """Sales of a file: orders less returns. Keys as `/sales` answers them."""

    revenue: Decimal = Decimal(0)
    units: int = 0
    orders: set[str] = field(default_factory=set)


@dataclass
class Book:
    """One file of invoices, sorted into orders, returns and write-offs (invoice number -> its rows)."""

    orders: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    returns: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    write_offs: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def lines(self) -> int:
        """Lines of all invoices: each moves stock once."""
        return sum(len(rows) for kind in (self.orders, self.returns, self.write_offs) for rows in kind.values())

    def sums(self, by: str) -> dict[str, Sums]:
        """Sums by `country`, `day`, `sku` or `total` (key ""). An invoice's country and time are its first line's."""
        found: dict[str, Sums] = defaultdict(Sums)
        for kind in (self.orders, self.returns):
            for invoice, rows in kind.items():
                for row in rows:
                    key = {
                        "country": rows[0]["Country"],
                        "day": rows[0]["InvoiceDate"][:10],
                        "sku": row["StockCode"],
                        "total": "",
                    }[by]
                    units = int(row["Quantity"])  # a return's are negative in the file already
                    found[key].units += units
                    found[key].revenue += units * Decimal(row["UnitPrice"])
                    if kind is self.orders:
                        found[key].orders.add(invoice)
        return dict(found)


def read(path: Path) -> Book:
    """Sort the invoices of a UCI Online Retail file by the rules of the demo's world."""
    invoices: dict[str, list[dict[str, str]]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            invoices[row["InvoiceNo"]].append(row)
    book = Book()
    for invoice, rows in invoices.items():
        if invoice.startswith("C"):
            book.returns[invoice] = rows
        elif any(int(row["Quantity"]) < 0 for row in rows):
            book.write_offs[invoice] = rows
        else:
            book.orders[invoice] = rows
    return book


def write(path: Path, source: Path, invoices: int) -> Path:
    """Write the first `invoices` invoices of `source` to `path`: the same world, smaller."""
    kept: dict[str, None] = {}
    with source.open(newline="", encoding="utf-8") as stream, path.open("w", newline="", encoding="utf-8") as out:
        reader = csv.DictReader(stream)
        writer = csv.DictWriter(out, reader.fieldnames or [])
        writer.writeheader()
        for row in reader:
            if row["InvoiceNo"] in kept or len(kept) < invoices:
                kept[row["InvoiceNo"]] = None
                writer.writerow(row)
    return path
