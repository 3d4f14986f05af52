"""Signing in and out, each refusal with its control."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
import requests
from serving import FORM_TYPE, Dashboard, hidden_fields, running, until

from atoll_dashboard.login import local

ELSEWHERE = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "https://evil.example",
    "https://evil.example/",
    "http:evil.example",
    "evil.example",
    "@evil.example",
    "javascript:alert(1)",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "/x\r\nSet-Cookie: a=b",
    "/login",
    "/logout",
    "/login?next=/x",
]


def test_the_right_password_opens_the_page_that_was_wanted(dashboard: Dashboard) -> None:
    answer = dashboard.try_login("operator", "pw-operator", next="/service?name=payments")
    assert (answer.status, answer.header("location")) == (303, "/service?name=payments")
    assert dashboard.get("/login", answer.cookie()).status == 303  # who is signed in needs no form


@pytest.mark.parametrize("name", ["viewer", "operator", "admin"])
def test_who_has_a_role_is_let_in(dashboard: Dashboard, name: str) -> None:
    answer = dashboard.try_login(name, f"pw-{name}", "/login?next=%2Foperations%3Fwho%3Dolaf")
    assert (answer.status, answer.header("location")) == (303, "/operations?who=olaf")
    assert dashboard.get("/", answer.cookie()).status == 200


@pytest.mark.parametrize(
    ("username", "password", "status", "words"),
    [
        ("operator", "wrong", 401, "The user name or the password is wrong."),
        ("nobody", "pw-nobody", 401, "The user name or the password is wrong."),
        ("<img src=x onerror=alert(1)>", "not the one", 401, "The user name or the password is wrong."),
        ("", "x", 422, "Give your user name"),
        ("operator", "", 422, "Give your user name"),
        ("operator", "pw-operator" + "x" * 300, 422, "at most 300 characters"),
        ("shopper", "pw-shopper", 403, "may not look at the fleet: it needs the role"),
    ],
)
def test_who_may_not_gets_no_session(
    dashboard: Dashboard, username: str, password: str, status: int, words: str
) -> None:
    answer = dashboard.try_login(username, password)
    assert (answer.status, answer.cookie()) == (status, "")
    assert words in answer.alert
    assert "<img" not in answer.body
    assert not password or f'"{password}"' not in answer.body
    assert dashboard.try_login("viewer", "pw-viewer").status == 303


def test_the_tokens_of_who_may_not_look_are_given_back(dashboard: Dashboard) -> None:
    dashboard.try_login("shopper", "pw-shopper")
    assert "shopper" not in dashboard.gateway.state.refreshes.values()


def test_what_was_typed_is_only_text(dashboard: Dashboard) -> None:
    answer = dashboard.try_login('"><script>alert(1)</script>', "x", next='/x?"><img src=x>')
    assert "<script>" not in answer.body
    assert "<img" not in answer.body
    assert "pw-" not in dashboard.try_login("operator", "pw-wrong").body  # a password is never given back


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        ((429, "too_many"), 429, "told: too_many"),
        ((503, "service_away"), 503, "auth is gone"),
        ((504, "service_timeout"), 503, "auth is gone"),
        ((502, "service_broken"), 503, "auth is gone"),
        ((500, "internal"), 503, "auth is gone"),
        ("garbage", 503, "auth is gone"),
        ({"access_token": 5}, 503, "auth is gone: its answer is no token"),
        ({}, 503, "auth is gone"),
        ((302, "elsewhere"), 503, "auth is gone"),
    ],
    ids=str,
)
def test_what_auth_says_is_told(dashboard: Dashboard, how: object, status: int, words: str) -> None:
    dashboard.gateway.state.auth = how
    answer = dashboard.try_login("operator", "pw-operator")
    assert (answer.status, answer.cookie()) == (status, "")
    assert words in answer.alert
    dashboard.gateway.state.auth = "well"
    assert dashboard.try_login("operator", "pw-operator").status == 303


def test_too_many_tries_say_so_and_when_to_come_again(dashboard: Dashboard) -> None:
    told = {"code": "throttled", "detail": "Too many wrong attempts; try again in 12 s"}
    dashboard.gateway.state.auth = (429, told, "12")
    answer = dashboard.try_login("viewer", "pw-viewer")
    assert (answer.status, answer.header("retry-after")) == (429, "12")
    assert "12 s" in answer.alert


def test_a_hung_auth_stops_neither_the_pages_nor_their_files(dashboard: Dashboard) -> None:
    cookie = dashboard.login()
    hidden, form_cookie = dashboard.form()
    dashboard.gateway.state.auth = "hang"
    fields = hidden | {"username": "operator", "password": "pw-operator"}
    answers: list[int] = []

    def try_it() -> None:
        answers.append(dashboard.post("/login", fields, form_cookie).status)

    threads = [threading.Thread(target=try_it) for _ in range(60)]
    for thread in threads:
        thread.start()
    until("some wait for auth", lambda: dashboard.gateway.state.count("POST", "/auth/login") >= 8)
    began = time.monotonic()
    assert dashboard.get("/overview", cookie).status == 200
    assert dashboard.get("/static/nothing.js", cookie).status in (200, 404)
    took = time.monotonic() - began
    dashboard.gateway.state.released.set()
    for thread in threads:
        thread.join()
    print(f"» a page and a file while 60 logins hang: {took:.2f} s")
    assert took < 4, "auth hangs for 5 s, and they waited with it"
    assert len(answers) == 60, "some were never answered"
    assert set(answers) == {503}


def test_a_gateway_that_is_gone_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("gone")) as dashboard:
        dashboard.gateway.close()
        answer = dashboard.try_login("operator", "pw-operator")
        assert answer.status == 503
        assert answer.alert.startswith("gateway is gone: nobody answers at")
        assert dashboard.get("/ready").status == 200


# ---- the form ----------------------------------------------------------------------------------------------------


def test_a_form_is_of_its_browser(dashboard: Dashboard) -> None:
    """Else an attacker's form, sent by somebody's browser, signs it in as the attacker."""
    mine, ours = dashboard.form()
    foreign, _ = dashboard.form()
    token = mine["form"]
    told = {"username": "operator", "password": "pw-operator"}
    wrong = [({**mine, "form": form}, ours) for form in ("", token + "x", ours.split("=")[1], "é")]
    for hidden, cookies in (({}, ours), (foreign, ours), (mine, ""), (mine, "a=b"), *wrong):
        answer = dashboard.post("/login", hidden | told, cookies)
        assert (answer.status, answer.cookie()) == (403, "")
        assert answer.alert == "This form had grown old. Try again."
    assert dashboard.post("/login", mine | told, ours).status == 303


def test_a_form_grows_old() -> None:
    from itsdangerous import SignatureExpired, URLSafeTimedSerializer

    from atoll_dashboard import login

    made = URLSafeTimedSerializer(b"k" * 32, salt="atoll-dashboard-form")
    assert login._FORM_SECONDS <= 3600
    with pytest.raises(SignatureExpired):
        made.loads(made.dumps("x"), max_age=-1)


def test_two_tabs_can_both_sign_in(dashboard: Dashboard) -> None:
    first, cookie = dashboard.form()
    assert dashboard.ask("GET", "/login", [("Cookie", cookie)]).form_cookie == cookie
    fields = first | {"username": "operator", "password": "pw-operator"}
    assert dashboard.post("/login", fields, cookie).status == 303


def test_what_is_no_small_form_is_refused(dashboard: Dashboard) -> None:
    hidden, cookie = dashboard.form()
    common = [("Origin", dashboard.origin), ("Cookie", cookie)]
    fields = hidden | {"username": "operator", "password": "pw-operator"}
    json_type = ("Content-Type", "application/json")
    assert dashboard.ask("POST", "/login", [*common, json_type], b'{"username": "operator"}').status == 403
    assert dashboard.ask("POST", "/login", [*common, FORM_TYPE], b"\xff\xfe").status == 403
    assert dashboard.ask("POST", "/login", [*common, FORM_TYPE], b"a=1&" * 30).status == 403
    huge = urlencode({**fields, "more": "x" * 100_000}).encode()
    assert dashboard.ask("POST", "/login", [*common, FORM_TYPE], huge).status == 413
    assert dashboard.ask("POST", "/login", [*common, FORM_TYPE], urlencode(fields).encode()).status == 303


def test_a_body_without_an_end_is_not_read_to_its_end(dashboard: Dashboard) -> None:
    head = f"POST /login HTTP/1.1\r\nHost: {dashboard.host}\r\nOrigin: {dashboard.origin}\r\nConnection: close\r\n"
    chunked = "Transfer-Encoding: chunked\r\n\r\n" + "1000\r\n" + "x" * 4096 + "\r\n"
    answer = dashboard.raw((head + chunked + ("1000\r\n" + "x" * 4096 + "\r\n") * 4).encode(), 5)
    assert answer.status == 413


@pytest.mark.parametrize("kind", [FORM_TYPE[1], "multipart/form-data; boundary=x", "text/plain"])
def test_a_flood_before_the_login_is_cut_off(dashboard: Dashboard, kind: str) -> None:
    """No session is needed to send a form, so its size is bounded."""
    before = dashboard.memory_mib()
    headers = [("Origin", dashboard.origin), ("Content-Type", kind)]
    with contextlib.suppress(OSError):  # cut off, as it should be
        dashboard.ask("POST", "/login", headers, b"username=" + b"A" * 64 * 2**20)
    assert dashboard.memory_mib() - before < 16
    assert dashboard.get("/login").status == 200


def test_two_lengths_are_no_request(dashboard: Dashboard) -> None:
    head = f"POST /login HTTP/1.1\r\nHost: {dashboard.host}\r\nOrigin: {dashboard.origin}\r\nConnection: close\r\n"
    smuggled = "Content-Length: 4\r\nContent-Length: 40\r\n\r\na=1&GET /overview HTTP/1.1\r\n\r\n"
    assert dashboard.raw((head + smuggled).encode()).status == 400


# ---- where to go afterwards --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [*ELSEWHERE, "", None, "/" + "x" * 3000])
def test_nobody_is_sent_elsewhere(wanted: str | None) -> None:
    assert local(wanted) == "/"


@pytest.mark.parametrize("wanted", ["/", "/overview", "/service?name=payments", "/traces?trace=00ff&x=%2F%2Fa"])
def test_a_page_of_ours_is_reached(wanted: str) -> None:
    assert local(wanted) == wanted


@pytest.mark.parametrize("wanted", ELSEWHERE)
def test_a_foreign_address_in_the_form_leads_home(dashboard: Dashboard, wanted: str) -> None:
    path = f"/login?next={quote(wanted, safe='')}"
    assert dashboard.form(path)[0]["next"] == "/"
    answer = dashboard.try_login("viewer", "pw-viewer", path, next=wanted)
    assert (answer.status, answer.header("location")) == (303, "/")
    assert [line.split("=")[0] for line in answer.all("set-cookie")] == [dashboard.session_cookie]


# ---- the cookie --------------------------------------------------------------------------------------------------


def test_each_login_has_a_session_of_its_own_and_ends_the_one_before(dashboard: Dashboard) -> None:
    first = dashboard.login()
    hidden, form_cookie = dashboard.form()
    fields = hidden | {"username": "viewer", "password": "pw-viewer"}
    second = dashboard.post("/login", fields, f"{dashboard.with_cookie(first)[1]}; {form_cookie}").cookie()
    assert second
    assert second != first
    assert dashboard.get("/overview", first).status == 303
    assert dashboard.get("/overview", second).status == 200


def test_two_dashboards_on_one_host_keep_both_signed_in(dashboard: Dashboard, tmp_path: Path) -> None:
    """A browser keeps one jar for all ports of a host."""
    with running(tmp_path) as other, requests.Session() as browser:
        browser.trust_env = False
        both = (dashboard, other)
        forms = {one.port: hidden_fields(browser.get(f"{one.origin}/login").text) for one in both}
        assert {cookie.name for cookie in browser.cookies} == {one.form_cookie for one in both}
        for one in both:
            fields = forms[one.port] | {"username": "operator", "password": "pw-operator"}
            origin = {"Origin": one.origin}
            sent = browser.post(f"{one.origin}/login", fields, headers=origin, allow_redirects=False)
            assert sent.status_code == 303
        statuses = [browser.get(f"{one.origin}/overview", allow_redirects=False).status_code for one in both]
        assert statuses == [200, 200]
        jar = ("Cookie", "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies))
        for one in both:
            assert one.handshake([jar, ("Origin", one.origin)]) == 101
        fields = hidden_fields(browser.get(f"{other.origin}/logout").text)
        browser.post(f"{other.origin}/logout", fields, headers={"Origin": other.origin}, allow_redirects=False)
        statuses = [browser.get(f"{one.origin}/overview", allow_redirects=False).status_code for one in both]
        assert statuses == [200, 303]


def test_the_cookie_is_for_this_site_and_no_script(dashboard: Dashboard) -> None:
    answer = dashboard.try_login("operator", "pw-operator")
    (line,) = [one for one in answer.all("set-cookie") if one.startswith(f"{dashboard.session_cookie}=")]
    flags = {piece.strip().lower() for piece in line.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= flags
    assert "secure" not in flags  # plain HTTP on loopback: a browser would not send it back
    assert not any(flag.startswith("domain") for flag in flags)
    assert "pw-operator" not in line


def test_behind_https_cookies_are_secure(tmp_path_factory: pytest.TempPathFactory) -> None:
    told = "https://ops.example.com,https://other.example.com:443"
    with running(tmp_path_factory.mktemp("https"), DASHBOARD_ORIGINS=told) as dashboard:
        for name in ("ops.example.com", "OTHER.example.com"):
            page = dashboard.get("/login", host=name)
            assert page.status == 200
            assert "secure" in page.header("set-cookie").lower()
        assert "secure" not in dashboard.get("/login").header("set-cookie").lower()
        assert dashboard.get("/login", host="evil.example.com").status == 421
        hidden, cookie = dashboard.form()
        fields = hidden | {"username": "operator", "password": "pw-operator"}
        for origin in ("http://ops.example.com", dashboard.origin):
            assert dashboard.post("/login", fields, cookie, origin, "ops.example.com").status == 403
        passed = dashboard.post("/login", fields, cookie, "https://ops.example.com", "ops.example.com")
        assert passed.status == 303
        assert "secure" in passed.header("set-cookie").lower()


# ---- signing out -------------------------------------------------------------------------------------------------


def test_a_link_signs_nobody_out(dashboard: Dashboard) -> None:
    cookie = dashboard.login()
    asked = dashboard.get("/logout", cookie)
    assert asked.status == 200
    assert "Sign out" in asked.body
    assert dashboard.get("/overview", cookie).status == 200
    assert dashboard.opens(cookie) == 101
    assert dashboard.get("/logout").header("location") == "/login"


@pytest.mark.parametrize("fields", [{}, {"form": ""}, {"form": "x"}, {"form": "é"}], ids=str)
def test_signing_out_needs_the_sessions_own_form(dashboard: Dashboard, fields: dict[str, str]) -> None:
    cookie = dashboard.login()
    assert dashboard.post("/logout", fields, dashboard.with_cookie(cookie)[1]).status == 403
    assert dashboard.get("/overview", cookie).status == 200
    assert dashboard.opens(cookie) == 101


def test_who_signs_out_gives_his_refresh_token_back(dashboard: Dashboard) -> None:
    before = set(dashboard.gateway.state.refreshes)
    cookie = dashboard.login("admin")
    (given,) = set(dashboard.gateway.state.refreshes) - before
    answer = dashboard.logout(cookie)
    assert (answer.status, answer.cookie()) == (303, '""')
    assert given not in dashboard.gateway.state.refreshes


def test_who_signs_out_while_auth_hangs_is_out_at_once(dashboard: Dashboard) -> None:
    cookie = dashboard.login()
    dashboard.gateway.state.auth = "hang"
    leaving = threading.Thread(target=dashboard.logout, args=(cookie,))
    leaving.start()
    until("signed out", lambda: dashboard.get("/overview", cookie).status == 303, 4)
    dashboard.gateway.state.released.set()
    leaving.join()
