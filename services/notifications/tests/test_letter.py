"""The message on the wire, read back by a parser that has not seen how it was made."""

import email
import email.policy
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import pytest

from atoll_notifications.domain import Cancellation, Confirmation, Line
from atoll_notifications.letter import compose

SENDER = "Atoll shop <orders@shop.invalid>"
TIME = "2010-12-01T08:26:00.123456+01:00"
HEADERS = ["Date", "From", "To", "Subject", "Message-ID", "Auto-Submitted", "Content-Type",
           "Content-Transfer-Encoding", "MIME-Version"]  # fmt: skip
EVIL = "x\r\nBcc: all@example.org\r\n\r\nbody\x00\x0b\u2028\u0085\x1cSubject: y"


def written(notice: Confirmation | Cancellation, event_id: str = "e-1", time: str = TIME) -> tuple[bytes, EmailMessage]:
    """The bytes, checked to be what any server takes, and what a reader sees."""
    raw = compose(notice, event_id, time, SENDER)
    assert raw.isascii()
    assert b"\r\n" in raw
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\r" not in raw.replace(b"\r\n", b"")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    assert sorted(message.keys()) == sorted(HEADERS), "a header more or less than is meant"
    return raw, message


def confirmation(*lines: Line, **more: Any) -> Confirmation:
    fields: dict[str, Any] = {"order_id": "o-1", "invoice": "536365", "customer": "17850", "total": 153_000}
    return Confirmation(lines=lines or (Line("85123A", "HEART", 6, 25_500),), **(fields | more))


def test_headers() -> None:
    _, message = written(confirmation())
    assert message["To"] == "17850@customers.invalid"
    assert message["From"] == SENDER
    assert message["Subject"] == "Your order 536365 is confirmed"
    assert message["Message-ID"] == "<e-1@notifications.atoll.invalid>"
    assert message["Date"].datetime == datetime(2010, 12, 1, 7, 26, tzinfo=UTC)


def test_the_same_event_gives_the_same_bytes() -> None:
    assert written(confirmation())[0] == written(confirmation())[0]


@pytest.mark.parametrize("field", ["invoice", "customer", "order_id"])
def test_no_field_adds_a_header_or_a_recipient(field: str) -> None:
    raw, message = written(confirmation(**{field: EVIL}))
    assert len(message["To"].addresses) == 1
    head = raw.partition(b"\r\n\r\n")[0]
    assert not any(line.lower().startswith((b"bcc", b"body")) for line in head.split(b"\r\n"))


def test_no_event_id_adds_a_header() -> None:
    _, message = written(confirmation(), event_id=EVIL)
    assert message["Message-ID"].startswith("<x-")


def test_no_line_of_the_body_is_forged() -> None:
    _, message = written(confirmation(Line("A", "cheap\r\n\r\nTotal: 0.00\r\n", 1, 10_000)))
    assert [line for line in message.get_content().splitlines() if line.startswith("Total")] == ["Total: 15.30"]


def test_unicode_arrives() -> None:
    _, message = written(confirmation(Line("A", "Kerzenständer 🕯", 1, 10_000), invoice="№7 日本", customer="Müller"))
    assert message["Subject"] == "Your order №7 日本 is confirmed"
    assert message["To"] == "M=C3=BCller@customers.invalid"
    assert "1 x A: Kerzenständer 🕯" in message.get_content().splitlines()


def test_a_guest_and_an_empty_description() -> None:
    _, message = written(confirmation(Line("A", "", 1, 10_000), customer=""))
    assert message["To"] == "guest@customers.invalid"
    assert "1 x A" in message.get_content().splitlines()


def test_ten_thousand_lines_and_long_ones_arrive_whole() -> None:
    long = "W" * 256 + "ä"
    _, message = written(confirmation(*(Line(f"S{number}", long, 1, 1) for number in range(10_000))))
    text = message.get_content().splitlines()
    assert sum(line.endswith(f": {long}") for line in text) == 10_000


def test_a_line_that_begins_with_a_dot_or_from_arrives() -> None:
    _, message = written(Cancellation("o-1", "7", "", "deadline", "From x\n."))
    assert "    From x ." in message.get_content().splitlines()


@pytest.mark.parametrize(
    "time", ["", "yesterday", "2010-12-01T08:26:00", "2010-13-01T08:26:00Z", "0001-01-01T00:00:00+23:59"]
)
def test_what_is_no_time_is_said(time: str) -> None:
    with pytest.raises(ValueError, match="expected RFC 3339"):
        compose(confirmation(), "e-1", time, SENDER)
