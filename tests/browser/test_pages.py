"""Every page at rest, and what opens in it, in three looks: 0 violations of WCAG A and AA, and a picture of each.

Pages that are empty, loading, stale or tell of a part that is down are in test_states.py, those of a fleet without a
core part in test_gone.py.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import LOOKS, PHONE, PLANTED_NAME, PLANTED_SECRET, Look, Visitors
from browser.pages import Dashboard
from browser.people import Person
from fleet import Fleet
from polling import poll_until

Accessible = Callable[[Dashboard, str], None]
looks = pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)


@looks
def test_login(visit: Visitors, vera: Person, accessible: Accessible, look: Look) -> None:
    tab = visit.stranger(look).open("/")
    expect(tab.page.get_by_role("button", name="Sign in")).to_be_visible()
    accessible(tab, f"login-{look.name}")
    tab.sign_in(Person(vera.name, "not the password", vera.role))
    expect(tab.page.get_by_role("alert")).to_be_visible()
    accessible(tab, f"login-error-{look.name}")


@looks
def test_pages_at_rest(visit: Visitors, olaf: Person, whole: Fleet, accessible: Accessible, look: Look) -> None:
    tab = visit(olaf, look)
    tab.expect_state("payments", "running")
    accessible(tab, f"overview-{look.name}")
    _fits(tab.page, look)
    for path, heading, name in (
        ("/service?name=payments", "payments", "service"),
        ("/service?name=nobody", None, "service-unknown"),
        ("/traces", "Traces", "traces"),
        ("/traces?trace=00000000000000000000000000000001", "Traces", "trace-unknown"),
        ("/operations", "Operations", "operations"),
        ("/operations?who=nobody-of-that-name", "Operations", "operations-empty"),
    ):
        tab.open(path, heading)
        tab.strip.wait_for()
        accessible(tab, f"{name}-{look.name}")
        _fits(tab.page, look)


@looks
def test_what_orders_said_last_and_how_it_is_set(
    visit: Visitors, vera: Person, whole: Fleet, accessible: Accessible, look: Look
) -> None:
    tab = visit(vera, look, "/service?name=orders", "orders")
    log = tab.page.get_by_role("region", name=re.compile("^Log, the last"))
    log.wait_for()
    tab.page.get_by_text("Configuration", exact=True).click()
    settings = tab.page.get_by_role("region", name="Settings")
    expect(settings).to_contain_text(re.compile(rf"{PLANTED_NAME}.*••••••"))
    assert PLANTED_SECRET not in tab.page.content()
    if not look.mobile:  # there a table is shown as a list, row by row
        poll_until(
            "the last line of orders' log on its page",
            lambda: (_last_event(whole), log.get_by_role("row").last.inner_text()),
            lambda found: found[0] in found[1],
            seconds=20,
        )
    accessible(tab, f"service-inside-{look.name}")
    _fits(tab.page, look)


def _last_event(whole: Fleet) -> str:
    """What the last line of orders' log says, by the file."""
    last = (whole.state / "logs" / "orders-1.log").read_text().splitlines()[-1]
    return str(json.loads(last)["event"])


@looks
def test_a_trace(visit: Visitors, olaf: Person, whole: Fleet, accessible: Accessible, look: Look) -> None:
    tab = visit(olaf, look, "/traces", "Traces")
    tab.page.get_by_role("link", name=re.compile("POST .orders")).first.click()
    expect(tab.page.get_by_text("payments").first).to_be_visible()
    accessible(tab, f"trace-{look.name}")
    _fits(tab.page, look)


@looks
def test_menu_and_dialogs(visit: Visitors, olaf: Person, accessible: Accessible, look: Look) -> None:
    tab = visit(olaf, look)
    tab.actions("payments").click()
    expect(tab.page.get_by_role("menuitem", name="Kill")).to_be_visible()
    accessible(tab, f"menu-{look.name}")
    tab.page.get_by_role("menuitem", name="Kill").click()
    expect(tab.dialog.get_by_role("heading", name="Kill payments")).to_be_visible()
    accessible(tab, f"dialog-kill-{look.name}")
    tab.fill_dialog("a drill", typed="payments")
    expect(tab.confirm_button("Kill", "payments")).to_be_enabled()
    accessible(tab, f"dialog-kill-filled-{look.name}")
    _fits(tab.page, look)
    tab.page.keyboard.press("Escape")
    expect(tab.dialog).to_be_hidden()
    tab.choose("payments", "Restart")
    expect(tab.dialog.get_by_role("heading", name="Restart payments")).to_be_visible()
    accessible(tab, f"dialog-restart-{look.name}")


@looks
def test_traces_while_jaeger_does_not_answer(
    visit: Visitors, olaf: Person, whole: Fleet, accessible: Accessible, look: Look
) -> None:
    tab = visit(olaf, look)
    held = whole.signal("jaeger", signal.SIGSTOP)
    try:
        tab.open("/traces")
        tab.strip.wait_for()
        accessible(tab, f"traces-loading-{look.name}")
        tab.page.get_by_text(re.compile("jaeger (is|does)", re.IGNORECASE)).first.wait_for()
        accessible(tab, f"traces-no-answer-{look.name}")
    finally:
        whole.signal("jaeger", signal.SIGCONT, held)
    tab.open("/traces", "Traces")
    tab.page.get_by_role("link", name=re.compile("POST .orders")).first.wait_for()


def test_a_phone_reaches_every_page(visit: Visitors, olaf: Person) -> None:
    tab = visit(olaf, PHONE)
    for name in ("Traces", "Operations", "Overview"):
        tab.follow(name)
        _fits(tab.page, PHONE)


def test_the_keyboard_alone_kills_nothing_by_one_key_and_reaches_everything(visit: Visitors, olaf: Person) -> None:
    tab = visit(olaf)
    tab.expect_state("payments", "running")
    for key in "abcdefghijklmnopqrstuvwxyz":
        tab.page.keyboard.press(key)
    for _ in range(2):  # the server has drawn the page anew, and with it whatever a key had asked for
        _wait_for_update(tab)
    assert not tab.dialog.is_visible()
    button = tab.actions("payments")
    button.focus()
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("menuitem", name="Kill")).to_be_visible()
    tab.page.keyboard.press("Escape")
    expect(tab.page.get_by_role("menuitem", name="Kill")).to_be_hidden()


def _wait_for_update(tab: Dashboard) -> None:
    before = tab.updated()
    poll_until("the page to be updated", tab.updated, lambda seen: seen != before, seconds=10)


def _fits(page: Page, look: Look) -> None:
    """Nothing is pushed out to the side: the page scrolls up and down only."""
    wide = page.evaluate("document.scrollingElement.scrollWidth")
    assert wide <= look.width, f"{page.url} is {wide} px wide in {look.width}"
