"""The rules of payments. Pure: no clock, no I/O. Money is an `int` of ten-thousandths (2.55 is 25,500).

What an order owes is learnt from one event and that it may be captured from another; a cancellation may come between
them, before them, or after the capture. The table below holds every such history, in any order and with repetitions:
an order is captured at most once, never after it was cancelled, and what was captured for a cancelled order is
refunded exactly once.
"""

import re
import uuid
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

PLACES = 4
SCALE = 10_000  # 10 to the power of PLACES
_MONEY = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,4}))?", re.ASCII)
_IDENTITY = uuid.UUID("8d5f4c7e-61b5-5d0b-9f43-2f7f8a3f9b21")  # must never change: ids are derived from it


class Status(StrEnum):
    """Where an order stands here."""

    DUE = "due"  # the amount is known, the stock is not reserved yet
    AWAITED = "awaited"  # the stock is reserved, the amount is not known yet
    CAPTURED = "captured"
    DECLINED = "declined"
    VOID = "void"  # cancelled before anything was captured: nothing ever will be
    REFUNDED = "refunded"


class Fact(StrEnum):
    PLACED = "placed"
    RESERVED = "reserved"
    CANCELLED = "cancelled"


class Step(StrEnum):
    """What is to be done with an order."""

    REMEMBER = "remember"  # its amount
    AWAIT = "await"  # its amount
    SETTLE = "settle"  # capture or decline
    VOID = "void"
    REFUND = "refund"


STEPS: Mapping[tuple[Status | None, Fact], Step] = MappingProxyType(
    {
        (None, Fact.PLACED): Step.REMEMBER,
        (None, Fact.RESERVED): Step.AWAIT,
        (None, Fact.CANCELLED): Step.VOID,
        (Status.DUE, Fact.RESERVED): Step.SETTLE,
        (Status.DUE, Fact.CANCELLED): Step.VOID,
        (Status.AWAITED, Fact.PLACED): Step.SETTLE,
        (Status.AWAITED, Fact.CANCELLED): Step.VOID,
        (Status.CAPTURED, Fact.CANCELLED): Step.REFUND,
    }
)


def step(status: Status | None, fact: Fact) -> Step | None:
    """What `fact` asks for of an order that stands at `status` (None: never heard of); None: nothing, it is late."""
    return STEPS.get((status, fact))


def settled(amount: int, decline_above: int | None) -> Status:
    """Whether `amount` is captured or declined. None as the limit declines nothing; the limit itself is captured."""
    return Status.DECLINED if decline_above is not None and amount > decline_above else Status.CAPTURED


def payment_id(order_id: str) -> str:
    """The same for the same order: a capture that is tried again is the same capture."""
    return str(uuid.uuid5(_IDENTITY, f"payment\n{order_id}"))


def refund_id(reference: str) -> str:
    """The same for the same order or return."""
    return str(uuid.uuid5(_IDENTITY, f"refund\n{reference}"))


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
