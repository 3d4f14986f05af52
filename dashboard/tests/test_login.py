"""Signing in: who is let in, what is said to who is not, and that it sends nobody elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from dashboard_process import Dashboard, as_header, dashboard
from fake_gateway import FakeGateway, fake_gateway


@pytest.fixture(scope="module")
def gateway() -> Iterator[FakeGateway]:
    with fake_gateway() as running:
        yield running


@pytest.fixture(scope="module")
def board(gateway: FakeGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with dashboard(tmp_path_factory.mktemp("d"), gateway.url) as running:
        yield running


@pytest.mark.parametrize("name", ["viewer", "operator", "admin"])
def test_who_has_a_role_is_let_in(board: Dashboard, name: str) -> None:
    reply = board.sign_in(name, path="/login?next=%2Foperations%3Fwho%3Dolaf")
    assert (reply.status, reply.header("location")) == (303, "/operations?who=olaf")
    assert board.send("GET", "/", {"Cookie": as_header(reply.cookies())}).status == 200


@pytest.mark.parametrize(
    ("name", "password", "status", "words"),
    [
        ("viewer", "not his password", 401, "The user name or the password is wrong."),
        ("who", "is that", 401, "The user name or the password is wrong."),
        ("nobody", "password of nobody", 403, "role"),
        ("<img src=x onerror=alert(1)>", "x", 401, "The user name or the password is wrong."),
    ],
)
def test_who_is_not_is_told_why(board: Dashboard, name: str, password: str, status: int, words: str) -> None:
    reply = board.sign_in(name, password)
    assert reply.status == status
    assert 'role="alert"' in reply.body
    assert words in reply.body
    assert "<img" not in reply.body
    assert f'"{password}"' not in reply.body
    sessions = [value for key, value in reply.cookies().items() if value and "form" not in key]
    assert not sessions
    assert board.sign_in("viewer").status == 303


def test_too_many_tries_say_so_and_when_to_come_again(board: Dashboard, gateway: FakeGateway) -> None:
    gateway.throttled = True
    try:
        reply = board.sign_in("viewer")
    finally:
        gateway.throttled = False
    assert reply.status == 429
    assert "12 s" in reply.body
    assert reply.header("retry-after"), "said to people, not to programs"


def test_auth_that_is_gone_is_named(board: Dashboard, gateway: FakeGateway) -> None:
    gateway.away.add("auth")
    try:
        reply = board.sign_in("viewer")
    finally:
        gateway.away.clear()
    assert reply.status == 503
    assert "auth is gone" in reply.body


def test_a_form_of_somebody_elses_browser_signs_nobody_in(board: Dashboard) -> None:
    """Login CSRF: the attacker's own form, sent by the victim's browser."""
    theirs, _ = board.form()
    _, mine = board.form()
    told = {"username": "operator", "password": "password of operator"}
    for fields, cookies in ((theirs, mine), ({}, mine), (theirs, {})):
        reply = board.post("/login", fields | told, cookies)
        assert reply.status == 403
        assert not [key for key in reply.cookies() if "form" not in key]


@pytest.mark.parametrize(
    "where", ["https://evil.example/", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example",
              "javascript:alert(1)", "/\t/evil.example", "\t//evil.example", "http:evil.example", "@evil.example",
              "/login", "/logout", "/a\r\nSet-Cookie: x=y"],
)  # fmt: skip
def test_nobody_is_sent_elsewhere(board: Dashboard, where: str) -> None:
    fields, cookies = board.form(f"/login?next={quote(where, safe='')}")
    told = {"username": "viewer", "password": "password of viewer", "next": where}
    reply = board.post("/login", fields | told, cookies)
    assert (reply.status, reply.header("location")) == (303, "/")
    assert reply.header("x") == ""


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"])
def test_a_flood_before_the_login_is_cut_off(board: Dashboard, kind: str) -> None:
    """No session is needed to send a form, so its size is bounded."""
    before = board.memory_mb()
    with contextlib.suppress(OSError):  # cut off, as it should be
        board.send("POST", "/login", {"Origin": board.url, "Content-Type": kind}, b"username=" + b"A" * 64 * 2**20)
    assert board.memory_mb() - before < 16
    assert board.send("GET", "/login").status == 200
