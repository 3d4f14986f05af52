"""One mail an order that has ended, through a real fleet: in peace, and with the service and the mail server killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

import invoices
from fleet import LAUNCHER, REPOSITORY, Fleet, fleet, order, write_mesh
from mail import mails, undelivered
from measured import say
from polling import poll_until

DECLINE_ABOVE = 1000
INVOICES = 40
RATE = 6
MAIL_SECONDS = 2.0


class Sink:
    """The mail server of tests/smtp_sink.py, on a port of its own that it keeps."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "taken"
        self.file.touch()
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        sink = REPOSITORY / "tests" / "smtp_sink.py"
        self._process = subprocess.Popen(
            [sys.executable, str(sink), str(self.port), str(self.file)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def taken(self) -> Counter[str]:
        """Message-IDs, each with how often it came."""
        return Counter(self.file.read_text().splitlines())


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    server = Sink(tmp_path_factory.mktemp("sink"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def post(sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A system that sends by SMTP too, and declines what is above 1000."""
    folder = tmp_path_factory.mktemp("post")
    settings = {
        "payments": {"PAYMENTS_DECLINE_ABOVE": str(DECLINE_ABOVE)},
        "notifications": {"NOTIFICATIONS_SMTP": f"127.0.0.1:{sink.port}"},
    }
    with fleet(folder / "state", write_mesh(folder / "mesh.toml", settings=settings)) as running:
        yield running


def settled_mails(shop: Fleet) -> dict[str, int]:
    """Mails by order, once nothing is on its way."""
    shop.wait_settled()
    poll_until("every mail to be delivered", lambda: undelivered(shop), lambda left: left == 0, seconds=60)
    return {order_id: len(found) for order_id, found in mails(shop).items()}


def wait_for_mails(shop: Fleet, count: int) -> None:
    poll_until(f"{count} mails", lambda: len(mails(shop)), lambda seen: seen >= count, seconds=60)


def test_a_confirmed_order_is_told_once(post: Fleet, sink: Sink) -> None:
    order_id = post.place(f"mail-{uuid4()}", quantity=6, price="2.55", lines=2)
    post.wait_order(order_id, "confirmed")
    [message] = poll_until("its mail", lambda: mails(post).get(order_id, []), seconds=3 * MAIL_SECONDS)
    assert message["To"] == "17850@customers.invalid"
    text = message.get_content()
    assert text.count("6 x 85123A: WHITE HANGING HEART T-LIGHT HOLDER") == 2
    assert "Total: 30.60" in text
    poll_until("the mail at the server", lambda: sink.taken()[str(message["Message-ID"])] == 1, seconds=10)


def test_a_cancelled_order_is_told_once_and_why(post: Fleet) -> None:
    order_id = post.place(f"mail-{uuid4()}", quantity=1, price=str(DECLINE_ABOVE + 1))
    post.wait_order(order_id, "cancelled")
    [message] = poll_until("its mail", lambda: mails(post).get(order_id, []), seconds=3 * MAIL_SECONDS)
    assert "was cancelled" in message["Subject"]
    assert "Reason: the payment was declined" in message.get_content()


def test_a_return_has_no_mail(post: Fleet) -> None:
    before = settled_mails(post)
    answer = post.call("POST", "/returns", order(f"C-{uuid4()}"))
    assert answer.status == 202
    assert settled_mails(post) == before


def test_real_orders_with_the_service_and_the_mail_server_killed_in_the_middle(
    post: Fleet, sink: Sink, real_orders: Path, tmp_path: Path
) -> None:
    file = invoices.write(tmp_path / "some.csv", real_orders, INVOICES)
    wanted = len(invoices.read(file).orders)
    before = settled_mails(post)
    demo = subprocess.Popen(
        [str(LAUNCHER), "demo", str(file), "--rate", str(RATE), "--state", str(post.state)],
        cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for step in range(3):
            wait_for_mails(post, len(before) + 4 * (step + 1))
            if step == 1:
                sink.kill()
            post.wait_back("notifications", post.signal("notifications", signal.SIGKILL))
        sink.start()
        demo.wait(timeout=120)
    finally:
        demo.kill()
        demo.wait()
    after = settled_mails(post)
    with post.database("orders") as database:
        final = dict(database.execute("SELECT id, status FROM orders").fetchall())
    assert set(final.values()) <= {"confirmed", "cancelled"}
    assert set(after) == set(final), "a mail for each order that has ended, and for no other"
    assert set(after.values()) == {1}, "never a second one"
    assert len(after) - len(before) == wanted
    ids = {str(message["Message-ID"]) for found in mails(post).values() for message in found}
    taken = sink.taken()
    assert set(taken) == ids, "by SMTP each at least once"
    twice = sum(taken.values()) - len(taken)
    say(f"{wanted} real orders, 3 kills of notifications, 1 of the mail server: {wanted} mails, {twice} by SMTP twice")
