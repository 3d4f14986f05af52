"""What a mail says, and to whom, whatever a client wrote."""

import re

import pytest

from atoll_notifications import domain
from atoll_notifications.domain import Cancellation, Confirmation, Line

DOT_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
NAMES = [
    "17850", "a.b", "a..b", ".a", "a.", "guest", "Jane Doe", "jané", "日本", "a@b", "a=40b", "<x>",
    "x\r\nBcc: y@z.example", "\x00", "a,b", '"a"', "a\u202eb", "A" * 64, "é" * 64, "." * 64, "\ud800",
    "💌" * 64, "a" * 63 + "é",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_gives_an_address_that_is_one(name: str) -> None:
    local, _, host = domain.recipient(name).rpartition("@")
    assert host == "customers.invalid"
    assert DOT_ATOM.fullmatch(local), local
    assert len(local) <= 64


def test_two_names_give_two_addresses() -> None:
    assert len({domain.recipient(name) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("17850", "17850@customers.invalid"), ("", "guest@customers.invalid"), (" \t", "guest@customers.invalid"),
        ("jané", "jan=C3=A9@customers.invalid"), ("a@b", "a=40b@customers.invalid"),
    ],
)  # fmt: skip
def test_addresses(name: str, address: str) -> None:
    assert domain.recipient(name) == address


@pytest.mark.parametrize("char", list("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\x00\x7f\u202e\u200b\ufeff"), ids=ascii)
def test_nothing_ends_hides_or_turns_a_line(char: str) -> None:
    assert domain.one_line(f"a{char}b") == "a b"


def test_the_mails_name_is_the_events_or_its_digest() -> None:
    assert domain.mail_name("0b5c-1") == "0b5c-1"
    odd = ["../../etc/passwd", "a:2,S", ".hidden", "-x", "a b", "é", "a" * 65, "a\n", "", "<x@y>"]
    names = {domain.mail_name(each) for each in odd}
    assert len(names) == len(odd)
    assert all(re.fullmatch("x-[0-9a-f]{64}", name) for name in names)


def test_a_confirmation_has_every_line_and_exact_money() -> None:
    lines = (Line("A", "HEART", 6, 25_500), Line("B", "", 1_000_000, 1), Line("A", "HEART", 1, 0))
    text = list(Confirmation("o-1", "536365", "17850", lines, 1_153_000).text())
    assert text == [
        "Your order 536365 is confirmed.", "",
        "6 x A: HEART", "    at 2.55 = 15.30",
        "1000000 x B", "    at 0.0001 = 100.00",
        "1 x A: HEART", "    at 0.00 = 0.00", "",
        "Total: 115.30", "", "Order number: o-1",
    ]  # fmt: skip


def test_amounts_beyond_64_bits_and_floats_are_exact() -> None:
    line = Line("A", "", 1_000_000, domain.amount_of("999999999999999.9999"))
    assert domain.money(line.amount) == "999999999999999999900.00"


@pytest.mark.parametrize(
    ("reason", "words"),
    [*domain.REASONS.items(), ("moved_to_mars", "moved_to_mars")],
)
def test_a_cancellation_says_why(reason: str, words: str) -> None:
    text = list(Cancellation("o-1", "7", "", reason, "85123A: 3 of 5").text())
    assert f"Reason: {words}" in text
    assert "    85123A: 3 of 5" in text
    assert text[-1] == "Order number: o-1"


def test_a_cancellation_without_detail_has_no_empty_line_for_it() -> None:
    assert "    " not in list(Cancellation("o-1", "7", "", "deadline", "").text())


@pytest.mark.parametrize("text", ["", "-1", "1.00001", "1e2", "NaN", "1\n"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a decimal"):
        domain.amount_of(text)
