"""The guard, each rule with its control: the same request with the right cookie, Origin and Host passes."""

from __future__ import annotations

import base64
import os
import re
import socket
import time

import pytest
from serving import COOKIE, Dashboard, Pairs, running, until
from streamlit.proto.BackMsg_pb2 import BackMsg


def handshake(dashboard: Dashboard, headers: Pairs, host: str = "", path: str = "/_stcore/stream") -> int:
    """The status that a WebSocket handshake gets."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {path} HTTP/1.1", f"Host: {host or dashboard.host}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in headers),
    ]
    with socket.create_connection(("127.0.0.1", dashboard.port), timeout=5) as wire:
        wire.sendall(("\r\n".join([*lines, "", ""])).encode("latin-1"))
        return int(wire.recv(4096).split()[1])


# ---- Host --------------------------------------------------------------------------------------------------------


def test_our_own_names_are_answered(dashboard: Dashboard) -> None:
    cookie = dashboard.login()
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        assert dashboard.get("/overview", cookie, host=f"{name}:{dashboard.port}").status == 200, name


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1.evil.example:{port}",
        "127.0.0.1:{port}@evil.example",
        "evil.example@127.0.0.1:{port}",
        "localhost.:{port}",
        "0.0.0.0:{port}",
        "127.1:{port}",
        None,
    ],
)
@pytest.mark.parametrize("path", ["/overview", "/login", "/static/x.js", "/_stcore/health"])
def test_another_host_is_not_us_whoever_asks(dashboard: Dashboard, host: str | None, path: str) -> None:
    cookie = dashboard.login()
    asked = host.format(port=dashboard.port) if host else None
    assert dashboard.get(path, cookie, host=asked).status in (400, 421)
    assert dashboard.get(path, cookie).status in (200, 303, 404)  # the control


def test_two_hosts_are_refused(dashboard: Dashboard) -> None:
    cookie = ("Cookie", f"{COOKIE}={dashboard.login()}")
    assert dashboard.ask("GET", "/overview", [("Host", "evil.example"), cookie]).status in (400, 421)
    assert dashboard.ask("GET", "/overview", [("Host", dashboard.host), cookie]).status in (400, 421)


def test_the_target_of_a_request_is_not_its_host(dashboard: Dashboard) -> None:
    cookie = [("Cookie", f"{COOKIE}={dashboard.login()}")]
    assert dashboard.ask("GET", "http://evil.example/overview", cookie, host="evil.example").status in (400, 421)


def test_a_rebound_name_opens_no_websocket(dashboard: Dashboard) -> None:
    cookie = ("Cookie", f"{COOKIE}={dashboard.login()}")
    name = f"evil.example:{dashboard.port}"
    assert handshake(dashboard, [cookie, ("Origin", f"http://{name}")], host=name) == 403
    assert handshake(dashboard, [cookie, ("Origin", dashboard.origin)]) == 101


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
    cookie = ("Cookie", f"{COOKIE}={dashboard.login()}")
    assert handshake(dashboard, [cookie, *origins(dashboard, given)]) in (400, 403)
    assert handshake(dashboard, [cookie, ("Origin", dashboard.origin)]) == 101


@pytest.mark.parametrize("given", FOREIGN, ids=str)
def test_a_foreign_origin_signs_nobody_in(dashboard: Dashboard, given: list[str]) -> None:
    token, cookie = dashboard.form()
    body = f"form={token}&username=operator&password=pw-operator".encode()
    common = [("Cookie", f"atoll_dashboard_form={cookie}"), ("Content-Type", "application/x-www-form-urlencoded")]
    refused = dashboard.ask("POST", "/login", [*common, *origins(dashboard, given)], body)
    assert (refused.status, refused.cookie()) == (403, "")
    passed = dashboard.ask("POST", "/login", [*common, ("Origin", dashboard.origin)], body)
    assert passed.status == 303
    assert passed.cookie()


@pytest.mark.parametrize("given", [one for one in FOREIGN if one], ids=str)
def test_a_script_of_another_page_reads_nothing(dashboard: Dashboard, given: list[str]) -> None:
    cookie = ("Cookie", f"{COOKIE}={dashboard.login()}")
    assert dashboard.ask("GET", "/overview", [cookie, *origins(dashboard, given)]).status == 403
    assert dashboard.ask("GET", "/overview", [cookie, ("Origin", dashboard.origin)]).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PURGE"])
@pytest.mark.parametrize("path", ["/overview", "/_stcore/upload_file/a/b", "/_stcore/agent/interact", "/media/x"])
def test_nothing_is_changed_here(dashboard: Dashboard, method: str, path: str) -> None:
    cookie = ("Cookie", f"{COOKIE}={dashboard.login()}")
    assert dashboard.ask(method, path, [cookie]).status == 403
    assert dashboard.ask(method, path, [cookie, ("Origin", dashboard.origin)]).status == 405
    assert dashboard.ask(method, path, [("Origin", dashboard.origin)]).status == 403


# ---- the cookie --------------------------------------------------------------------------------------------------


def test_without_a_session_there_is_the_login_and_nothing_else(dashboard: Dashboard) -> None:
    for path in ("/", "/overview", "/service?name=payments", "//evil.example/x", "/%2e%2e/x"):
        answer = dashboard.get(path)
        assert answer.status == 303, path
        assert answer.header("location").startswith("/login?next="), path
    files = ("/static/js/index.js", "/media/x.csv", "/favicon.png", "/live/x.y")
    for path in (*files, "/_stcore/health", "/_stcore/host-config"):
        assert dashboard.get(path).status == 403, path
    assert handshake(dashboard, [("Origin", dashboard.origin)]) == 403
    assert dashboard.ask("HEAD", "/overview").status == 303
    assert dashboard.ask("OPTIONS", "/overview").status == 403


def forged(good: str) -> dict[str, str]:
    """Cookies that are not of a session; each begins with the good one's shape."""
    name, stamp, signature = good.rsplit(".", 2)
    other = ("A" if signature[0] != "A" else "B") + signature[1:]
    return {
        "another signature": f"{COOKIE}={name}.{stamp}.{other}",
        "another id": f"{COOKIE}={'x' * len(name)}.{stamp}.{signature}",
        "another time": f"{COOKIE}={name}.aaaaaa.{signature}",
        "the id alone": f"{COOKIE}={name}",
        "empty": f"{COOKIE}=",
        "two, the good one first": f"{COOKIE}={good}; {COOKIE}=x",
        "two, the good one last": f"{COOKIE}=x; {COOKIE}={good}",
        "two, both good": f"{COOKIE}={good}; {COOKIE}={good}",
        "two, one with a space": f"{COOKIE}={good}; {COOKIE} =x",
        "quoted": f'{COOKIE}="{good}"',
        "another case": f"{COOKIE.upper()}={good}",
        "long": f"{COOKIE}={good}{'.' * 5000}",
        "no ASCII": f"{COOKIE}={good}\xe9",
    }


