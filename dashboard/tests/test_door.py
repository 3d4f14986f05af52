"""The guard, each rule with its control: the same request with the right cookie, Origin and Host passes."""

from __future__ import annotations

import re
import time
from urllib.parse import urlencode

import pytest
from serving import FORM_TYPE, Dashboard, Pairs, running, until
from streamlit.proto.BackMsg_pb2 import BackMsg

PAGES = ("/", "/overview", "/operations", "/traces", "/service?name=payments")
INSIDE = (
    "/_stcore/health", "/_stcore/host-config", "/_stcore/metrics", "/_stcore/upload_file/x/y", "/media/x.png",
    "/component/x/index.html", "/static/js/index.js", "/static/x.js", "/atoll/focus-cancel.js",
)  # fmt: skip


# ---- Host --------------------------------------------------------------------------------------------------------


def test_our_own_names_are_answered(dashboard: Dashboard) -> None:
    cookie = dashboard.login()
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        host = f"{name}:{dashboard.port}"
        assert dashboard.get("/", cookie, host=host).status == 200, name
        assert dashboard.get("/overview", cookie, host=host).status == 200, name
        own = [dashboard.with_cookie(cookie), ("Origin", f"http://{host}")]
        assert dashboard.handshake(own, host=host) == 101, name


def test_one_of_our_names_is_not_another(dashboard: Dashboard) -> None:
    headers = [dashboard.with_cookie(dashboard.login()), ("Origin", dashboard.origin)]
    assert dashboard.handshake(headers, host=f"localhost:{dashboard.port}") == 403
    assert dashboard.handshake(headers) == 101


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1.evil.example:{port}",
        "127.0.0.1:{port}@evil.example",
        "evil.example@127.0.0.1:{port}",
        "127.0.0.1:{port}.",
        "localhost.:{port}",
        "0.0.0.0:{port}",
        "127.1:{port}",
        None,
    ],
)
def test_another_host_is_not_us_whoever_asks(dashboard: Dashboard, host: str | None) -> None:
    cookie = dashboard.login()
    asked = host.format(port=dashboard.port) if host else None
    for path in ("/", "/overview", "/login", *INSIDE):
        assert dashboard.get(path, cookie, host=asked).status in (400, 421), path
        assert dashboard.get(path, cookie).status in (200, 303, 404), path  # the control
    rebound = [dashboard.with_cookie(cookie), ("Origin", f"http://{asked or ''}")]
    assert dashboard.handshake(rebound, host=asked) == (403 if host else 400)  # with none it is no request at all
    assert dashboard.opens(cookie) == 101


def test_two_hosts_are_refused(dashboard: Dashboard) -> None:
    cookie = dashboard.with_cookie(dashboard.login())
    assert dashboard.ask("GET", "/overview", [("Host", "evil.example"), cookie]).status in (400, 421)
    assert dashboard.ask("GET", "/overview", [("Host", dashboard.host), cookie]).status in (400, 421)


def test_the_target_of_a_request_is_not_its_host(dashboard: Dashboard) -> None:
    cookie = [dashboard.with_cookie(dashboard.login())]
    assert dashboard.ask("GET", "http://evil.example/overview", cookie, host="evil.example").status in (400, 421)


# ---- Origin ------------------------------------------------------------------------------------------------------

FOREIGN = [
    [], ["null"], ["http://evil.example"], ["https://{host}"], ["http://127.0.0.1:1"], ["http://localhost:{port}"],
    ["http://{host}.evil.example"], ["http://{host}/"], ["{host}"], [""], ["http://{host}", "http://evil.example"],
    ["http://{host}", "http://{host}"],
]  # fmt: skip


def origins(dashboard: Dashboard, given: list[str]) -> Pairs:
    """These as headers."""
    return [("Origin", one.format(host=dashboard.host, port=dashboard.port)) for one in given]


@pytest.mark.parametrize("given", FOREIGN, ids=str)
def test_a_foreign_origin_opens_no_websocket(dashboard: Dashboard, given: list[str]) -> None:
    cookie = dashboard.with_cookie(dashboard.login())
    refused = 403 if len(given) < 2 else 400  # two are no request at all
    assert dashboard.handshake([cookie, *origins(dashboard, given)]) == refused
    assert dashboard.handshake([cookie, ("Origin", dashboard.origin)]) == 101


