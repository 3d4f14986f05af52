"""An operator at work: every act by role and name, as a person with a keyboard or a screen reader finds it."""

from __future__ import annotations

import re
import time
from uuid import uuid4

import pytest
from playwright.sync_api import expect

from browser.conftest import Visitors
from browser.people import Person, token_of
from browser.record import Record
from fleet import Fleet
from measured import say
from polling import poll_until

SEEN_DOWN_SECONDS, BACK_SECONDS = 1.0, 5.0
PROMISES = 3  # a promise in seconds fails at three times the promise
CLICKS_MAX = 3  # from the row to the open dialog


@pytest.fixture(scope="module")
def record(whole: Fleet, admin: Person) -> Record:
    """The audit."""
    return Record(whole, admin)


@pytest.fixture
def reason() -> str:
    """A reason that no other test gives."""
    return f"drill {uuid4().hex[:8]}"


def test_a_wrong_password_is_said_and_lets_nobody_in(visit: Visitors, vera: Person) -> None:
    tab = visit.stranger().open("/")
    tab.sign_in(Person("vera", "not her password at all", "viewer"))
    expect(tab.page.get_by_role("alert")).to_be_visible()
    expect(tab.page.get_by_role("button", name="Sign in")).to_be_visible()
    assert (
        tab.page.context.cookies() == []
        or tab.open("/service?name=payments").page.get_by_role("button", name="Sign in").is_visible()
    )


def test_who_logs_in_sees_the_fleet(visit: Visitors, vera: Person, whole: Fleet) -> None:
    tab = visit.afresh(vera)
    expect(tab.strip).to_contain_text("vera")
    expect(tab.strip).to_contain_text("viewer")
    for name in ("broker", "auth", "gateway", "orders", "inventory", "payments", "sales", "notifications", "journal"):
        tab.expect_state(name, "running")
    for page in ("Traces", "Operations", "Overview"):
        tab.follow(page)


def test_payments_is_killed_in_three_clicks_and_comes_back(
    visit: Visitors, olaf: Person, whole: Fleet, record: Record, reason: str
) -> None:
    tab = visit(olaf)
    tab.expect_state("payments", "running")
    before = whole.pid("payments")
    with tab.counted_clicks() as clicks:
        tab.choose("payments", "Kill")
        expect(tab.dialog.get_by_role("heading", name="Kill payments")).to_be_visible()
    assert clicks[0] <= CLICKS_MAX, f"{clicks[0]} clicks to the dialog"
    expect(tab.dialog).to_contain_text("healthy instance")  # the blast radius, before anything is done
    tab.fill_dialog(reason, typed="payments")
    confirm = tab.confirm_button("Kill", "payments")
    expect(confirm).to_be_enabled()
    confirmed = time.monotonic()
    confirm.click()
    tab.badge("payments", "(down|starting|stopped)").wait_for()
    seen_down = time.monotonic() - confirmed
    tab.expect_state("payments", "running")
    back = time.monotonic() - confirmed
    say(f"dashboard: payments killed from its row in {clicks[0]} clicks and the dialog; seen down after "
        f"{seen_down:.1f} s (promise {SEEN_DOWN_SECONDS:.0f} s), back after {back:.1f} s "
        f"(promise {BACK_SECONDS:.0f} s)")  # fmt: skip
    assert whole.pid("payments") != before
    assert seen_down < SEEN_DOWN_SECONDS * PROMISES
    assert back < BACK_SECONDS * PROMISES
    row = record.wait_for(act="kill", target="payments/1", reason=reason)
    assert row["who"] == "olaf"


def test_operations_names_operator_and_reason(visit: Visitors, olaf: Person, record: Record, reason: str) -> None:
    tab = visit(olaf)
    tab.act("sales", "Restart", reason)
    record.wait_for(act="restart", target="sales/1", reason=reason)
    tab.follow("Operations")
    row = tab.page.get_by_role("table").get_by_role("row").filter(has_text=reason)
    for text in ("olaf", "restart", "sales"):
        expect(row).to_contain_text(text)
    expect(row).to_contain_text(re.compile("done|started|running|ok", re.IGNORECASE))
    tab.open("/").expect_state("sales", "running")


