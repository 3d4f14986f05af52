"""The rules of stock. Pure: no clock, no I/O.

Every unit that comes or goes is a *movement*, and what is available is the opening stock plus all movements. An order
takes all of its lines or none. What became of an order is remembered whether or not it took anything, so that each of
its events counts once, in whatever order they arrive: a cancellation that comes first leaves a mark that keeps the
order from ever taking stock.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

QUANTITY_MAX = 1_000_000
ADJUSTMENT_MAX = 1_000_000_000
ADJUSTMENT_LINES_MAX = 1_000
OPENING_MAX = 1_000_000_000
REFERENCE_LENGTH_MAX = 64
REASON_LENGTH_MAX = 120

SKU = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,31}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class InvalidError(Exception):
    """What the client asked for breaks a rule. `field` is its JSON path, `reason` what was expected."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Movement(StrEnum):
    RESERVED = "reserved"  # −, one an order line
    RELEASED = "released"  # +, one an order line that had been reserved
    RETURNED = "returned"  # +, one a return line
    ADJUSTED = "adjusted"  # signed, one an adjustment line


class Status(StrEnum):
    """Where an order stands here."""

    RESERVED = "reserved"
    REJECTED = "rejected"
    RELEASED = "released"
    VOID = "void"  # cancelled before it was placed here: takes nothing, ever


class Fact(StrEnum):
    PLACED_COVERED = "placed_covered"
    PLACED_SHORT = "placed_short"
    CANCELLED = "cancelled"


TRANSITIONS: Mapping[tuple[Status | None, Fact], Status] = MappingProxyType(
    {
        (None, Fact.PLACED_COVERED): Status.RESERVED,
        (None, Fact.PLACED_SHORT): Status.REJECTED,
        (None, Fact.CANCELLED): Status.VOID,
        (Status.RESERVED, Fact.CANCELLED): Status.RELEASED,
    }
)


def status_after(status: Status | None, fact: Fact) -> Status | None:
    """Where `fact` leads an order that stands at `status` (None: never heard of); None if it changes nothing."""
    return TRANSITIONS.get((status, fact))


@dataclass(frozen=True, slots=True)
class Line:
    """`quantity` is signed where the line is an adjustment's, else positive."""

    line: int
    sku: str
    quantity: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Shortage:
    sku: str
    wanted: int  # of this SKU by the whole order: it may stand in several lines
    available: int


def first_shortage(lines: Sequence[Line], available: Mapping[str, int]) -> Shortage | None:
    """The first SKU, in the order of the lines, of which there is less than all the lines want together."""
    wanted: Counter[str] = Counter()
    for line in lines:
        wanted[line.sku] += line.quantity
    for sku, quantity in wanted.items():
        if quantity > available[sku]:
            return Shortage(sku, quantity, available[sku])
    return None


def first_overdraft(lines: Sequence[Line], available: Mapping[str, int]) -> Line | None:
    """The first line that takes its SKU below zero when the lines are applied one after the other."""
    left = dict(available)
    for line in lines:
        left[line.sku] += line.quantity
        if left[line.sku] < 0:
            return line
    return None


def check_adjustment(reference: str, lines: Sequence[Line]) -> None:
    """Raises `InvalidError` for the first rule that an adjustment breaks."""
    check_text("reference", reference, REFERENCE_LENGTH_MAX)
    if not 1 <= len(lines) <= ADJUSTMENT_LINES_MAX:
        raise InvalidError("lines", f"expected 1 to {ADJUSTMENT_LINES_MAX:,} lines")
    for index, line in enumerate(lines):
        if not SKU.fullmatch(line.sku):
            raise InvalidError(f"lines[{index}].sku", f"expected a text that matches {SKU.pattern}")
        if line.quantity == 0 or abs(line.quantity) > ADJUSTMENT_MAX:
            raise InvalidError(
                f"lines[{index}].quantity", f"expected a whole number, not 0, of at most ±{ADJUSTMENT_MAX:,}"
            )
        check_text(f"lines[{index}].reason", line.reason or "", REASON_LENGTH_MAX)


def check_text(field: str, text: str, length_max: int) -> None:
    if not text.strip() or len(text) > length_max or _CONTROL.search(text):
        raise InvalidError(field, f"expected 1 to {length_max} characters, no control characters")