@pytest.mark.parametrize("given", FOREIGN, ids=str)
def test_a_foreign_origin_signs_nobody_in(dashboard: Dashboard, given: list[str]) -> None:
    fields, cookie = dashboard.form()
    body = urlencode(fields | {"username": "operator", "password": "pw-operator"}).encode()
    common = [("Cookie", cookie), FORM_TYPE]
    refused = dashboard.ask("POST", "/login", [*common, *origins(dashboard, given)], body)
    assert (refused.status, refused.cookie()) == (403, "")
    passed = dashboard.ask("POST", "/login", [*common, ("Origin", dashboard.origin)], body)
    assert passed.status == 303
    assert passed.cookie()


@pytest.mark.parametrize("given", FOREIGN, ids=str)
def test_a_foreign_origin_changes_nothing(dashboard: Dashboard, given: list[str]) -> None:
    cookie = dashboard.login()
    headers = [dashboard.with_cookie(cookie), *origins(dashboard, given)]
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for path in ("/login", "/logout", "/", "/_stcore/upload_file/x/y"):
            assert dashboard.ask(method, path, headers).status == 403, (method, path)
    assert dashboard.opens(cookie) == 101


@pytest.mark.parametrize("given", [one for one in FOREIGN if one], ids=str)
def test_a_script_of_another_page_reads_nothing(dashboard: Dashboard, given: list[str]) -> None:
    cookie = dashboard.with_cookie(dashboard.login())
    assert dashboard.ask("GET", "/overview", [cookie, *origins(dashboard, given)]).status == 403
    assert dashboard.ask("GET", "/overview", [cookie, ("Origin", dashboard.origin)]).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PURGE"])
@pytest.mark.parametrize("path", ["/overview", "/_stcore/upload_file/a/b", "/_stcore/agent/interact", "/media/x"])
def test_nothing_is_changed_here(dashboard: Dashboard, method: str, path: str) -> None:
    cookie = dashboard.with_cookie(dashboard.login())
    assert dashboard.ask(method, path, [cookie]).status == 403
    assert dashboard.ask(method, path, [cookie, ("Origin", dashboard.origin)]).status == 405
    assert dashboard.ask(method, path, [("Origin", dashboard.origin)]).status == 403


# ---- the cookie --------------------------------------------------------------------------------------------------


def test_without_a_session_there_is_the_login_and_nothing_else(dashboard: Dashboard) -> None:
    for path in (*PAGES, "//evil.example/x", "/%2e%2e/x"):
        answer = dashboard.get(path)
        assert answer.status == 303, path
        assert answer.header("location").startswith("/login?next="), path
    for path in (*INSIDE, "/media/x.csv", "/favicon.png", "/live/x.y"):
        assert dashboard.get(path).status == 403, path
    assert dashboard.handshake([("Origin", dashboard.origin)]) == 403
    assert dashboard.ask("HEAD", "/overview").status == 303
    assert dashboard.ask("OPTIONS", "/overview").status == 403


def forged(cookie: str, good: str) -> dict[str, str]:
    """Cookies that are not of a session; each begins with the good one's shape."""
    name, stamp, signature = good.rsplit(".", 2)
    middle = len(good) // 2
    flipped = good[:middle] + ("A" if good[middle] != "A" else "B") + good[middle + 1 :]
    other = ("A" if signature[0] != "A" else "B") + signature[1:]
    return {
        "another signature": f"{cookie}={name}.{stamp}.{other}",
        "another id": f"{cookie}={'x' * len(name)}.{stamp}.{signature}",
        "another time": f"{cookie}={name}.aaaaaa.{signature}",
        "another middle": f"{cookie}={flipped}",
        "cut": f"{cookie}={good[:-2]}",
        "the id alone": f"{cookie}={name}",
        "garbage": f"{cookie}=x",
        "empty": f"{cookie}=",
        "two, the good one first": f"{cookie}={good}; {cookie}=x",
        "two, the good one last": f"{cookie}=x; {cookie}={good}",
        "two, both good": f"{cookie}={good}; {cookie}={good}",
        "two, one with a space": f"{cookie}={good}; {cookie} =x",
        "quoted": f'{cookie}="{good}"',
        "another name": f"x{cookie}={good}",
        "another port": f"{cookie}0={good}",
        "no port": f"{cookie.rpartition('_')[0]}={good}",
        "another case": f"{cookie.upper()}={good}",
        "long": f"{cookie}={good}{'.' * 5000}",
        "long garbage": f"{cookie}={'A' * 6000}",
        "no ASCII": f"{cookie}={good}\xe9",
    }


