"""The arithmetic of sales. Pure: no clock, no I/O.

A *document* is a confirmed order or a refunded return. It is split into what it adds to every row that it touches: one
row for all, one for its country, one for its day, one for each SKU in it. A return subtracts units and revenue and
counts as no order. Money is an `int` of ten-thousandths (2.55 is 25,500), so sums are exact.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

PLACES = 4
SCALE = 10_000  # 10 to the power of PLACES
_MONEY = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,4}))?", re.ASCII)


class Kind(StrEnum):
    ORDER = "order"
    RETURN = "return"


class Dimension(StrEnum):
    ALL = "all"
    COUNTRY = "country"
    DAY = "day"
    SKU = "sku"


@dataclass(frozen=True, slots=True)
class Figures:
    orders: int = 0
    units: int = 0
    revenue: int = 0  # ten-thousandths

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(self.orders + other.orders, self.units + other.units, self.revenue + other.revenue)


@dataclass(frozen=True, slots=True)
class Line:
    sku: str
    quantity: int  # positive, in a return too
    unit_price: int


@dataclass(frozen=True, slots=True)
class Document:
    kind: Kind
    id: str
    country: str
    placed_at: datetime
    lines: tuple[Line, ...]

    @property
    def day(self) -> str:
        """The UTC date on which it was placed, `2010-12-01`."""
        return self.placed_at.astimezone(UTC).date().isoformat()

    @property
    def figures(self) -> Figures:
        return self._figures(self.lines)

    def shares(self) -> Iterator[tuple[Dimension, str, Figures]]:
        """What it adds to each row: (dimension, key, figures)."""
        yield Dimension.ALL, "", self.figures
        yield Dimension.COUNTRY, self.country, self.figures
        yield Dimension.DAY, self.day, self.figures
        by_sku: dict[str, list[Line]] = {}
        for line in self.lines:
            by_sku.setdefault(line.sku, []).append(line)
        for sku, lines in by_sku.items():
            yield Dimension.SKU, sku, self._figures(lines)

    def _figures(self, lines: Sequence[Line]) -> Figures:
        sign = 1 if self.kind is Kind.ORDER else -1
        return Figures(
            orders=1 if self.kind is Kind.ORDER else 0,
            units=sign * sum(line.quantity for line in lines),
            revenue=sign * sum(line.quantity * line.unit_price for line in lines),
        )


def amount_of(text: str) -> int:
    """Ten-thousandths of a decimal string such as `2.55`. ValueError if it is none, negative or finer."""
    match = _MONEY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r}: expected a decimal of at most {PLACES} places, such as 2.55")
    fraction = str(match[2] or "").ljust(PLACES, "0")
    return int(match[1]) * SCALE + int(fraction)


def money(amount: int) -> str:
    """`amount` ten-thousandths as a decimal string with two to four places: `2.50`, `-0.0001`."""
    whole, fraction = divmod(abs(amount), SCALE)
    return f"{'-' if amount < 0 else ''}{whole}.{f'{fraction:04d}'.rstrip('0').ljust(2, '0')}"