def test_a_viewer_sees_no_button_and_the_api_refuses_her(
    visit: Visitors, vera: Person, olaf: Person, whole: Fleet, record: Record
) -> None:
    tab = visit(vera)
    tab.expect_state("payments", "running")
    assert tab.page.get_by_role("button", name=re.compile("^Actions for ")).count() == 0
    tab.open("/service?name=payments", "payments")
    assert tab.page.get_by_role("button", name=re.compile("^Actions for |^(Kill|Stop|Restart|Pause)")).count() == 0
    expect(visit(olaf).actions("payments")).to_be_visible()  # the control: an operator has what she has not
    before, last = whole.pid("payments"), record.last_id()
    answer = whole.call(
        "POST", "/ops/instances/payments/1/kill", {"reason": "vera tries"}, token=token_of(whole, vera),
        headers={"Idempotency-Key": uuid4().hex},
    )  # fmt: skip
    assert answer.status == 403, answer
    whole.assert_stays("payments", before)
    denied = poll_until("the refusal in the audit", lambda: record.since(last), seconds=5)
    assert [(row["who"], row["act"], row["target"]) for row in denied] == [("vera", "kill", "payments/1")]
    assert "denied" in str(denied[0]["result"]).lower()


def test_the_trace_of_an_order_opens_from_the_list(visit: Visitors, vera: Person, whole: Fleet) -> None:
    """Found by the order's id, which one knows; and it is that order's."""
    order_id = whole.place(f"traced-{uuid4()}")
    whole.wait_order(order_id, "confirmed")
    tab = visit(vera).open("/traces", "Traces")
    traces = tab.page.get_by_role("link", name=re.compile("POST .orders"))
    expect(traces.nth(1)).to_be_visible()  # the control: unfiltered there are others
    field = tab.page.get_by_role("textbox", name="Order id, or name=value")
    field.fill(order_id)
    field.press("Enter")
    expect(traces).to_have_count(1)
    assert f"with={order_id}" in tab.page.url, f"the filter is not in the address: {tab.page.url}"
    traces.click()
    spans = tab.page.get_by_role("list", name="Spans of the trace")
    spans.wait_for()
    for service in ("gateway", "orders", "inventory", "payments"):
        expect(spans.get_by_role("listitem").filter(has_text=service).first).to_be_visible()
    expect(spans).to_contain_text(order_id)
    assert re.search(r"[0-9a-f]{16,32}", tab.page.url), f"the trace is not in the address: {tab.page.url}"


# ---- each act once -----------------------------------------------------------------------------------------------


def test_stop_stays_down_says_who_and_why_and_start_ends_it(
    visit: Visitors, olaf: Person, whole: Fleet, reason: str
) -> None:
    tab = visit(olaf)
    tab.act("sales", "Stop", reason)
    try:
        tab.expect_state("sales", "stopped")
        assert whole.status()["sales"]["state"] == "stopped"
        tab.page.get_by_role("link", name="sales", exact=True).first.click()
        tab.expect_page("sales")
        main = tab.page.get_by_role("main")
        expect(main).to_contain_text(re.compile(rf"stopped.*olaf.*{reason}", re.DOTALL))
    finally:
        if whole.status()["sales"]["state"] == "stopped":
            start = tab.page.get_by_role("button", name=re.compile("^Start( sales)?$"))
            start.first.click()
    tab.expect_state("sales", "running")


def test_pause_holds_and_resume_lets_go(visit: Visitors, olaf: Person, whole: Fleet, reason: str) -> None:
    tab = visit(olaf)
    before = whole.pid("sales")
    tab.act("sales", "Pause", reason)
    tab.expect_state("sales", "paused")
    assert whole.status()["sales"]["state"] == "paused"
    tab.choose("sales", "Resume")
    assert not tab.dialog.is_visible(), "resuming needs no dialog"
    tab.expect_state("sales", "running")
    assert whole.pid("sales") == before


