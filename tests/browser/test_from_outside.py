"""Who comes with the wrong origin, host, cookie or form gets nothing done; and who comes with the right one does.

Raw sockets, no browser: a browser would not send most of this. "Nothing done" is asserted where it counts, at the
operators' record and the process id of the part that was aimed at.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import expect

from browser import people, sibling
from browser.conftest import Visitors
from browser.pages import Dashboard
from browser.people import Person, token_of
from browser.rawhttp import Reply, knock, send
from browser.record import Record
from browser.visitor import login_form, post_login, session, sign_out
from fleet import Fleet
from polling import poll_until

EVIL = "http://evil.example"
LET_IN, REFUSED = 101, (400, 401, 403, 421)


@pytest.fixture(scope="module")
def record(whole: Fleet, admin: Person) -> Record:
    """The audit."""
    return Record(whole, admin)


@pytest.fixture(scope="module")
def cookie(dashboard_url: str, olaf: Person) -> str:
    """The Cookie header of a session that may act."""
    return session(dashboard_url, olaf)


@pytest.fixture
def _nothing_is_done(whole: Fleet, record: Record) -> Iterator[None]:
    """No act was carried out or noted while the test ran."""
    before, last = whole.pid("payments"), record.last_id()
    yield
    whole.assert_stays("payments", before, seconds=0.5)
    assert record.since(last) == []


def _closed(reply: Reply) -> bool:
    """Refused, or sent to the login page."""
    to_login = reply.status in (302, 303, 307) and reply.header("location").startswith("/login")
    return reply.status in REFUSED or to_login


# ---- the WebSocket is the way in: whoever holds it can press every button ----------------------------------------


@pytest.mark.usefixtures("_nothing_is_done")
@pytest.mark.parametrize(
    "origin", [EVIL, "null", "", "http://127.0.0.1:1", "https://{host}", "http://{host}.evil.example"]
)
def test_a_foreign_or_missing_origin_gets_no_websocket(dashboard_url: str, cookie: str, origin: str) -> None:
    assert knock(dashboard_url, {"Cookie": cookie, "Origin": dashboard_url}).status == LET_IN
    asked = origin.replace("{host}", dashboard_url.removeprefix("http://"))
    assert knock(dashboard_url, {"Cookie": cookie, "Origin": asked}).status in REFUSED


@pytest.mark.usefixtures("_nothing_is_done")
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "[::1]:{port}@evil"]
)
def test_a_rebound_name_gets_nothing(dashboard_url: str, cookie: str, host: str) -> None:
    """DNS rebinding: the attacker's page reaches us under the attacker's name, origin and all."""
    name = host.replace("{port}", dashboard_url.rsplit(":", 1)[1])
    assert knock(dashboard_url, {"Cookie": cookie, "Host": name, "Origin": f"http://{name}"}).status in REFUSED
    assert send(dashboard_url, "GET", "/", {"Cookie": cookie, "Host": name}).status in REFUSED
    assert send(dashboard_url, "GET", "/login", {"Host": name}).status in REFUSED
    assert send(dashboard_url, "GET", "/", {"Cookie": cookie}).status == 200


def _spoilt(cookie: str) -> dict[str, str]:
    """Cookies that nobody was given, each near to a real one."""
    name, _, value = cookie.partition("=")
    middle = len(value) // 2
    flipped = value[:middle] + ("A" if value[middle] != "A" else "B") + value[middle + 1 :]
    return {
        "none": "",
        "empty": f"{name}=",
        "garbage": f"{name}=olaf",
        "altered": f"{name}={flipped}",
        "cut": f"{name}={value[:-4]}",
        "under another name": f"x{name}={value}",
        "long": f"{name}={'A' * 6000}",
    }


@pytest.mark.usefixtures("_nothing_is_done")
@pytest.mark.parametrize("how", ["none", "empty", "garbage", "altered", "cut", "under another name", "long"])
def test_a_forged_cookie_opens_neither_page_nor_websocket(dashboard_url: str, cookie: str, how: str) -> None:
    forged = _spoilt(cookie)[how]
    assert knock(dashboard_url, {"Cookie": cookie, "Origin": dashboard_url}).status == LET_IN
    assert knock(dashboard_url, {"Cookie": forged, "Origin": dashboard_url}).status in REFUSED
    for path in ("/", "/operations", "/service?name=payments", "/traces"):
        assert _closed(send(dashboard_url, "GET", path, {"Cookie": forged})), path


@pytest.mark.usefixtures("_nothing_is_done")
@pytest.mark.parametrize(
    "path",
    ["/_stcore/stream", "/_stcore/upload_file/x/y", "/_stcore/host-config", "/media/x", "/component/x/index.html",
     "//", "/login/../", "/%2e%2e/", "/static/../", "/_stcore/../_stcore/stream"],
)  # fmt: skip
def test_without_a_session_no_path_around_the_guard_shows_the_fleet(dashboard_url: str, path: str) -> None:
    reply = send(dashboard_url, "GET", path)
    assert reply.status != 500
    assert "payments" not in reply.body
    assert knock(dashboard_url, {"Origin": dashboard_url}, path).status != LET_IN


@pytest.mark.usefixtures("_nothing_is_done")
def test_the_cookie_of_who_signed_out_is_worth_nothing(dashboard_url: str, olaf: Person) -> None:
    mine = session(dashboard_url, olaf)
    assert knock(dashboard_url, {"Cookie": mine, "Origin": dashboard_url}).status == LET_IN
    out = sign_out(dashboard_url, mine)
    assert out.status in (302, 303), out
    assert knock(dashboard_url, {"Cookie": mine, "Origin": dashboard_url}).status in REFUSED
    assert _closed(send(dashboard_url, "GET", "/", {"Cookie": mine}))


@pytest.mark.parametrize("limit", ["DASHBOARD_SESSION_SECONDS", "DASHBOARD_IDLE_SECONDS"])
def test_an_expired_cookie_opens_nothing(whole: Fleet, olaf: Person, tmp_path: Path, limit: str) -> None:
    with sibling.dashboard(whole, tmp_path, **{limit: "6"}) as url:
        mine = session(url, olaf)
        assert send(url, "GET", "/", {"Cookie": mine}).status == 200
        assert knock(url, {"Cookie": mine, "Origin": url}).status == LET_IN
        time.sleep(6.1)  # time is the thing: since it was last used, which is later than the login
        assert knock(url, {"Cookie": mine, "Origin": url}).status in REFUSED
        assert _closed(send(url, "GET", "/operations", {"Cookie": mine}))
        assert send(url, "GET", "/", {"Cookie": session(url, olaf)}).status == 200


@pytest.mark.usefixtures("_nothing_is_done")
def test_a_cookie_of_another_dashboard_is_a_forged_one(
    whole: Fleet, olaf: Person, dashboard_url: str, cookie: str, tmp_path: Path
) -> None:
    """It is well formed and well signed, by a key that is not ours; and it bears the name of ours."""
    with sibling.dashboard(whole, tmp_path) as url:
        theirs = session(url, olaf)
        assert knock(url, {"Cookie": theirs, "Origin": url}).status == LET_IN
        renamed = f"{cookie.partition('=')[0]}={theirs.partition('=')[2]}"
        assert knock(dashboard_url, {"Cookie": cookie, "Origin": dashboard_url}).status == LET_IN
        assert knock(dashboard_url, {"Cookie": renamed, "Origin": dashboard_url}).status in REFUSED
        assert _closed(send(dashboard_url, "GET", "/", {"Cookie": renamed}))


# ---- forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [EVIL, "null"])
def test_nobody_is_logged_in_or_out_by_a_foreign_page(
    dashboard_url: str, olaf: Person, cookie: str, origin: str
) -> None:
    assert post_login(dashboard_url, olaf).status in (302, 303)
    forged = post_login(dashboard_url, olaf, headers={"Origin": origin})
    assert forged.status in REFUSED
    assert not forged.set_cookies()
    assert send(dashboard_url, "POST", "/logout", {"Cookie": cookie, "Origin": origin}).status in REFUSED
    send(dashboard_url, "GET", "/logout", {"Cookie": cookie})  # what an image on a foreign page would do
    assert knock(dashboard_url, {"Cookie": cookie, "Origin": dashboard_url}).status == LET_IN, "was signed out"


def test_a_login_without_origin_and_without_what_the_form_holds_is_refused(dashboard_url: str, olaf: Person) -> None:
    form, _ = login_form(dashboard_url)
    without = dict.fromkeys(form.hidden, "")
    refused = post_login(dashboard_url, olaf, headers={"Origin": "", "Cookie": ""}, change=without)
    assert refused.status in REFUSED
    assert not refused.set_cookies()


@pytest.mark.parametrize(
    "where",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "///evil.example", "javascript:alert(1)",
     "/%5cevil.example", "http:evil.example", "\t//evil.example", "/\t/evil.example", "@evil.example"],
)  # fmt: skip
def test_the_login_sends_nobody_elsewhere(dashboard_url: str, olaf: Person, where: str) -> None:
    from urllib.parse import quote, urljoin, urlsplit

    reply = post_login(dashboard_url, olaf, path=f"/login?next={quote(where, safe='')}", change={"next": where})
    assert reply.status in (302, 303, *REFUSED), reply
    # As a browser reads it: backslashes are slashes, tabs and line ends are nothing.
    target = re.sub(r"[\t\r\n]", "", reply.header("location")).replace("\\", "/")
    assert urlsplit(urljoin(f"{dashboard_url}/login", target)).netloc in ("", urlsplit(dashboard_url).netloc), target
    ours = post_login(dashboard_url, olaf, path="/login?next=%2Foperations", change={"next": "/operations"})
    assert ours.header("location").endswith("/operations")


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(dashboard_url: str, olaf: Person) -> None:
    reply = post_login(dashboard_url, olaf)
    assert reply.status in (302, 303), reply
    assert reply.set_cookies()
    for line in reply.set_cookies():
        attributes = {part.strip().lower() for part in line.split(";")[1:]}
        assert "httponly" in attributes, line
        assert attributes & {"samesite=lax", "samesite=strict"}, line
        assert "path=/" in attributes, line
        assert olaf.password not in line


@pytest.mark.parametrize("path", ["/login", "/", "/operations"])
def test_no_page_can_be_framed_or_sniffed(dashboard_url: str, cookie: str, path: str) -> None:
    reply = send(dashboard_url, "GET", path, {"Cookie": cookie if path != "/login" else ""})
    assert reply.status == 200
    policy = reply.header("content-security-policy")
    assert "frame-ancestors 'none'" in policy or reply.header("x-frame-options").upper() == "DENY", reply.headers
    assert reply.header("x-content-type-options") == "nosniff"
    assert reply.header("referrer-policy") in ("no-referrer", "same-origin", "strict-origin-when-cross-origin")


# ---- in the page -------------------------------------------------------------------------------------------------


def test_an_operator_revoked_while_his_page_is_open_gets_nothing_done(
    visit: Visitors, whole: Fleet, record: Record
) -> None:
    otto = people.add(whole, f"otto-{uuid4().hex[:6]}", "operator")
    tab = visit.afresh(otto)
    before = whole.pid("payments")
    tab.choose("payments", "Kill")
    tab.fill_dialog("otto was here", typed="payments")
    confirm = tab.confirm_button("Kill", "payments")
    expect(confirm).to_be_enabled()
    last, token = record.last_id(), token_of(whole, otto)
    people.remove(whole, otto)
    poll_until(
        "the revocation to reach the gateway",
        lambda: whole.call("GET", "/ops/snapshot", token=token).status, lambda status: status == 401, seconds=5,
    )  # fmt: skip
    confirm.click()
    said = tab.page.get_by_role("alert").or_(tab.page.get_by_role("button", name="Sign in"))
    expect(said.first).to_be_visible()
    whole.assert_stays("payments", before)
    assert record.since(last) == [] or all("denied" in str(row["result"]) for row in record.since(last))


def test_words_of_others_are_shown_and_never_run(visit: Visitors, olaf: Person, whole: Fleet, record: Record) -> None:
    planted = f"<img src=x onerror=window.ran=1><script>window.ran=1</script>[a](javascript:window.ran=1){uuid4().hex}"
    tab = visit(olaf)
    tab.act("sales", "Restart", planted)
    record.wait_for(act="restart", target="sales/1", reason=planted)
    order = {
        "invoice": f"<img src=x onerror=window.ran=1>{uuid4().hex[:6]}", "customer": "<svg onload=window.ran=1>",
        "country": "<b>Norway</b>", "placed_at": "2026-01-05T09:30:00Z",
        "lines": [{"sku": "85123A", "description": "<script>window.ran=1</script>", "quantity": 1, "unit_price": "1"}],
    }  # fmt: skip
    placed = whole.call("POST", "/orders", order)
    assert placed.status in (202, 422), placed
    whole.call("GET", "/orders?customer=<img src=x onerror=window.ran=1>".replace(" ", "%20"))
    for path, heading, shows in (
        ("/operations", "Operations", True), ("/service?name=sales", "sales", True), ("/", "Overview", False),
        ("/traces", "Traces", False),
    ):  # fmt: skip
        tab.open(path, heading)
        tab.strip.wait_for()
        if shows:
            expect(tab.page.get_by_role("main")).to_contain_text("<img src=x onerror")
        assert tab.page.evaluate("window.ran") is None, f"a script ran on {path}"
        assert _handlers(tab) == 0, f"words became elements on {path}"


def test_an_element_that_slipped_in_is_noticed_and_its_script_still_not_run(visit: Visitors, olaf: Person) -> None:
    """The control of the test above; and the second wall, the page's own policy, holds where the first had failed."""
    tab = visit(olaf)
    with tab.page.expect_console_message(lambda message: "Content Security Policy" in message.text):
        tab.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.ran=1>')")
    assert _handlers(tab) == 1
    assert tab.page.evaluate("window.ran") is None


