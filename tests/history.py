"""Do the books balance? Effects are counted in the databases that hold them; inbox rows count for nothing.

Every check is an assertion with both figures. The same function judges runs in peace, under fire and with planted
faults; the last must make it fail, or it proves nothing.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

from fleet import Fleet
from invoices import Book
from mail import mails, undelivered
from polling import poll_until
from witness import assert_witness_is_complete

#: Money in the databases is in ten-thousandths.
SCALE = 10_000


def captured(shop: Fleet, order_id: str) -> list[Decimal]:
    """Every capture of an order."""
    with shop.database("payments") as database:
        rows = database.execute("SELECT amount FROM payments WHERE order_id = ?", (order_id,)).fetchall()
    return [Decimal(row["amount"]) / SCALE for row in rows]


def refunded(shop: Fleet, reference: str) -> list[Decimal]:
    """Every refund of an order or a return."""
    with shop.database("payments") as database:
        rows = database.execute("SELECT amount FROM refunds WHERE reference = ?", (reference,)).fetchall()
    return [Decimal(row["amount"]) / SCALE for row in rows]


def assert_books_balance(shop: Fleet, book: Book, settle_seconds: float = 60) -> None:
    """Every invoice of `book` had each of its effects exactly once, and there is nothing else."""
    shop.wait_settled(settle_seconds)
    dead = {name: count for name, count in shop.lags().items() if name.endswith(" dead")}
    assert not dead, f"dead letters: {dead}"
    _assert_orders_are_final(shop, book)
    _assert_stock_moved_once_a_line(shop, book)
    _assert_money_moved_once(shop, book)
    _assert_sales_counted_once(shop, book)
    assert_one_mail_an_order(shop)
    assert_witness_is_complete(shop, seconds=5)  # no lag: it has acknowledged all, so it has all


def _assert_orders_are_final(shop: Fleet, book: Book) -> None:
    with shop.database("orders") as database:
        orders = {row["invoice"]: row["status"] for row in database.execute("SELECT invoice, status FROM orders")}
        returns = {row["invoice"]: row["status"] for row in database.execute("SELECT invoice, status FROM returns")}
        refused = database.execute("SELECT count(*) FROM atoll_outbox").fetchone()[0]
    assert refused == 0, f"{refused} events of orders never left its outbox"
    assert set(orders) == set(book.orders), "orders of another file, or missing ones"
    assert set(returns) == set(book.returns), "returns of another file, or missing ones"
    open_orders = {invoice: status for invoice, status in orders.items() if status != "confirmed"}
    assert not open_orders, f"not confirmed: {open_orders}"
    open_returns = {invoice: status for invoice, status in returns.items() if status != "refunded"}
    assert not open_returns, f"not refunded: {open_returns}"


def _assert_stock_moved_once_a_line(shop: Fleet, book: Book) -> None:
    wanted: dict[str, int] = defaultdict(int)
    for kind in (book.orders, book.returns, book.write_offs):
        for lines in kind.values():
            for row in lines:
                # An order's units leave the stock; a return's and a write-off's are negative in the file already:
                # the one comes back, the other is gone.
                gone = kind is book.write_offs
                wanted[row["StockCode"]] += int(row["Quantity"]) if gone else -int(row["Quantity"])
    with shop.database("inventory") as database:
        found = database.execute("SELECT sku, sum(quantity) AS moved, count(*) AS lines FROM movements GROUP BY sku")
        moved = {str(one["sku"]): (int(one["moved"]), int(one["lines"])) for one in found}
        off = database.execute(
            "SELECT sku, available FROM stock JOIN (SELECT sku, sum(quantity) AS moved FROM movements GROUP BY sku)"
            " USING (sku) WHERE available <> opening + moved"
        ).fetchall()
    movements = sum(count for _, count in moved.values())
    assert movements == book.lines(), f"{movements} stock movements for {book.lines()} lines"
    differ = {sku: (units, wanted[sku]) for sku, (units, _) in moved.items() if units != wanted[sku]}
    assert not differ, f"stock moved, should have moved: {differ}"
    assert not off, f"stock is not its opening plus its movements: {[tuple(row) for row in off]}"


def _assert_money_moved_once(shop: Fleet, book: Book) -> None:
    with shop.database("orders") as database:
        confirmed = dict(database.execute("SELECT id, total FROM orders WHERE status = 'confirmed'").fetchall())
        returned = dict(database.execute("SELECT id, total FROM returns").fetchall())
    with shop.database("payments") as database:
        payments = database.execute("SELECT order_id, amount FROM payments").fetchall()
        refunds = database.execute("SELECT reference, amount FROM refunds").fetchall()
    assert len(payments) == len(confirmed), f"{len(payments)} captures for {len(confirmed)} confirmed orders"
    assert {row["order_id"]: row["amount"] for row in payments} == confirmed
    assert len(refunds) == len(returned), f"{len(refunds)} refunds for {len(returned)} returns"
    assert {row["reference"]: row["amount"] for row in refunds} == returned
    net = Decimal(sum(row["amount"] for row in payments) - sum(row["amount"] for row in refunds)) / SCALE
    assert net == book.sums("total")[""].revenue, f"captures less refunds: {net}"


def _assert_sales_counted_once(shop: Fleet, book: Book) -> None:
    with shop.database("sales") as database:
        counted = database.execute("SELECT id, count(*) AS times FROM documents GROUP BY id").fetchall()
    twice = [row["id"] for row in counted if row["times"] != 1]
    assert not twice, f"sales counted more than once: {twice}"
    wanted_count = len(book.orders) + len(book.returns)
    assert len(counted) == wanted_count, f"sales counted {len(counted)} orders and returns of {wanted_count}"
    total = shop.call("GET", "/sales?by=country").body["total"]
    wanted = book.sums("total")[""]
    found = (Decimal(total["revenue"]), total["units"], total["orders"])
    assert found == (wanted.revenue, wanted.units, len(wanted.orders)), f"/sales says {found}"


def assert_one_mail_an_order(shop: Fleet) -> None:
    """The maildir holds one mail for each order that has ended, and none else."""
    poll_until("every mail to be delivered", lambda: undelivered(shop), lambda left: left == 0, seconds=30)
    with shop.database("orders") as database:
        rows = database.execute("SELECT id FROM orders WHERE status IN ('confirmed', 'cancelled')").fetchall()
    found = mails(shop)
    several = {order_id: len(each) for order_id, each in found.items() if len(each) != 1}
    assert not several, f"orders with more than one mail: {several}"
    missing, strange = {row["id"] for row in rows} - set(found), set(found) - {row["id"] for row in rows}
    assert not missing, f"orders without a mail: {missing}"
    assert not strange, f"mails of no such order: {strange}"