def test_a_fault_is_said_on_every_page_and_all_are_stopped_at_once(
    visit: Visitors, olaf: Person, vera: Person, whole: Fleet
) -> None:
    """With the time that is left; a viewer sees it too, and no button."""
    tab, viewer = visit(olaf), visit(vera)
    before = {name: whole.pid(name) for name in ("inventory", "sales")}
    for name in before:
        whole.atoll("pause", name, "--reason", "a drill")
    whole.atoll("fault", "put", "journal", "delay", "--seconds", "600", "--delay-ms", "20", "--reason", "a drill")
    stop = tab.page.get_by_role("button", name="Stop all faults")
    for path, heading in (("/traces", "Traces"), ("/operations", "Operations"), ("/service?name=sales", "sales")):
        tab.open(path, heading)
        expect(tab.strip).to_contain_text(re.compile(r"(pause|delay) of \S+, \d+ s left and 2 more"))
        expect(stop).to_be_visible()
    expect(viewer.strip).to_contain_text("and 2 more")
    assert viewer.page.get_by_role("button", name="Stop all faults").count() == 0
    before_click = poll_until("the strip's place", tab.strip.bounding_box, seconds=5)  # it is replaced at each update
    stop.click()
    expect(tab.strip).to_contain_text("no active faults")
    expect(stop).to_be_hidden()
    after = poll_until("the strip's place", tab.strip.bounding_box, seconds=5)
    assert before_click is not None
    assert after is not None
    assert (after["y"], after["height"]) == (before_click["y"], before_click["height"]), "the strip has one height"
    tab.open("/")
    for name, pid in before.items():
        tab.expect_state(name, "running")
        assert whole.pid(name) == pid


def test_restart_shows_its_steps_and_not_the_click(visit: Visitors, olaf: Person, whole: Fleet, reason: str) -> None:
    tab = visit(olaf)
    before = whole.pid("sales")
    tab.act("sales", "Restart", reason)
    progress = tab.page.get_by_role("status").filter(has_text=re.compile("sales: .*requested"))
    expect(progress.first).to_be_visible()
    expect(progress.first).to_contain_text(re.compile(r"requested.*→.*stopped.*→.*started \(.*\d\.\d s\)"))
    assert whole.wait_back("sales", before) != before


def test_the_button_is_off_while_an_act_is_under_way(visit: Visitors, olaf: Person, reason: str) -> None:
    tab = visit(olaf)
    tab.act("inventory", "Restart", reason)
    tab.page.get_by_role("button", name="Actions for inventory", exact=True, disabled=True).wait_for()
    tab.expect_state("inventory", "running")
    expect(tab.actions("inventory")).to_be_enabled()


# ---- friction ----------------------------------------------------------------------------------------------------


def test_a_wrong_name_does_not_kill(visit: Visitors, olaf: Person, whole: Fleet, reason: str) -> None:
    tab = visit(olaf)
    before = whole.pid("payments")
    tab.choose("payments", "Kill")
    confirm = tab.confirm_button("Kill", "payments")
    expect(confirm).to_be_disabled()
    tab.fill_dialog(reason, typed="payment")
    expect(confirm).to_be_disabled()
    tab.fill_dialog("", typed="payments")
    expect(confirm).to_be_disabled()  # nor without a reason
    tab.fill_dialog(reason, typed="payments")
    expect(confirm).to_be_enabled()
    tab.dialog.get_by_role("button", name="Cancel").click()
    expect(tab.dialog).to_be_hidden()
    whole.assert_stays("payments", before)


@pytest.mark.parametrize("act", ["Kill", "Restart"])
def test_cancel_comes_first_and_escape_closes(visit: Visitors, olaf: Person, whole: Fleet, act: str) -> None:
    tab = visit(olaf)
    before = whole.pid("payments")
    tab.choose("payments", act)
    expect(tab.dialog.get_by_role("button", name="Cancel")).to_be_focused()
    tab.page.keyboard.press("Escape")
    expect(tab.dialog).to_be_hidden()
    whole.assert_stays("payments", before)


def test_broker_and_auth_are_the_admins(visit: Visitors, olaf: Person, admin: Person) -> None:
    tab = visit(olaf)
    tab.expect_state("broker", "running")
    assert tab.actions("broker").count() == 0
    assert tab.actions("auth").count() == 0
    tab = visit(admin)
    tab.choose("broker", "Restart")
    expect(tab.dialog.get_by_role("textbox", name="Type broker to confirm")).to_be_visible()
    tab.page.keyboard.press("Escape")


# ---- never move the target ----------------------------------------------------------------------------------------


