"""Signing in and out, each refusal with its control."""

from __future__ import annotations

import threading
import time
from urllib.parse import urlencode

import pytest
from serving import COOKIE, Dashboard, running, until

from atoll_dashboard.login import local

FORM_TYPE = ("Content-Type", "application/x-www-form-urlencoded")


def test_the_right_password_opens_the_page_that_was_wanted(dashboard: Dashboard) -> None:
    answer = dashboard.try_login("operator", "pw-operator", next="/service?name=payments")
    assert (answer.status, answer.header("location")) == (303, "/service?name=payments")
    assert dashboard.get("/login", answer.cookie()).status == 303  # who is signed in needs no form


@pytest.mark.parametrize(
    ("username", "password", "status", "words"),
    [
        ("operator", "wrong", 401, "The user name or the password is wrong."),
        ("nobody", "pw-nobody", 401, "The user name or the password is wrong."),
        ("", "x", 422, "Give your user name"),
        ("operator", "", 422, "Give your user name"),
        ("operator", "pw-operator" + "x" * 300, 422, "at most 300 characters"),
        ("shopper", "pw-shopper", 403, "may not look at the fleet"),
    ],
)
def test_who_may_not_gets_no_session(
    dashboard: Dashboard, username: str, password: str, status: int, words: str
) -> None:
    answer = dashboard.try_login(username, password)
    assert (answer.status, answer.cookie()) == (status, "")
    assert words in answer.alert


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


def test_a_hung_auth_stops_neither_the_pages_nor_their_files(dashboard: Dashboard) -> None:
    cookie = dashboard.login()
    token, form_cookie = dashboard.form()
    dashboard.gateway.state.auth = "hang"
    fields = {"form": token, "username": "operator", "password": "pw-operator"}
    answers: list[int] = []

    def try_it() -> None:
        answers.append(dashboard.post_login(fields, f"atoll_dashboard_form={form_cookie}").status)

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
    assert took < 2
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
    token, cookie = dashboard.form()
    foreign, _ = dashboard.form()
    fields = {"username": "operator", "password": "pw-operator"}
    ours = f"atoll_dashboard_form={cookie}"
    for form, cookies in ((token, ""), ("", ours), (foreign, ours), (token + "x", ours), (cookie, ours), ("é", ours)):
        answer = dashboard.post_login({"form": form, **fields}, cookies or "a=b")
        assert (answer.status, answer.alert) == (403, "This form had grown old. Try again.")
    assert dashboard.post_login({"form": token, **fields}, ours).status == 303


def test_a_form_grows_old() -> None:
    from itsdangerous import SignatureExpired, URLSafeTimedSerializer

    from atoll_dashboard import login

    made = URLSafeTimedSerializer(b"k" * 32, salt="atoll-dashboard-form")
    assert login._FORM_SECONDS <= 3600
    with pytest.raises(SignatureExpired):
        made.loads(made.dumps("x"), max_age=-1)


def test_two_tabs_can_both_sign_in(dashboard: Dashboard) -> None:
    first, cookie = dashboard.form()
    second = dashboard.ask("GET", "/login", [("Cookie", f"atoll_dashboard_form={cookie}")])
    assert second.cookie("atoll_dashboard_form") == cookie
    fields = {"form": first, "username": "operator", "password": "pw-operator"}
    assert dashboard.post_login(fields, f"atoll_dashboard_form={cookie}").status == 303


def test_what_is_no_small_form_is_refused(dashboard: Dashboard) -> None:
    token, cookie = dashboard.form()
    common = [("Origin", dashboard.origin), ("Cookie", f"atoll_dashboard_form={cookie}")]
    fields = {"form": token, "username": "operator", "password": "pw-operator"}
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


def test_two_lengths_are_no_request(dashboard: Dashboard) -> None:
    head = f"POST /login HTTP/1.1\r\nHost: {dashboard.host}\r\nOrigin: {dashboard.origin}\r\nConnection: close\r\n"
    smuggled = "Content-Length: 4\r\nContent-Length: 40\r\n\r\na=1&GET /overview HTTP/1.1\r\n\r\n"
    assert dashboard.raw((head + smuggled).encode()).status == 400


# ---- where to go afterwards --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example",
        "evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/\n/evil.example",
        " //evil.example",
        "/x\r\nSet-Cookie: a=b",
        "/login",
        "/logout",
        "/login?next=/x",
        "",
        None,
        "/" + "x" * 3000,
    ],
)
def test_nobody_is_sent_elsewhere(wanted: str | None) -> None:
    assert local(wanted) == "/"


