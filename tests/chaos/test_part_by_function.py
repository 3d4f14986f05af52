"""The table: which part is dead x which function must go on. The promise of the whole is the parameters."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from fleet import Fleet, fleet, http
from mail import mails
from polling import poll_until
from topology import LOOKERS, PARTS
from witness import assert_witness_is_complete, witnessed

UP = ("running", "degraded")
#: A function of the shop, tried while these parts are dead.
Check = Callable[[Fleet, Collection[str]], None]


def accepts_orders(shop: Fleet, _: Collection[str]) -> None:
    """An order is accepted (202): it is safe in orders' own database."""
    shop.place(f"table-{uuid4()}")


def confirms_orders(shop: Fleet, _: Collection[str]) -> None:
    """An order goes all the way."""
    shop.wait_order(shop.place(f"table-{uuid4()}"), "confirmed")


def reads_orders(shop: Fleet, _: Collection[str]) -> None:
    """The list of orders answers."""
    assert shop.call("GET", "/orders?limit=1").status == 200


def reads_stock(shop: Fleet, _: Collection[str]) -> None:
    """Stock answers."""
    assert shop.call("GET", "/stock/85123A").status == 200


def reads_sales(shop: Fleet, _: Collection[str]) -> None:
    """Sales answer."""
    assert shop.call("GET", "/sales?by=day").status == 200


def writes_mail(shop: Fleet, _: Collection[str]) -> None:
    """The customer of an order that ends is told."""
    order_id = shop.place(f"table-{uuid4()}")
    poll_until("its mail", lambda: len(mails(shop).get(order_id, [])), lambda count: count == 1, seconds=20)


def issues_tokens(shop: Fleet, _: Collection[str]) -> None:
    """Auth gives out a token."""
    shop.grant({"grant_type": "client_credentials"})


def shows_status(shop: Fleet, absent: Collection[str]) -> None:
    """The operator sees the state of every part: of those that are dead, and of all others."""
    gone = {"agent", "control"} if "ops" in absent else set(absent)
    others = {*PARTS, *(LOOKERS if shop.whole else ())} - gone
    poll_until(
        f"{', '.join(sorted(gone))} to be shown as gone and all others as up",
        lambda: {name: (part["state"], part["pid"]) for name, part in shop.status().items()},
        lambda seen: (
            all(seen[name][0] not in UP and seen[name][1] is None for name in gone)
            and all(seen[name][0] in UP and seen[name][1] for name in others)
        ),
        seconds=20,
    )


def survives_a_gateway_restart(shop: Fleet, _: Collection[str]) -> None:
    """A gateway that starts without bus and auth serves from the routes and keys that it kept on disk."""
    old = shop.signal("gateway", signal.SIGKILL)
    shop.wait_back("gateway", old)
    poll_until("stock to answer", lambda: shop.call("GET", "/stock/85123A").status, lambda s: s == 200, seconds=10)


#: dead part -> the functions that must go on without it
TABLE: dict[str, tuple[Check, ...]] = {
    "payments": (accepts_orders, reads_orders, reads_stock, reads_sales, issues_tokens, shows_status),
    "inventory": (accepts_orders, reads_orders, reads_sales, issues_tokens, shows_status),
    "sales": (accepts_orders, confirms_orders, reads_orders, reads_stock, writes_mail, issues_tokens, shows_status),
    "notifications": (accepts_orders, confirms_orders, reads_orders, reads_stock, reads_sales, issues_tokens,
                      shows_status),
    "journal": (accepts_orders, confirms_orders, reads_orders, reads_stock, reads_sales, writes_mail, issues_tokens,
                shows_status),
    "orders": (reads_stock, reads_sales, issues_tokens, shows_status),
    "auth": (accepts_orders, confirms_orders, reads_orders, reads_stock, reads_sales, writes_mail, shows_status,
             survives_a_gateway_restart),
    "broker": (accepts_orders, reads_orders, reads_stock, reads_sales, issues_tokens, shows_status,
               survives_a_gateway_restart),
    "ops": (accepts_orders, confirms_orders, reads_orders, reads_stock, reads_sales, writes_mail, issues_tokens,
            shows_status),
}  # fmt: skip


#: Parts through which people look and act. No function of the shop needs them: each row holds all of them at once.
WATCHERS = (*LOOKERS, "control")
BUSINESS: tuple[Check, ...] = (
    accepts_orders, confirms_orders, reads_orders, reads_stock, reads_sales, writes_mail, issues_tokens, shows_status,
)  # fmt: skip


@contextmanager
def dead(shop: Fleet, part: str) -> Iterator[None]:
    """Kill a part with SIGKILL and keep it down for the block."""
    if part == "ops":
        os.kill(shop.pid("agent"), signal.SIGKILL)
        os.kill(shop.pid("control"), signal.SIGKILL)
        try:
            yield
        finally:
            shop.up()
        return
    shop.signal(part, signal.SIGKILL)
    shop.atoll("stop", part)
    assert shop.status()[part]["pid"] is None
    try:
        yield
    finally:
        shop.atoll("start", part)
        poll_until(f"{part} to run", lambda: shop.status()[part]["state"], lambda s: s in UP, seconds=20)


