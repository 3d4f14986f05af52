"""Every page in the states that a person meets it in: empty, loading, stale, a part down. Three looks, 0 violations.

Pages at rest and dialogs are in test_pages.py, pages of a fleet without one of its core parts in test_gone.py.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from browser import people, sibling
from browser.conftest import LOOKS, Look, Members, Visitors
from browser.pages import Dashboard
from browser.people import Person
from fleet import Fleet, fleet
from polling import poll_until

Accessible = Callable[[Dashboard, str], None]
#: Name of a picture -> address and heading.
PAGES = {
    "overview": ("/", "Overview"),
    "service": ("/service?name=gateway", "gateway"),
    "traces": ("/traces", "Traces"),
    "trace": ("/traces?trace=00000000000000000000000000000001", "Traces"),
    "operations": ("/operations", "Operations"),
}
#: What a page says that has nothing to show.
EMPTY = {
    "overview": "No topics are known yet",
    "service": "No service is chosen",
    "traces": "No traces of orders match",
    "trace": "Jaeger knows no trace",
    "operations": "No acts yet",
}
#: Enough for people to sign in and look: a system in which nothing ever happened.
YOUNG = "broker,auth,gateway,control,dashboard,jaeger"
OLD = re.compile(r"\d+ s old")
pages = pytest.mark.parametrize("name", PAGES)


def _trace_of_an_order(tab: Dashboard) -> str:
    """The address of a trace that is there."""
    first = tab.open("/traces", "Traces").page.get_by_role("link", name=re.compile("POST .orders")).first
    return str(first.get_attribute("href"))


@pytest.fixture(scope="module")
def address(visitors: Visitors, olaf: Person) -> Callable[[str], str]:
    """Where a page is in the whole fleet; the page of a trace shows one that is there."""
    found = _trace_of_an_order(visitors(olaf))
    return lambda name: found if name == "trace" else PAGES[name][0]


@pytest.fixture(scope="class")
def young(browser: Browser, jaeger_binary: Path, folder: Path) -> Iterator[tuple[Visitors, Person]]:
    """A system in which nothing ever happened, and who may look at it."""
    with fleet(folder / "young", None, "--only", YOUNG, whole=True) as running:
        poll_until("Jaeger", lambda: running.status()["jaeger"]["state"], lambda s: s == "running", seconds=60)
        url = running.credentials["dashboard"].rstrip("/")
        members = Members(browser, url)
        visiting = Visitors(browser, url, members)
        yield visiting, people.admin_of(running)
        visiting.leave()
        members.forget()


class TestEmpty:
    """A class for its fixture alone: the young system ends before the others look at the other."""

    @pages
    def test_empty(self, young: tuple[Visitors, Person], accessible: Accessible, name: str) -> None:
        visit, admin = young
        path, heading = ("/service", "Service") if name == "service" else PAGES[name]
        tabs = {look: visit(admin, look, path, heading) for look in LOOKS}
        for look, tab in tabs.items():
            if name == "overview" and look.mobile:
                tab.page.get_by_text("Topology").click()
            expect(tab.page.get_by_text(re.compile(EMPTY[name])).first).to_be_visible(timeout=15_000)
            accessible(tab, f"{name}-empty-{look.name}")
            tab.page.close()


@pages
def test_loading(
    visit: Visitors, olaf: Person, address: Callable[[str], str], accessible: Accessible, name: str
) -> None:
    """The server has the connection and says nothing yet."""
    for look in LOOKS:
        tab = visit.blank(olaf, look)
        tab.page.route_web_socket("**/_stcore/stream", lambda _: None)
        tab.page.goto(tab.url + address(name))
        expect(tab.heading(PAGES[name][1])).to_be_hidden()
        accessible(tab, f"{name}-loading-{look.name}")


def test_nothing_is_known_yet(
    browser: Browser, whole: Fleet, olaf: Person, accessible: Accessible, tmp_path: Path
) -> None:
    """A dashboard that began while control was away: pages say what is gone, and show where things will be."""
    whole.atoll("stop", "control")
    try:
        with sibling.dashboard(whole, tmp_path) as url:
            visit = Visitors(browser, url, Members(browser, url))
            for look in LOOKS:
                tab = visit.afresh(olaf, look)
                for name in ("overview", "service", "operations"):
                    tab.open(*PAGES[name])
                    expect(tab.page.get_by_role("status", name="Loading")).to_be_visible()
                    tab.banner("control is gone").wait_for()
                    expect(tab.strip).to_contain_text("unknown")
                    accessible(tab, f"{name}-nothing-yet-{look.name}")
            visit.leave()
    finally:
        whole.atoll("start", "control")
        poll_until("control", lambda: whole.status()["control"]["state"], lambda s: s == "running", seconds=30)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
def test_stale(
    visit: Visitors, olaf: Person, whole: Fleet, address: Callable[[str], str], accessible: Accessible, look: Look
) -> None:
    """Between 5 and 15 s: still in its colours, dimmed, and said to be old.

    Once all tabs say so the dashboard itself is stopped, so that they stay in that state while axe-core looks.
    """
    tabs = {name: visit.blank(olaf, look) for name in PAGES}
    for name, tab in tabs.items():
        tab.page.route("**/atoll/watch.js", lambda route: route.abort())  # it would say that the dashboard is silent
        tab.open(address(name), PAGES[name][1])
        tab.strip.wait_for()
    control, dashboard = whole.signal("control", signal.SIGSTOP), 0
    try:
        for tab in tabs.values():
            expect(tab.strip).to_contain_text(OLD, timeout=12_000)
        dashboard, stopped = whole.signal("dashboard", signal.SIGSTOP), time.monotonic()
        for name, tab in tabs.items():
            assert time.monotonic() - stopped < 50, "too slow: the agent ends such a stop after 60 s"
            expect(tab.strip).to_contain_text(OLD)
            shown = set(tab.states().values())
            assert "running" in shown or name not in ("overview", "service"), f"no longer stale: {shown}"
            accessible(tab, f"{name}-stale-{look.name}")
    finally:
        for part, pid in (("dashboard", dashboard), ("control", control)):
            if pid:
                whole.signal(part, signal.SIGCONT, pid)
    for tab in tabs.values():
        expect(tab.strip).to_contain_text("every 2 s", timeout=15_000)


def test_part_down(
    visit: Visitors, olaf: Person, whole: Fleet, address: Callable[[str], str], accessible: Accessible
) -> None:
    whole.atoll("stop", "payments")
    try:
        for look in LOOKS:
            tab = visit(olaf, look)
            for name in PAGES:
                tab.open("/service?name=payments" if name == "service" else address(name))
                tab.banner("payments is stopped").wait_for()
                if name in ("overview", "service"):
                    tab.expect_state("payments", "stopped")
                accessible(tab, f"{name}-part-down-{look.name}")
    finally:
        whole.atoll("start", "payments")
    visit(olaf).expect_state("payments", "running")