def test_rows_keep_their_places_while_an_act_is_carried_out(
    visit: Visitors, olaf: Person, whole: Fleet, reason: str
) -> None:
    """Who reaches for a button must not hit another one because something came in above it."""
    tab = visit(olaf)
    tab.expect_state("journal", "running")
    tab.page.locator("[data-testid=stGraphVizChart] svg").wait_for()  # until it is drawn the page is shorter
    with tab.watched_places() as places:
        tab.act("payments", "Restart", reason)
        progress = tab.page.get_by_role("status").filter(has_text=re.compile("payments: .*started"))
        progress.first.wait_for()
        expect(progress.first).to_be_in_viewport()  # beside the row that it is about, however far down that is
        expect(tab.strip).to_be_in_viewport()
        tab.expect_state("payments", "running")
    assert {"orders", "payments", "journal"} <= set(places), places
    moved = {name: seen for name, seen in places.items() if len(seen) > 1}
    assert not moved, f"pixels from the page's top: {moved}"


def test_a_row_that_moves_is_noticed(visit: Visitors, olaf: Person) -> None:
    """The control of the test above."""
    tab = visit(olaf)
    tab.expect_state("journal", "running")
    tab.page.locator("[data-testid=stGraphVizChart] svg").wait_for()  # until it is drawn the page is shorter
    with tab.watched_places() as places:
        tab.heading("Overview").evaluate("one => { one.style.marginTop = '80px'; }")
        poll_until("the move", lambda: tab.page.evaluate("Object.values(window.placesSeen)[0].length"),
                   lambda seen: seen > 1, seconds=5)  # fmt: skip
    assert all(len(seen) == 2 for seen in places.values()), places


def test_the_list_of_traces_stands_still_and_offers_what_is_newer(visit: Visitors, vera: Person) -> None:
    """Orders come all the while: without this a row would be another one before it is clicked."""
    tab = visit(vera, path="/traces", heading="Traces")
    first = tab.page.get_by_role("region", name="Traces").get_by_role("link").first
    shown = first.get_attribute("href")
    newest = tab.page.get_by_role("button", name="Show the newest")
    newest.wait_for()
    assert first.get_attribute("href") == shown
    newest.click()
    expect(first).not_to_have_attribute("href", str(shown))


# ---- the address, and holding still ------------------------------------------------------------------------------


def test_every_page_opens_from_its_address(visit: Visitors, vera: Person, whole: Fleet) -> None:
    tab = visit(vera)
    for path, heading in (("/service?name=payments", "payments"), ("/operations", "Operations"), ("/traces", "Traces")):
        tab.open(path, heading)
    tab.open("/service?name=nobody")
    expect(tab.page.get_by_role("main")).to_contain_text("nobody")


def test_the_address_survives_the_login(visit: Visitors, vera: Person) -> None:
    tab = visit.stranger().open("/service?name=payments")
    tab.sign_in(vera)
    tab.expect_page("payments")


def test_the_filter_of_the_audit_is_in_the_address(visit: Visitors, olaf: Person, record: Record) -> None:
    assert any(row["who"] == "olaf" for row in record.rows())
    tab = visit(olaf, path="/operations?who=nobody-of-that-name", heading="Operations")
    expect(tab.page.get_by_role("main")).to_contain_text(re.compile("no (acts|entries|records)", re.IGNORECASE))
    tab.open("/operations?who=olaf", "Operations")
    rows = tab.page.get_by_role("table").get_by_role("row")
    expect(rows.filter(has_text="olaf").first).to_be_visible()
    assert rows.filter(has_text="vera").count() == 0


def test_hold_updates_holds(visit: Visitors, vera: Person) -> None:
    tab = visit(vera)
    running = tab.updated()
    poll_until("the strip to be updated", tab.updated, lambda seen: seen != running, seconds=10)
    hold = tab.page.get_by_label("Hold updates")
    hold.check(force=True)
    expect(tab.strip).to_contain_text(re.compile("held|hold", re.IGNORECASE))
    held = tab.updated()
    time.sleep(5)  # silence is the thing
    assert tab.updated() == held
    hold.uncheck(force=True)
    poll_until("the strip to be updated again", tab.updated, lambda seen: seen != held, seconds=10)