@pytest.mark.parametrize("wanted", ["/", "/overview", "/service?name=payments", "/traces?trace=00ff&x=%2F%2Fa"])
def test_a_page_of_ours_is_reached(wanted: str) -> None:
    assert local(wanted) == wanted


def test_a_foreign_address_in_the_form_leads_home(dashboard: Dashboard) -> None:
    answer = dashboard.try_login("operator", "pw-operator", next="//evil.example")
    assert (answer.status, answer.header("location")) == (303, "/")


# ---- the cookie --------------------------------------------------------------------------------------------------


def test_each_login_has_a_session_of_its_own_and_ends_the_one_before(dashboard: Dashboard) -> None:
    first = dashboard.login()
    token, form_cookie = dashboard.form()
    fields = {"form": token, "username": "viewer", "password": "pw-viewer"}
    cookies = f"{COOKIE}={first}; atoll_dashboard_form={form_cookie}"
    second = dashboard.post_login(fields, cookies).cookie()
    assert second
    assert second != first
    assert dashboard.get("/overview", first).status == 303
    assert dashboard.get("/overview", second).status == 200


def test_the_cookie_is_for_this_site_and_no_script(dashboard: Dashboard) -> None:
    answer = dashboard.try_login("operator", "pw-operator")
    (line,) = [one for one in answer.all("set-cookie") if one.startswith(f"{COOKIE}=")]
    flags = {piece.strip().lower() for piece in line.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= flags
    assert "secure" not in flags  # plain HTTP on loopback: a browser would not send it back
    assert not any(flag.startswith("domain") for flag in flags)


def test_behind_https_cookies_are_secure(tmp_path_factory: pytest.TempPathFactory) -> None:
    told = "https://ops.example.com,https://other.example.com:443"
    with running(tmp_path_factory.mktemp("https"), DASHBOARD_ORIGINS=told) as dashboard:
        for name in ("ops.example.com", "OTHER.example.com"):
            page = dashboard.get("/login", host=name)
            assert page.status == 200
            assert "secure" in page.header("set-cookie").lower()
        assert "secure" not in dashboard.get("/login").header("set-cookie").lower()
        assert dashboard.get("/login", host="evil.example.com").status == 421
        token, cookie = dashboard.form()
        fields = {"form": token, "username": "operator", "password": "pw-operator"}
        more = {"cookies": f"atoll_dashboard_form={cookie}", "host": "ops.example.com"}
        assert dashboard.post_login(fields, origin="http://ops.example.com", **more).status == 403
        assert dashboard.post_login(fields, origin=dashboard.origin, **more).status == 403
        passed = dashboard.post_login(fields, origin="https://ops.example.com", **more)
        assert passed.status == 303
        assert "secure" in passed.header("set-cookie").lower()


# ---- signing out -------------------------------------------------------------------------------------------------


def test_a_link_signs_nobody_out(dashboard: Dashboard) -> None:
    cookie = dashboard.login()
    assert "Sign out" in dashboard.get("/logout", cookie).body
    assert dashboard.get("/overview", cookie).status == 200
    assert dashboard.get("/logout").header("location") == "/login"


@pytest.mark.parametrize("form", ["", "x", "é"])
def test_signing_out_needs_the_sessions_own_form(dashboard: Dashboard, form: str) -> None:
    cookie = dashboard.login()
    headers = [("Origin", dashboard.origin), ("Cookie", f"{COOKIE}={cookie}"), FORM_TYPE]
    assert dashboard.ask("POST", "/logout", headers, urlencode({"form": form}).encode()).status == 403
    assert dashboard.get("/overview", cookie).status == 200


def test_who_signs_out_gives_his_refresh_token_back(dashboard: Dashboard) -> None:
    cookie = dashboard.login("admin")
    assert "admin" in dashboard.gateway.state.refreshes.values()
    answer = dashboard.logout(cookie)
    assert (answer.status, answer.cookie()) == (303, '""')
    assert "admin" not in dashboard.gateway.state.refreshes.values()


def test_who_signs_out_while_auth_hangs_is_out_at_once(dashboard: Dashboard) -> None:
    cookie = dashboard.login()
    dashboard.gateway.state.auth = "hang"
    leaving = threading.Thread(target=dashboard.logout, args=(cookie,))
    leaving.start()
    until("signed out", lambda: dashboard.get("/overview", cookie).status == 303, 2)
    dashboard.gateway.state.released.set()
    leaving.join()
