"""Can the checker fail? Five faults are planted in real processes, and each must turn the books red.

The last run plants nothing, under the same load and signals, and must stay green: the control of the controls.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

import invoices
from fleet import LAUNCHER, REPOSITORY, Fleet, fleet, write_mesh
from history import assert_books_balance
from measured import say
from polling import poll_until

PLANTED = Path(__file__).parent / "planted"
LEASE_SECONDS = 2
INVOICES = 100
RATE = 6
#: The books must stay red for so long after all has settled.
RED_SECONDS = 5
LATE_SECONDS = 0.75
AT_WORK_KILLS, AT_WORK_ORDERS = 2, 6
#: What each planted fault does to the books, in the words of history.py. Anything else that is red is no sign of it: a
#: shop that does not settle above all.
SIGNS = {
    "inbox_off": r"dead letters: .*'sales dead'",  # counted twice: sales' own second guard rejects it, for all to see
    "ack_before_commit": r"not confirmed: |not refunded: ",
    # Whatever the event was that nobody sent: an order placed, a return received, one refunded, an order confirmed.
    "relay_skips": (
        r"not confirmed: |not refunded: |\d+ stock movements for |sales counted \d+ |orders without a mail: "
    ),
    "mail_lost": r"orders without a mail: ",
    # All groups have acknowledged all, so it is not that the journal is slow.
    "witness_forgets": r"waited \d+ s for the journal to catch up",
}


#: A relay that finds that it left something out stops loudly, and its outbox stays full.
UNSETTLED = {"relay_skips": r"last seen: \{[^}]*'orders outbox'"}


def under_signals(shop: Fleet, file: Path, part: str) -> None:
    """The load of `file`, while `part` is killed twice at work, and twice more after a stop past its lease."""
    demo = subprocess.Popen(
        [str(LAUNCHER), "demo", str(file), "--rate", str(RATE), "--state", str(shop.state)],
        cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    wanted = len(invoices.read(file).orders)
    try:
        poll_until("the first orders", lambda: shop.call("GET", "/orders?limit=1").body["items"], seconds=60)
        # At work, before any stop: after a stop past the lease its acks are stale, and nothing is lost by them.
        for _ in range(AT_WORK_KILLS):
            upto = min(accepted(shop) + AT_WORK_ORDERS, wanted)
            poll_until("orders under way", lambda: accepted(shop), upto.__le__, seconds=60)
            shop.wait_back(part, shop.signal(part, signal.SIGKILL))
        for stops in range(2):
            poll_until(f"{part} to be on the bus", lambda: shop.seen()[part]["state"], "running".__eq__, seconds=20)
            assert stops or accepted(shop) < wanted, "the load is over: a stop of who has nothing to do proves nothing"
            pid = shop.signal(part, signal.SIGSTOP)
            time.sleep(LEASE_SECONDS * 1.25)  # the fault itself
            shop.signal(part, signal.SIGCONT, pid)
            time.sleep(LATE_SECONDS)  # the fault too: it goes on with what it holds, under leases that are over
            shop.wait_back(part, shop.signal(part, signal.SIGKILL))
        poll_until("all orders to be sent", lambda: accepted(shop), lambda orders: orders == wanted, seconds=60)
    finally:
        demo.terminate()  # with a planted fault the sagas do not end, and the demo would wait for them
        demo.wait(timeout=30)


def balanced(shop: Fleet, file: Path) -> bool:
    """True, or an AssertionError that says what is wrong."""
    assert_books_balance(shop, invoices.read(file), settle_seconds=20)
    return True


def does_not_settle(shop: Fleet, fault: str) -> str | None:
    """Why, where that is a sign of this fault; None if it has settled. Raises AssertionError for any other reason."""
    try:
        shop.wait_settled(30)
    except AssertionError as error:
        if fault in UNSETTLED and re.search(UNSETTLED[fault], str(error)):
            return str(error)
        raise
    return None


def accepted(shop: Fleet) -> int:
    """Orders that the shop has taken."""
    with shop.database("orders") as database:
        return int(database.execute("SELECT count(*) FROM orders").fetchone()[0])


@pytest.mark.parametrize(
    ("fault", "part"),
    [("inbox_off", "sales"), ("ack_before_commit", "payments"), ("relay_skips", "orders"),
     ("mail_lost", "notifications"), ("witness_forgets", "journal"), ("", "payments")],
    ids=["inbox off", "ack before commit", "a relay that skips", "a mail that is lost", "a witness that forgets",
         "nothing planted"],
)  # fmt: skip
def test_a_planted_fault_turns_the_books_red(
    state: Path, tmp_path: Path, real_orders: Path, fault: str, part: str
) -> None:
    file = invoices.write(tmp_path / "some.csv", real_orders, INVOICES)
    settings = {part: {"PYTHONPATH": str(PLANTED / fault)}} if fault else None
    mesh = write_mesh(
        tmp_path / "mesh.toml", settings=settings, changes={"lease_seconds = 30": f"lease_seconds = {LEASE_SECONDS}"}
    )
    with fleet(state, mesh) as shop:
        under_signals(shop, file, part)
        if not fault:
            assert_books_balance(shop, invoices.read(file))
            return
        if (stuck := does_not_settle(shop, fault)) is not None:
            say(f"{fault} in {part}: {stuck[:300]}")
            return
        sign = f"last seen: AssertionError: (?:{SIGNS[fault]})"
        with pytest.raises(AssertionError, match=sign) as red:  # red for good, not only until something slow has ended
            poll_until("the books to balance", lambda: balanced(shop, file), seconds=RED_SECONDS, every=1)
        say(f"{fault} in {part}: {str(red.value)[:300]}")