@pytest.mark.parametrize("which", list(forged("a.b.c")))
def test_a_forged_cookie_is_none(dashboard: Dashboard, which: str) -> None:
    good = dashboard.login()
    bad = ("Cookie", forged(good)[which])
    assert dashboard.ask("GET", "/overview", [bad]).status == 303
    assert dashboard.ask("GET", "/static/x.js", [bad]).status == 403
    assert handshake(dashboard, [bad, ("Origin", dashboard.origin)]) == 403
    fine = ("Cookie", f"theme=dark; {COOKIE}={good}; other=1")
    assert dashboard.ask("GET", "/overview", [fine]).status == 200
    assert handshake(dashboard, [fine, ("Origin", dashboard.origin)]) == 101


def test_two_cookie_headers_are_two_cookies(dashboard: Dashboard) -> None:
    good = dashboard.login()
    two = [("Cookie", f"{COOKIE}={good}"), ("Cookie", f"{COOKIE}=x")]
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
    assert handshake(dashboard, [("Cookie", f"{COOKIE}={cookie}"), ("Origin", dashboard.origin)]) == 403


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
    assert took <= 2.5


def test_sessions_end_by_age_and_by_idleness_and_so_do_open_pages(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("short")
    with running(home, DASHBOARD_SESSION_SECONDS="4", DASHBOARD_IDLE_SECONDS="2") as dashboard:
        idle, busy = dashboard.login(), dashboard.login()
        began = time.monotonic()
        with dashboard.page(busy) as page:
            while time.monotonic() - began < 3:
                page.open()  # an open page is not idle
                time.sleep(0.3)
            assert dashboard.get("/overview", idle).status == 303
            assert page.seconds_until_closed(5) < 4  # 4 s after the login, used or not, and a second to notice
        assert dashboard.get("/overview", busy).status == 303


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
    "path", ["/overview", "/login", "/logout", "/nothing.js", "/live", "/_stcore/health", "/media/x"]
)
@pytest.mark.parametrize("signed_in", [True, False])
def test_every_answer_carries_the_headers(dashboard: Dashboard, path: str, signed_in: bool) -> None:
    answer = dashboard.get(path, dashboard.login() if signed_in else None)
    policy = answer.header("content-security-policy")
    assert "frame-ancestors 'none'" in policy
    scripts = re.search(r"script-src ([^;]*)", policy)
    assert scripts
    assert "unsafe-inline" not in scripts.group(1)
    assert "'unsafe-eval'" not in scripts.group(1)
    assert "*" not in policy
    assert answer.header("x-frame-options") == "DENY"
    assert answer.header("x-content-type-options") == "nosniff"
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
        answer = dashboard.get(path, host="dashboard-1:8501")
        assert answer.status == 200
        for secret in ("viewer", "operator", "payments", cookie, dashboard.gateway.url):
            assert secret not in answer.body, (path, secret)
        assert dashboard.ask("POST", path).status == 403
    assert "atoll_dashboard_sessions" in dashboard.get("/metrics").body
