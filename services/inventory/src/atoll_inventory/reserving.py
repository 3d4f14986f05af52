"""What an order, a return or an adjustment does to the stock, and what is told of it. Each is one transaction."""

from collections.abc import Sequence
from dataclasses import replace

import atoll
from atoll_inventory import messages, store
from atoll_inventory.domain import Fact, Line, Movement, Status, first_overdraft, first_shortage, status_after


def reserve(tx: atoll.Transaction, order_id: str, lines: Sequence[Line], opening: int) -> None:
    """Sets all lines aside, or none: then `stock.rejected` names the first SKU that is short. An order that is
    already known, or was cancelled before, changes nothing."""
    status = store.status(tx, order_id)
    short = first_shortage(lines, store.available(tx, (line.sku for line in lines), opening))
    entered = status_after(status, Fact.PLACED_SHORT if short else Fact.PLACED_COVERED)
    if entered is None:
        return
    store.set_status(tx, order_id, status, entered)
    if short:
        tx.publish("inventory.stock.rejected.v1", order_id, messages.rejected(order_id, short))
        return
    store.move(tx, Movement.RESERVED, order_id, negated(lines), opening)
    tx.publish("inventory.stock.reserved.v1", order_id, messages.reserved(order_id, lines))


def release(tx: atoll.Transaction, order_id: str, opening: int) -> None:
    """Gives back what a cancelled order had set aside, once. One that had nothing is only marked."""
    status = store.status(tx, order_id)
    entered = status_after(status, Fact.CANCELLED)
    if entered is None:
        return
    store.set_status(tx, order_id, status, entered)
    if entered is not Status.RELEASED:
        return
    lines = negated(store.moved(tx, Movement.RESERVED, order_id))
    store.move(tx, Movement.RELEASED, order_id, lines, opening)
    tx.publish("inventory.stock.released.v1", order_id, messages.released(order_id, lines))


def restock(tx: atoll.Transaction, return_id: str, lines: Sequence[Line], opening: int) -> None:
    """Puts the goods of a return back, once."""
    if not store.moved(tx, Movement.RETURNED, return_id):
        store.move(tx, Movement.RETURNED, return_id, lines, opening)


class ReferenceTakenError(Exception):
    """The reference was used for other lines."""


class OverdraftError(Exception):
    """The line at `index` would take its SKU below zero."""

    def __init__(self, index: int, sku: str) -> None:
        super().__init__(f"line {index} takes {sku} below zero")
        self.index = index
        self.sku = sku


def adjust(tx: atoll.Transaction, reference: str, lines: Sequence[Line], opening: int) -> None:
    """Applies an adjustment once by its reference, or raises `ReferenceTakenError` or `OverdraftError`."""
    known = store.adjustment(tx, reference)
    if known is not None:
        if known != list(lines):
            raise ReferenceTakenError
        return
    over = first_overdraft(lines, store.available(tx, (line.sku for line in lines), opening))
    if over:
        raise OverdraftError(over.line - 1, over.sku)
    store.add_adjustment(tx, reference, lines)
    store.move(tx, Movement.ADJUSTED, reference, lines, opening)
    tx.publish("inventory.stock.adjusted.v1", reference, messages.adjusted(reference, lines))


def negated(lines: Sequence[Line]) -> list[Line]:
    return [replace(line, quantity=-line.quantity) for line in lines]
