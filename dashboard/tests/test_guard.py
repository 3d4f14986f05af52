"""Nobody gets past the guard with the wrong host, origin or cookie; with the right one the same request does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboard_process import Dashboard, as_header, dashboard, until
from fake_gateway import FakeGateway, fake_gateway

PAGES = ("/", "/operations", "/traces", "/service?name=payments")
INSIDE = ("/_stcore/health", "/_stcore/host-config", "/_stcore/metrics", "/media/x.png", "/component/x/index.html",
          "/static/js/index.js", "/_stcore/upload_file/x/y", "/atoll/focus-cancel.js")  # fmt: skip


@pytest.fixture(scope="module")
def gateway() -> Iterator[FakeGateway]:
    with fake_gateway() as running:
        yield running


@pytest.fixture(scope="module")
def board(gateway: FakeGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with dashboard(tmp_path_factory.mktemp("d"), gateway.url) as running:
        yield running


@pytest.fixture(scope="module")
def cookies(board: Dashboard) -> dict[str, str]:
    return board.session("operator")


def opens(board: Dashboard, **headers: str) -> int:
    """The status of a WebSocket handshake; the socket is closed again."""
    status, stream = board.knock({"Origin": board.url} | {name.title(): value for name, value in headers.items()})
    if stream is not None:
        stream.hang_up()
    return status


# ---- host --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "127.0.0.1", "127.0.0.1:1",
             "127.0.0.1:{port}.", "0.0.0.0:{port}", ""],
)  # fmt: skip
def test_another_hosts_name_reaches_nothing(board: Dashboard, cookies: dict[str, str], host: str) -> None:
    named = host.replace("{port}", str(board.port))
    cookie = as_header(cookies)
    for path in ("/", "/login", *INSIDE):
        assert board.send("GET", path, {"Host": named, "Cookie": cookie}).status in (400, 403, 421), path
    assert opens(board, host=named, cookie=cookie, origin=f"http://{named}") in (400, 403)
    assert board.send("GET", "/", {"Cookie": cookie}).status == 200
    assert opens(board, cookie=cookie) == 101


def test_localhost_is_a_name_of_ours(board: Dashboard, cookies: dict[str, str]) -> None:
    host = f"localhost:{board.port}"
    assert board.send("GET", "/", {"Host": host, "Cookie": as_header(cookies)}).status == 200
    assert opens(board, host=host, origin=f"http://{host}", cookie=as_header(cookies)) == 101
    assert opens(board, host=host, cookie=as_header(cookies)) == 403, "one of our origins, yet not this page's"


# ---- origin ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    ["", "null", "http://evil.example", "https://{own}", "http://{own}.evil.example", "http://{own}/", "{own}"],
)
def test_a_foreign_origin_opens_and_changes_nothing(board: Dashboard, cookies: dict[str, str], origin: str) -> None:
    named = origin.replace("{own}", f"127.0.0.1:{board.port}")
    assert opens(board, cookie=as_header(cookies), origin=named) == 403
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for path in ("/login", "/logout", "/", "/_stcore/upload_file/x/y"):
            reply = board.send(method, path, {"Origin": named, "Cookie": as_header(cookies)})
            assert reply.status == 403, (method, path)
    assert opens(board, cookie=as_header(cookies)) == 101


# ---- cookie ------------------------------------------------------------------------------------------------------


def forged(cookies: dict[str, str]) -> dict[str, str]:
    ((name, value),) = cookies.items()
    middle = len(value) // 2
    other = "A" if value[middle] != "A" else "B"
    return {
        "none": "",
        "empty": f"{name}=",
        "garbage": f"{name}=x",
        "altered": f"{name}={value[:middle]}{other}{value[middle + 1 :]}",
        "cut": f"{name}={value[:-2]}",
        "unsigned": f"{name}={value.split('.')[0]}",
        "renamed": f"x{name}={value}",
        "twice": f"{name}={value}; {name}=x",
        "long": f"{name}={'A' * 6000}",
    }


@pytest.mark.parametrize("how", ["none", "empty", "garbage", "altered", "cut", "unsigned", "renamed", "twice", "long"])
def test_without_a_session_there_is_the_login_alone(board: Dashboard, cookies: dict[str, str], how: str) -> None:
    header = forged(cookies)[how]
    for path in PAGES:
        reply = board.send("GET", path, {"Cookie": header})
        assert (reply.status, reply.header("location")[:12]) == (303, "/login?next="), path
    for path in INSIDE:
        assert board.send("GET", path, {"Cookie": header}).status == 403, path
    assert opens(board, cookie=header) == 403
    assert opens(board, cookie=as_header(cookies)) == 101
    assert board.send("GET", "/_stcore/health", {"Cookie": as_header(cookies)}).status == 200


def test_health_is_for_everybody_and_tells_nothing_of_the_fleet(board: Dashboard) -> None:
    for path in ("/live", "/ready", "/metrics"):
        reply = board.send("GET", path)
        assert reply.status == 200
        assert "payments" not in reply.body


def test_who_signs_out_loses_his_open_page(board: Dashboard, gateway: FakeGateway) -> None:
    mine, others = board.session("viewer"), board.session("operator")
    (_, stream), (_, kept) = (board.knock({"Origin": board.url, "Cookie": as_header(one)}) for one in (mine, others))
    assert stream is not None
    assert kept is not None
    fields, _ = board.form("/logout", mine)
    before = len(gateway.revoked)
    assert board.post("/logout", fields, mine).status == 303
    closed = stream.closed_after(5)
    assert closed is not None, "the page of who signed out is still fed"
    assert closed[0] < 2.5
    assert opens(board, cookie=as_header(mine)) == 403
    assert board.send("GET", "/", {"Cookie": as_header(mine)}).status == 303
    assert len(gateway.revoked) == before + 1, "the refresh token is given back"
    assert kept.closed_after(1.5) is None, "somebody else's page was closed as well"
    kept.hang_up()


def test_a_sign_out_needs_the_sessions_own_form(board: Dashboard) -> None:
    mine = board.session("viewer")
    for fields in ({}, {"form": "x"}):
        assert board.post("/logout", fields, mine).status == 403
    assert opens(board, cookie=as_header(mine)) == 101
    assert board.send("GET", "/logout", {"Cookie": as_header(mine)}).status == 200
    assert opens(board, cookie=as_header(mine)) == 101, "looking at the question is not the answer"


# ---- time --------------------------------------------------------------------------------------------------------


def test_a_session_ends_by_the_clock_and_its_open_page_with_it(gateway: FakeGateway, tmp_path: Path) -> None:
    with dashboard(tmp_path, gateway.url, DASHBOARD_SESSION_SECONDS="3") as board:
        mine = board.session("viewer")
        began = time.monotonic()
        status, stream = board.knock({"Origin": board.url, "Cookie": as_header(mine)})
        assert status == 101
        assert stream is not None
        closed = stream.closed_after(8)
        assert closed is not None, "still open"
        assert time.monotonic() - began > 2
        assert opens(board, cookie=as_header(mine)) == 403
        assert opens(board, cookie=as_header(board.session("viewer"))) == 101


def test_a_session_without_an_open_page_grows_idle(gateway: FakeGateway, tmp_path: Path) -> None:
    with dashboard(tmp_path, gateway.url, DASHBOARD_IDLE_SECONDS="2") as board:
        left, kept = board.session("viewer"), board.session("operator")
        for _ in range(4):
            time.sleep(1)
            assert board.send("GET", "/", {"Cookie": as_header(kept)}).status == 200
        assert board.send("GET", "/", {"Cookie": as_header(left)}).status == 303


def test_who_is_removed_soon_sees_nothing_more(board: Dashboard, gateway: FakeGateway) -> None:
    """The poller reads with a client of its own: nothing but this would ever end a removed viewer's page."""
    gateway.people["otto"] = ("password of otto", "ops:read")
    mine, others = board.session("otto"), board.session("viewer")
    (_, stream), (_, kept) = (board.knock({"Origin": board.url, "Cookie": as_header(one)}) for one in (mine, others))
    assert stream is not None
    assert kept is not None
    gateway.forget("otto")
    closed = None
    ends = time.monotonic() + 25
    while closed is None and time.monotonic() < ends:
        board.send("GET", "/", {"Cookie": as_header(mine)})  # as an open page does: it is in use
        closed = stream.closed_after(2)
    assert closed is not None, "an account that is gone still has the fleet before it"
    assert opens(board, cookie=as_header(mine)) == 403
    assert kept.closed_after(0.5) is None
    kept.hang_up()