@pytest.fixture(scope="class")
def let_die(shop: Fleet) -> Iterator[Callable[[str], None]]:
    """Ends a part for as long as the same one is asked for: it dies once a row, not once a cell."""
    now: list[str] = []
    with ExitStack() as held:

        def only(part: str) -> None:
            if now == [part]:
                return
            now.clear()
            held.close()  # the one before comes back
            # Issued before: a token outlives the death of auth. Auth itself may just have come back.
            poll_until("a token for the row", lambda: shop.token(fresh=True, seconds=300), seconds=20)
            held.enter_context(dead(shop, part))
            now.append(part)

        yield only


class TestWithoutThePart:
    """A class for its fixture alone."""

    @pytest.mark.parametrize(
        ("part", "function"),
        [
            pytest.param(part, check, id=f"{part}-{check.__name__}")
            for part, checks in TABLE.items()
            for check in checks
        ],
    )
    def test_the_function_goes_on(
        self, shop: Fleet, let_die: Callable[[str], None], part: str, function: Check
    ) -> None:
        let_die(part)
        function(shop, {part})


@pytest.fixture(scope="module")
def watched(jaeger_binary: Path) -> Iterator[Fleet]:
    """A whole system, with those who look at it."""
    with (
        tempfile.TemporaryDirectory(prefix="atoll-", ignore_cleanup_errors=True) as path,
        fleet(Path(path) / "state", whole=True) as running,
    ):
        yield running


@pytest.mark.parametrize("absent", [*((one,) for one in WATCHERS), WATCHERS], ids="-".join)
def test_nobody_needs_who_only_looks(watched: Fleet, absent: tuple[str, ...]) -> None:
    with ExitStack() as stack:
        for part in absent:
            stack.enter_context(dead(watched, part))
        for function in BUSINESS:
            function(watched, absent)


@pytest.mark.parametrize("part", WATCHERS)
def test_a_looker_killed_in_the_middle_delays_no_order(watched: Fleet, part: str) -> None:
    placed = [watched.place(f"looked-at-{uuid4()}") for _ in range(3)]
    old = watched.signal(part, signal.SIGKILL)
    placed += [watched.place(f"looked-at-{uuid4()}") for _ in range(3)]
    for order_id in placed:
        watched.wait_order(order_id, "confirmed")
    watched.wait_back(part, old)


@pytest.mark.parametrize("part", ["payments", "inventory", "broker", "sales", "notifications", "journal"])
def test_what_was_accepted_meanwhile_is_confirmed_afterwards(shop: Fleet, part: str) -> None:
    shop.token()
    with dead(shop, part):
        placed = [shop.place(f"meanwhile-{uuid4()}") for _ in range(5)]
    for order_id in placed:
        shop.wait_order(order_id, "confirmed", seconds=30)


def test_mails_of_the_meantime_come_afterwards(shop: Fleet) -> None:
    shop.token()
    with dead(shop, "notifications"):
        placed = [shop.place(f"unheard-{uuid4()}") for _ in range(5)]
        for order_id in placed:
            shop.wait_order(order_id, "confirmed")
        assert not set(placed) & set(mails(shop))
    poll_until("their mails", lambda: set(placed) <= set(mails(shop)), seconds=20)
    assert {len(mails(shop)[order_id]) for order_id in placed} == {1}


def test_the_witness_misses_nothing_of_the_meantime(shop: Fleet) -> None:
    shop.token()
    with dead(shop, "journal"):
        placed = [shop.place(f"unwitnessed-{uuid4()}") for _ in range(5)]
        for order_id in placed:
            shop.wait_order(order_id, "confirmed")
    shop.wait_settled()
    assert_witness_is_complete(shop)
    assert set(placed) <= {each.subject for each in witnessed(shop)}


def test_sagas_under_way_end_without_the_gateway(shop: Fleet) -> None:
    shop.atoll("pause", "payments")
    placed = [shop.place(f"no-gateway-{uuid4()}") for _ in range(3)]
    with dead(shop, "gateway"):
        shop.atoll("resume", "payments")
        shop.wait_settled()
        with shop.database("orders") as database:
            marks = ",".join("?" * len(placed))
            rows = database.execute(f"SELECT status FROM orders WHERE id IN ({marks})", placed).fetchall()
        assert [row["status"] for row in rows] == ["confirmed"] * len(placed)


def test_a_dead_part_is_named_to_the_client(shop: Fleet) -> None:
    """The control of this table: without the part its own function is gone, and the client is told which."""
    with dead(shop, "orders"):
        answer = shop.call("GET", "/orders?limit=1")
        assert answer.status in (502, 503)
        assert "orders" in answer.raw.decode()
        assert answer.headers["content-type"].startswith("application/problem+json")
    with dead(shop, "auth"):
        answer = http(
            "POST", f"{shop.gateway}/auth/token", data=b"grant_type=client_credentials",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )  # fmt: skip
        assert answer.status in (502, 503)
        assert "auth" in answer.raw.decode()
