"""A file in UCI Online Retail format, as requests: what to send where, and what should come of it.

An invoice whose number starts with C is a return; else one with a negative quantity is a write-off; else an order. Its
customer, country and time are its first line's. Sales are orders less returns, over exact decimals.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from atoll_ops.errors import OperationError

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
#: ISO 8601 first; then as the original spreadsheet writes it.
_DATE_FORMATS = ("%m/%d/%Y %H:%M", "%m/%d/%y %H:%M")
_WRITE_OFF_REASON = "write-off"
ORDER, RETURN, WRITE_OFF = "order", "return", "write-off"
_PATHS = {ORDER: "/orders", RETURN: "/returns", WRITE_OFF: "/stock/adjustments"}


@dataclass(frozen=True)
class Line:
    """One line of an invoice."""

    sku: str
    description: str | None
    quantity: int  # signed, as in the file
    unit_price: Decimal


@dataclass
class Invoice:
    """One invoice: its first line's customer, country and time, and all lines in the file's order."""

    number: str
    customer: str | None
    country: str
    placed_at: datetime
    lines: list[Line] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """order, return or write-off."""
        if self.number.startswith("C"):
            return RETURN
        return WRITE_OFF if any(line.quantity < 0 for line in self.lines) else ORDER

    @property
    def path(self) -> str:
        """Where it is posted to."""
        return _PATHS[self.kind]

    @property
    def body(self) -> dict[str, Any]:
        """What is posted: quantities of a return are positive there, those of a write-off signed."""
        if self.kind == WRITE_OFF:
            lines = [
                {"sku": one.sku, "quantity": one.quantity, "reason": one.description or _WRITE_OFF_REASON}
                for one in self.lines
            ]
            return {"reference": self.number, "lines": lines}
        sign = -1 if self.kind == RETURN else 1
        return {
            "invoice": self.number,
            "customer": self.customer,
            "country": self.country,
            "placed_at": self.placed_at.isoformat().replace("+00:00", "Z"),
            "lines": [
                {
                    "sku": one.sku,
                    "description": one.description,
                    "quantity": sign * one.quantity,
                    "unit_price": str(one.unit_price),
                }
                for one in self.lines
            ],
        }


@dataclass(frozen=True)
class Expected:
    """What the file itself says was sold."""

    orders: int
    returns: int
    write_offs: int
    units: int
    revenue: Decimal


def read(path: Path) -> list[Invoice]:
    """The file's invoices in the order of their first lines. Raises OperationError naming line and column."""
    try:
        return parse(_decoded(path.read_bytes()), str(path))
    except OSError as error:
        raise OperationError(f"{path}: {error.strerror}") from error


def parse(text: str, source: str) -> list[Invoice]:
    """The same of the file's text; `source` names it in errors."""
    reader = csv.DictReader(io.StringIO(text))
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise OperationError(f"{source}: no column {', '.join(missing)} (expected {', '.join(COLUMNS)})")
    invoices: dict[str, Invoice] = {}
    for row in reader:
        where = f"{source}: line {reader.line_num}"
        number = row["InvoiceNo"].strip()
        if number not in invoices:
            invoices[number] = _invoice(number, row, where)
        invoices[number].lines.append(_line(row, where))
    for invoice in invoices.values():
        if invoice.kind == RETURN and any(line.quantity > 0 for line in invoice.lines):
            raise OperationError(f"{source}: invoice {invoice.number} is a return with a positive quantity")
    return list(invoices.values())


def expected(invoices: list[Invoice]) -> Expected:
    """Sales over orders and returns; a return's quantities are negative in the file, so both are one sum."""
    sold = [line for invoice in invoices if invoice.kind != WRITE_OFF for line in invoice.lines]
    kinds = [invoice.kind for invoice in invoices]
    return Expected(
        orders=kinds.count(ORDER),
        returns=kinds.count(RETURN),
        write_offs=kinds.count(WRITE_OFF),
        units=sum(line.quantity for line in sold),
        revenue=sum((line.quantity * line.unit_price for line in sold), Decimal(0)),
    )


def _decoded(content: bytes) -> str:
    """UTF-8, else the Windows code page that the original is in."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _invoice(number: str, row: dict[str, str], where: str) -> Invoice:
    if not number:
        raise OperationError(f"{where}: InvoiceNo is empty")
    customer = row["CustomerID"].strip().removesuffix(".0") or None  # spreadsheets make numbers of them
    return Invoice(number, customer, row["Country"].strip(), _moment(row["InvoiceDate"].strip(), where))


def _line(row: dict[str, str], where: str) -> Line:
    try:
        quantity = int(row["Quantity"])
    except ValueError:
        raise OperationError(f"{where}: Quantity: expected a whole number, not {row['Quantity']!r}") from None
    try:
        price = Decimal(row["UnitPrice"].strip())
    except InvalidOperation:
        raise OperationError(f"{where}: UnitPrice: expected a decimal number, not {row['UnitPrice']!r}") from None
    return Line(row["StockCode"].strip(), row["Description"].strip() or None, quantity, price)


def _moment(text: str, where: str) -> datetime:
    for moment in _readings(text):
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    raise OperationError(f"{where}: InvoiceDate: expected 2010-12-01T08:26:00Z or 12/1/2010 8:26, not {text!r}")


def _readings(text: str) -> Iterator[datetime]:
    try:
        yield datetime.fromisoformat(text)
    except ValueError:
        for form in _DATE_FORMATS:
            try:
                yield datetime.strptime(text, form).replace(tzinfo=UTC)
            except ValueError:
                continue