# ---- headers, key ------------------------------------------------------------------------------------------------


def test_no_page_is_framed_sniffed_or_kept(board: Dashboard, cookies: dict[str, str]) -> None:
    for path, cookie in (("/", as_header(cookies)), ("/login", ""), ("/nothing.js", as_header(cookies))):
        reply = board.send("GET", path, {"Cookie": cookie})
        assert "frame-ancestors 'none'" in reply.header("content-security-policy"), path
        assert "unsafe-eval'" not in reply.header("content-security-policy").replace("wasm-unsafe-eval'", "")
        assert reply.header("x-frame-options") == "DENY"
        assert reply.header("x-content-type-options") == "nosniff"
        assert reply.header("referrer-policy") in ("no-referrer", "same-origin")
    assert board.send("GET", "/login").header("cache-control") == "no-store"


def test_the_cookie_is_for_the_server_alone(board: Dashboard) -> None:
    reply = board.sign_in("operator")
    (line,) = (value for name, value in reply.headers if name == "set-cookie" and "form" not in value.split("=")[0])
    assert {"httponly", "samesite=strict", "path=/"} <= {one.strip().lower() for one in line.split(";")}
    assert "password of" not in line


def test_the_signing_key_is_its_owners_alone(board: Dashboard) -> None:
    kept = [path for path in board.data.rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        assert path.stat().st_mode & 0o077 == 0, path


def test_after_a_restart_people_sign_in_again(gateway: FakeGateway, tmp_path: Path) -> None:
    with dashboard(tmp_path, gateway.url) as first:
        mine = first.session("viewer")
        assert opens(first, cookie=as_header(mine)) == 101
    with dashboard(tmp_path, gateway.url) as second:
        assert opens(second, cookie=as_header(mine)) == 403
        assert opens(second, cookie=as_header(second.session("viewer"))) == 101


# ---- its end -----------------------------------------------------------------------------------------------------


def test_sigterm_ends_it_though_pages_are_open(gateway: FakeGateway, tmp_path: Path) -> None:
    with dashboard(tmp_path, gateway.url) as board:
        mine = board.session("viewer")
        streams = [board.knock({"Origin": board.url, "Cookie": as_header(mine)})[1] for _ in range(5)]
        assert all(streams)
        began = time.monotonic()
        board.process.terminate()
        until("the process to end", lambda: board.process.poll() is not None, 10)
        assert time.monotonic() - began < 3
        assert board.process.returncode == 0
