"""What a mail says, to whom, and under which name. Pure: no clock, no I/O.

Everything that a client chose (customer, invoice, description) is untrusted text: here it becomes one line without
control characters, and an address of plain ASCII. `letter` then only has to put it into a message.

Money is an `int` of ten-thousandths (2.55 is 25,500), so a total is exact.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

PLACES = 4
SCALE = 10_000  # 10 to the power of PLACES
_MONEY = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,4}))?", re.ASCII)

CUSTOMER_DOMAIN = "customers.invalid"
GUEST = "guest"
LOCAL_PART_MAX = 64  # RFC 5321, 4.5.3.1.1
_PLAIN_LOCAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-")
_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", re.ASCII)

#: orders' codes in a customer's words; a code that is not here (orders may add) is told as it is.
REASONS = {
    "deadline": "it could not be completed in time",
    "payment_declined": "the payment was declined",
    "stock_rejected": "an item is out of stock",
}


@dataclass(frozen=True, slots=True)
class Line:
    sku: str
    description: str
    quantity: int
    unit_price: int

    @property
    def amount(self) -> int:
        return self.quantity * self.unit_price


@dataclass(frozen=True, slots=True)
class Confirmation:
    """An order that is a sale."""

    order_id: str
    invoice: str
    customer: str  # "" for a guest
    lines: tuple[Line, ...]
    total: int

    @property
    def subject(self) -> str:
        return f"Your order {one_line(self.invoice)} is confirmed"

    def text(self) -> Iterator[str]:
        """The body, line by line."""
        yield f"Your order {one_line(self.invoice)} is confirmed."
        yield ""
        for line in self.lines:
            description = one_line(line.description)
            yield f"{line.quantity} x {one_line(line.sku)}{': ' if description else ''}{description}"
            yield f"    at {money(line.unit_price)} = {money(line.amount)}"
        yield ""
        yield f"Total: {money(self.total)}"
        yield from _reference(self.order_id)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """An order that ended without a sale."""

    order_id: str
    invoice: str
    customer: str
    reason: str
    detail: str

    @property
    def subject(self) -> str:
        return f"Your order {one_line(self.invoice)} was cancelled"

    def text(self) -> Iterator[str]:
        """The body, line by line."""
        yield f"Your order {one_line(self.invoice)} was cancelled."
        yield ""
        yield f"Reason: {REASONS.get(self.reason, one_line(self.reason))}"
        if detail := one_line(self.detail):
            yield f"    {detail}"
        yield ""
        yield "Whatever was paid for it is given back."
        yield from _reference(self.order_id)


Notice = Confirmation | Cancellation


def _reference(order_id: str) -> Iterator[str]:
    yield ""
    yield f"Order number: {one_line(order_id)}"


def one_line(text: str) -> str:
    """`text` in one line: what could end a line, hide in it or turn it around becomes a space.

    Unicode's "other" (controls, formats such as right-to-left override, surrogates) and its line and paragraph
    separators. A header that is made of this can not be followed by another.
    """
    kept = "".join(" " if unicodedata.category(char)[0] == "C" or char in "\u2028\u2029" else char for char in text)
    return " ".join(kept.split())


def recipient(customer: str) -> str:
    """The customer's address. Whatever the customer is called, its local part is a dot-atom of at most 64 ASCII
    characters, and two names give two addresses: what is not plain is written as `=` and two hex digits a byte."""
    name = customer if customer.strip() else GUEST
    local = "".join(_local(name, position) for position in range(len(name)))
    if len(local) > LOCAL_PART_MAX:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
        local = f"{local[: LOCAL_PART_MAX - len(digest) - 1].rstrip('.')}={digest}"
    return f"{local}@{CUSTOMER_DOMAIN}"


def _local(name: str, position: int) -> str:
    char = name[position]
    inner_dot = char == "." and 0 < position < len(name) - 1 and name[position - 1] != "."
    if char in _PLAIN_LOCAL or inner_dot:
        return char
    return "".join(f"={byte:02X}" for byte in char.encode(errors="surrogatepass"))


def mail_name(event_id: str) -> str:
    """The mail's name in file names and Message-ID: the event's id, or its digest where that is no plain word.

    The same for the same event, so a mail that is written again takes its own place and adds none.
    """
    if _PLAIN_ID.fullmatch(event_id):
        return event_id
    return "x-" + hashlib.sha256(event_id.encode(errors="surrogatepass")).hexdigest()  # longer than any plain one


def amount_of(text: str) -> int:
    """Ten-thousandths of a decimal string such as `2.55`. ValueError if it is none, negative or finer."""
    match = _MONEY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r}: expected a decimal of at most {PLACES} places, such as 2.55")
    fraction = str(match[2] or "").ljust(PLACES, "0")
    return int(match[1]) * SCALE + int(fraction)


def money(amount: int) -> str:
    """`amount` ten-thousandths as a decimal string with two to four places: `2.50`, `0.0001`."""
    whole, fraction = divmod(amount, SCALE)
    return f"{whole}.{f'{fraction:04d}'.rstrip('0').ljust(2, '0')}"
