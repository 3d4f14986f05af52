"""The rules of orders and returns: what a client may ask for, and what may become of it. Pure: no clock, no I/O.

Money is an `int` of ten-thousandths (2.55 is 25,500) from the moment that it is read until it is written again:
integers add up exactly, and a price has at most four places.

An order moves as the table `TRANSITIONS` says and in no other way. What the table does not hold is not an error but
*late*: the bus delivers at least once, and the deadline races the saga, so a fact may arrive when its order has
already gone another way.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

LINES_MAX = 10_000
QUANTITY_MAX = 1_000_000
INVOICE_LENGTH_MAX = 64
CUSTOMER_LENGTH_MAX = 64
COUNTRY_LENGTH_MAX = 64
DESCRIPTION_LENGTH_MAX = 256

PLACES = 4
SCALE = 10_000  # 10 to the power of PLACES
UNIT_PRICE_MAX = 10**9 * SCALE
TOTAL_MAX = 10**14 * SCALE  # below 2**63: SQLite goes on in floating point beyond, without a word

SKU = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,31}")
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_DECIMAL_LENGTH_MAX = 32  # longer is no price; and no text is turned into digits before its length is known
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_IDENTITY = uuid.UUID("5e0a3c1c-2f0e-5a53-9c0f-7d0f1c6f4f10")  # must never change: ids are derived from it


class InvalidError(Exception):
    """What the client asked for breaks a rule. `field` is its JSON path, `reason` what was expected."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Kind(StrEnum):
    ORDER = "order"
    RETURN = "return"


class Status(StrEnum):
    PLACED = "placed"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"
    RECEIVED = "received"
    REFUNDED = "refunded"


class Fact(StrEnum):
    """What happens to an order or a return after it was accepted."""

    STOCK_REJECTED = "stock_rejected"
    PAYMENT_CAPTURED = "payment_captured"
    PAYMENT_DECLINED = "payment_declined"
    DEADLINE = "deadline"
    RETURN_REFUNDED = "return_refunded"


FIRST: Mapping[Kind, Status] = MappingProxyType({Kind.ORDER: Status.PLACED, Kind.RETURN: Status.RECEIVED})

STATUSES: Mapping[Kind, tuple[Status, ...]] = MappingProxyType(
    {
        Kind.ORDER: (Status.PLACED, Status.CONFIRMED, Status.CANCELLED),
        Kind.RETURN: (Status.RECEIVED, Status.REFUNDED),
    }
)

TRANSITIONS: Mapping[tuple[Status, Fact], Status] = MappingProxyType(
    {
        (Status.PLACED, Fact.PAYMENT_CAPTURED): Status.CONFIRMED,
        (Status.PLACED, Fact.STOCK_REJECTED): Status.CANCELLED,
        (Status.PLACED, Fact.PAYMENT_DECLINED): Status.CANCELLED,
        (Status.PLACED, Fact.DEADLINE): Status.CANCELLED,
        (Status.RECEIVED, Fact.RETURN_REFUNDED): Status.REFUNDED,
    }
)


def status_after(status: Status, fact: Fact) -> Status | None:
    """Where `fact` leads from `status`; None if it comes too late to matter, or a second time."""
    return TRANSITIONS.get((status, fact))


@dataclass(frozen=True, slots=True)
class Line:
    line: int  # 1, 2, …: a repeated SKU is two lines, so the SKU does not identify one
    sku: str
    description: str | None
    quantity: int
    unit_price: int  # ten-thousandths

    @property
    def amount(self) -> int:
        return self.quantity * self.unit_price


@dataclass(frozen=True, slots=True)
class Invoice:
    """What a client sent in, as an order or as a return. Two are equal when the client said the same thing twice."""

    kind: Kind
    owner: str  # the `sub` of the token
    invoice: str
    customer: str | None
    country: str
    placed_at: datetime  # UTC
    lines: tuple[Line, ...]

    @property
    def id(self) -> str:
        """The same for the same invoice of the same owner, so a request that is sent again cannot make a second
        order, not even into a database that was restored from before the first."""
        return str(uuid.uuid5(_IDENTITY, "\n".join((self.kind, self.invoice, self.owner))))

    @property
    def total(self) -> int:
        return sum(line.amount for line in self.lines)

    @property
    def units(self) -> int:
        return sum(line.quantity for line in self.lines)


def check_invoice(invoice: Invoice) -> Invoice:
    """The invoice, if it keeps the rules that its types do not state. Raises `InvalidError` for the first it breaks."""
    check_text("invoice", invoice.invoice, INVOICE_LENGTH_MAX, empty=False)
    check_text("customer", invoice.customer or "", CUSTOMER_LENGTH_MAX, empty=True)
    check_text("country", invoice.country, COUNTRY_LENGTH_MAX, empty=False)
    if not 1 <= len(invoice.lines) <= LINES_MAX:
        raise InvalidError("lines", f"expected 1 to {LINES_MAX:,} lines")
    for index, line in enumerate(invoice.lines):
        check_line(f"lines[{index}]", line)
    if invoice.total > TOTAL_MAX:
        raise InvalidError("lines", f"expected a total of at most {money(TOTAL_MAX)}")
    return invoice


def check_line(path: str, line: Line) -> None:
    if not SKU.fullmatch(line.sku):
        raise InvalidError(f"{path}.sku", f"expected a text that matches {SKU.pattern}")
    if not 1 <= line.quantity <= QUANTITY_MAX:
        raise InvalidError(f"{path}.quantity", f"expected a whole number from 1 to {QUANTITY_MAX:,}")
    if len(line.description or "") > DESCRIPTION_LENGTH_MAX:
        raise InvalidError(f"{path}.description", f"expected at most {DESCRIPTION_LENGTH_MAX} characters")


def check_text(field: str, text: str, length_max: int, *, empty: bool) -> None:
    """Refuses control characters too: these texts end up in mails, logs and tables of other services."""
    if (not empty and not text.strip()) or len(text) > length_max or _CONTROL.search(text):
        raise InvalidError(field, f"expected {0 if empty else 1} to {length_max} characters, no control characters")


def utc(field: str, moment: datetime) -> datetime:
    """`moment`, which has an offset, in UTC. Raises `InvalidError` where UTC leaves the calendar (year 1 or 9999)."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidError(field, "expected a time from year 1 to 9999 in UTC") from None


def unit_price(field: str, text: str) -> int:
    """Ten-thousandths of the decimal number in `text`, read exactly. `1e2` is 100; five places are refused even if
    the last is 0, or two readers could disagree on what was promised. Raises `InvalidError`."""
    if len(text) > _DECIMAL_LENGTH_MAX or not _DECIMAL.fullmatch(text):
        raise InvalidError(field, "expected a decimal number, as a number or a string, such as 2.55")
    number = Decimal(text)
    if number.as_tuple().exponent < -PLACES:  # type: ignore[operator]  # a letter for NaN and Infinity only
        raise InvalidError(field, f"expected at most {PLACES} decimal places")
    if not 0 <= number <= UNIT_PRICE_MAX // SCALE:
        raise InvalidError(field, f"expected 0 to {money(UNIT_PRICE_MAX)}")
    return int(number * SCALE)  # exact: 14 digits of the 28 that decimal arithmetic keeps


def money(amount: int) -> str:
    """`amount` ten-thousandths as a decimal string with two to four places: `2.50`, `0.0001`."""
    whole, fraction = divmod(amount, SCALE)
    return f"{whole}.{f'{fraction:04d}'.rstrip('0').ljust(2, '0')}"