def _handlers(tab: Dashboard) -> int:
    """Elements of the page that would run what somebody wrote."""
    planted = "[...document.querySelectorAll('[onerror],[onload],a[href^=javascript]')].length"
    return int(tab.page.evaluate(planted))


def test_who_signs_out_in_one_tab_is_out_in_all(visit: Visitors, olaf: Person, dashboard_url: str) -> None:
    tab = visit.afresh(olaf)
    other = Dashboard(tab.page.context.new_page(), dashboard_url).open("/", "Overview")
    tab.page.get_by_role("link", name="Sign out").click()
    tab.page.get_by_role("button", name="Sign out").click()
    expect(tab.page.get_by_role("button", name="Sign in")).to_be_visible()
    expect(other.actions("payments")).to_have_count(0, timeout=20_000)
    other.open("/")
    expect(other.page.get_by_role("button", name="Sign in")).to_be_visible()


# ---- the API behind it -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_nothing_is_done")
@pytest.mark.parametrize("how", ["none", "garbage", "altered", "of another kind"])
def test_the_api_acts_for_no_forged_token(whole: Fleet, olaf: Person, how: str) -> None:
    answer = people.log_in(whole, olaf).body
    good = answer["access_token"]
    middle = len(good) // 2
    token = {
        "none": "",
        "garbage": "olaf",
        "altered": good[:middle] + ("A" if good[middle] != "A" else "B") + good[middle + 1 :],
        "of another kind": answer["refresh_token"],
    }[how]
    refused = whole.call("POST", "/ops/instances/payments/1/kill", {"reason": "forged"}, token=token,
                         headers={"Idempotency-Key": uuid4().hex})  # fmt: skip
    assert refused.status == 401, refused
    assert whole.call("GET", "/ops/snapshot", token=good).status == 200