@pytest.mark.parametrize("which", list(forged("a_1", "a.b.c")))
def test_a_forged_cookie_is_none(dashboard: Dashboard, which: str) -> None:
    good = dashboard.login()
    bad = ("Cookie", forged(dashboard.session_cookie, good)[which])
    for path in PAGES:
        answer = dashboard.ask("GET", path, [bad])
        assert (answer.status, answer.header("location")[:12]) == (303, "/login?next="), path
    for path in INSIDE:
        assert dashboard.ask("GET", path, [bad]).status == 403, path
    assert dashboard.handshake([bad, ("Origin", dashboard.origin)]) == 403
    fine = ("Cookie", f"theme=dark; {dashboard.session_cookie}={good}; other=1")
    assert dashboard.ask("GET", "/overview", [fine]).status == 200
    assert dashboard.handshake([fine, ("Origin", dashboard.origin)]) == 101


def test_two_cookie_headers_are_two_cookies(dashboard: Dashboard) -> None:
    good = dashboard.login()
    two = [dashboard.with_cookie(good), dashboard.with_cookie("x")]
    assert dashboard.ask("GET", "/overview", two).status == 303


def test_a_cookie_signed_by_another_process_is_none(dashboard: Dashboard) -> None:
    from atoll_dashboard.gateway import Tokens
    from atoll_dashboard.sessions import Sessions

    elsewhere = Sessions(b"k" * 32, 100, 100)
    cookie = elsewhere.cookie(elsewhere.create(Tokens("a", "r", time.time() + 100, frozenset({"ops:admin"})), "x"))
    assert dashboard.get("/overview", cookie).status == 303


def test_whose_session_ended_is_nobody(dashboard: Dashboard) -> None:
    cookie = dashboard.login()
    assert dashboard.get("/overview", cookie).status == 200
    assert dashboard.logout(cookie).status == 303
    assert dashboard.get("/overview", cookie).status == 303
    assert dashboard.opens(cookie) == 403


# ---- open pages --------------------------------------------------------------------------------------------------


def test_an_open_page_shows_the_fleet_and_closes_when_its_person_signs_out(dashboard: Dashboard) -> None:
    cookie, other = dashboard.login(), dashboard.login("viewer")
    with dashboard.page(cookie) as page, dashboard.page(other) as stays:
        until("payments on the page", lambda: "payments: running" in page.open())
        dashboard.logout(cookie)
        took = page.seconds_until_closed()
        stays.open()
        assert "viewer" in stays.text
    print(f"» a page is closed {took:.1f} s after its person signed out elsewhere (promised: 2 s)")
    assert took <= 6


def test_who_signs_out_loses_a_page_that_answers_nothing_too(dashboard: Dashboard) -> None:
    mine, others = dashboard.login("viewer"), dashboard.login("operator")
    state = dashboard.gateway.state
    with dashboard.stream(mine) as page, dashboard.stream(others) as stays:
        before = state.count("POST", "/auth/revoke")
        assert dashboard.logout(mine).status == 303
        took = page.closed_after(6)
        assert took is not None, "the page of who signed out is still fed"
        assert dashboard.opens(mine) == 403
        assert dashboard.get("/", mine).status == 303
        assert state.count("POST", "/auth/revoke") == before + 1, "the refresh token is given back"
        assert stays.closed_after(1.5) is None, "somebody else's page was closed as well"


def test_who_is_removed_soon_sees_nothing_more(dashboard: Dashboard) -> None:
    """The poller reads with a client of its own: nothing but the warden would ever end a removed viewer's page."""
    state = dashboard.gateway.state
    state.users["otto"] = "viewer"
    mine, others = dashboard.login("otto"), dashboard.login("viewer")
    with dashboard.stream(mine) as page, dashboard.stream(others) as stays:
        state.remove("otto")
        closed, ends = None, time.monotonic() + 25
        while closed is None and time.monotonic() < ends:
            dashboard.get("/", mine)  # as an open page does: it is in use
            closed = page.closed_after(2)
        assert closed is not None, "an account that is gone still has the fleet before it"
        assert dashboard.opens(mine) == 403
        assert stays.closed_after(0.5) is None


def test_sessions_end_by_age_and_by_idleness_and_so_do_open_pages(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("short")
    with running(home, DASHBOARD_SESSION_SECONDS="9", DASHBOARD_IDLE_SECONDS="3") as dashboard:
        with dashboard.page(dashboard.login()) as first:  # the first page of a process is slow, and is nobody's idling
            first.open()
        began = time.monotonic()
        idle, busy, asks = dashboard.login(), dashboard.login(), dashboard.login()
        with dashboard.page(busy) as page, dashboard.stream(busy) as silent:
            while time.monotonic() - began < 3.6:
                page.open()  # an open page is not idle
                assert dashboard.get("/", asks).status == 200  # nor is who asks
                assert silent.closed_after(0.3) is None
            assert dashboard.get("/overview", idle).status == 303
            assert page.seconds_until_closed(12) < 9  # 9 s after the login, used or not, and a second to notice
            assert silent.closed_after(2) is not None
        assert dashboard.get("/overview", busy).status == 303
        assert dashboard.opens(busy) == 403
        assert dashboard.opens(dashboard.login()) == 101


def test_a_frame_too_large_closes_the_page_and_not_the_server(dashboard: Dashboard) -> None:
    cookie = dashboard.login()
    with dashboard.page(cookie) as page:
        message = BackMsg()
        message.rerun_script.query_string = "x" * 2_000_000
        page.wire.send(message.SerializeToString())
        assert page.seconds_until_closed() < 5
    with dashboard.page(cookie) as page:
        page.wire.send("text, not bytes")
        assert page.seconds_until_closed() < 5
    with dashboard.page(cookie) as page:
        page.wire.send(b"\xff\xff\xff")
        assert page.seconds_until_closed() < 5
    assert dashboard.get("/live").status == 200


# ---- what it says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/overview", "/login", "/logout", "/nothing.js", "/live", "/_stcore/health", "/media/x"]
)
@pytest.mark.parametrize("signed_in", [True, False])
def test_every_answer_carries_the_headers(dashboard: Dashboard, path: str, signed_in: bool) -> None:
    answer = dashboard.get(path, dashboard.login() if signed_in else None)
    policy = answer.header("content-security-policy")
    assert "frame-ancestors 'none'" in policy
    scripts = re.search(r"script-src ([^;]*)", policy)
    assert scripts
    assert "unsafe-inline" not in scripts.group(1)
    assert "'unsafe-eval'" not in policy
    assert "*" not in policy
    assert answer.header("x-frame-options") == "DENY"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("referrer-policy") in ("no-referrer", "same-origin")
    assert answer.header("cache-control") == "no-store"
    assert not answer.all("access-control-allow-origin")


def test_refusals_carry_them_too(dashboard: Dashboard) -> None:
    refused = [dashboard.get("/", host="evil.example"), dashboard.ask("POST", "/"), dashboard.get("/overview")]
    for answer in (*refused, dashboard.get("/_stcore/metrics", dashboard.login())):
        assert answer.header("x-frame-options") == "DENY", answer


@pytest.mark.parametrize(
    "path",
    [
        "/_stcore/metrics",
        "/_stcore/agent/openapi.json",
        "/_stcore/agent/mcp",
        "/_stcore/script-health-check",
        "/component/x/y",
        "/auth/login",
        "/oauth2callback",
        "/app/static/x",
    ],
)
def test_of_streamlit_only_what_pages_need(dashboard: Dashboard, path: str) -> None:
    cookie = dashboard.login()
    assert dashboard.get(path, cookie).status == 404
    assert dashboard.get("/_stcore/health", cookie).status == 200


def test_the_health_paths_are_open_by_any_name_and_tell_of_nobody(dashboard: Dashboard) -> None:
    cookie = dashboard.login("viewer")
    for path in ("/live", "/ready", "/metrics"):
        for host in ("", "dashboard-1:8501"):
            answer = dashboard.get(path, host=host)
            assert answer.status == 200
            for secret in ("viewer", "operator", "payments", cookie, dashboard.gateway.url):
                assert secret not in answer.body, (path, secret)
        assert dashboard.ask("POST", path).status == 403
    assert "atoll_dashboard_sessions" in dashboard.get("/metrics").body
