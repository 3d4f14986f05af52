"""A part is gone: each page names it, keeps what it last knew, dimmed, and nothing turns green by itself.

The pages are open when it happens, as they are in life: who looks at a wall when the gateway dies does not reload.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import pytest
from playwright.sync_api import Locator, expect

from browser.conftest import LIGHT, LOOKS, Visitors
from browser.pages import Dashboard
from browser.people import Person
from fleet import Fleet
from measured import say
from polling import poll_until

NAMED_SECONDS = 10.0  # a page says what is gone
UNKNOWN_SECONDS = 15.0  # a state that nobody confirmed for so long is not known
SLACK_SECONDS = 20.0
PATHS = {
    "overview": ("/", "Overview"),
    "service": ("/service?name=payments", "payments"),
    "traces": ("/traces", "Traces"),
    "operations": ("/operations", "Operations"),
}
#: What a page lists, which it keeps while this part is gone.
KEEPS: dict[tuple[str, str], tuple[Literal["region", "list"], str]] = {
    ("jaeger", "traces"): ("region", "Traces"),
    ("jaeger", "trace"): ("list", "Spans of the trace"),
    ("control", "operations"): ("region", "Audit log"),
    ("gateway", "operations"): ("region", "Audit log"),
    ("control", "service"): ("region", "Log, the last"),
    ("gateway", "service"): ("region", "Log, the last"),
    ("agent", "service"): ("region", "Log, the last"),
}
#: Without these the dashboard learns of no state at all: every one becomes unknown, and the strip says so.
SOURCES = {"control": r"\d+ s old", "gateway": r"\d+ s old", "agent": "the fleet's state is unknown"}


@dataclass
class Wall:
    """All pages in all looks, open."""

    tabs: dict[str, Dashboard]

    def of(self, page: str) -> list[Dashboard]:
        """The tabs on one page."""
        return [tab for name, tab in self.tabs.items() if name.startswith(f"{page}-")]


@pytest.fixture(scope="module")
def wall(visitors: Visitors, admin: Person) -> Wall:
    """Every page, in light, dark and on a phone: open all the while, through one absence after the other."""
    tabs = {
        f"{name}-{look.name}": visitors(admin, look, path, heading)
        for name, (path, heading) in PATHS.items()
        for look in LOOKS
    }
    tab = tabs["trace-light"] = visitors(admin, LIGHT, "/traces", "Traces")  # in every look: see test_states.py
    tab.page.get_by_role("link", name=re.compile("POST .orders")).first.click()
    tab.page.get_by_role("list", name="Spans of the trace").wait_for()
    for tab in tabs.values():
        tab.strip.wait_for()
    return Wall(tabs)


@contextmanager
def gone(shop: Fleet, part: str) -> Iterator[None]:
    """Kill a part with SIGKILL and keep it down for the block."""
    shop.signal(part, signal.SIGKILL)
    if part == "agent":  # nobody starts it again, or would stop a part for us: the next `up` does, and adopts the rest
        poll_until("the agent to be gone", lambda: shop.status()["agent"]["state"], lambda s: s == "gone", seconds=10)
        try:
            yield
        finally:
            shop.up()
        return
    shop.atoll("stop", part)
    assert shop.status()[part]["pid"] is None
    try:
        yield
    finally:
        shop.atoll("start", part)
        poll_until(f"{part} to run", lambda: shop.status()[part]["state"], lambda s: s == "running", seconds=30)


@pytest.mark.parametrize("part", ["broker", "control", "auth", "jaeger", "gateway", "agent"])
def test_every_page_names_what_is_gone_and_keeps_what_it_knew(
    wall: Wall, whole: Fleet, part: str, accessible: Callable[[Dashboard, str], None]
) -> None:
    known = wall.of("overview")[0].states()
    assert known["payments"] == "running"
    with gone(whole, part):
        began = time.monotonic()
        for tab in wall.tabs.values():
            tab.banner(part).wait_for(timeout=NAMED_SECONDS * 1000)
        say(f"dashboard: without {part} all {len(wall.tabs)} open pages said so after {time.monotonic() - began:.1f} s")
        if part in SOURCES:
            _becomes_unknown(wall, began, SOURCES[part])
        else:
            for tab in wall.of("overview"):
                _is_not_green(tab, part)
        for tab in wall.of("overview"):
            assert set(tab.states()) == set(known), "rows vanished"
            if part == "agent":  # all run, and nobody looks after them: neither green nor a false "0 of 11 up"
                expect(tab.page.get_by_role("group", name="Services up: –")).to_be_visible()
                assert tab.banner(" is unknown").count() == 0, "one absence, not one a part"
            if part in ("broker", "control", "gateway"):  # who knows of the bus: what was known of it is kept
                figure = tab.page.get_by_role("group", name=re.compile(r"^Events per second: [\d.,]+$"))
                expect(figure).to_be_visible()
                poll_until("the figure to be dimmed", _opacity_of(tab, figure), lambda seen: seen < 1, seconds=10)
        for (without, page), (role, name) in KEEPS.items():
            if without == part:
                _is_kept(wall.of(page), role, name)
        for name, tab in wall.tabs.items():
            accessible(tab, f"{name.rsplit('-', 1)[0]}-no-{part}-{name.rsplit('-', 1)[1]}")
        if part in (
            "auth",
            "broker",
        ):  # after 15 s the gateway waits for auth's word: who is gone is named all the same
            for tab in wall.tabs.values():
                tab.banner("gateway lets no operator in").wait_for(timeout=(UNKNOWN_SECONDS + SLACK_SECONDS) * 1000)
                expect(tab.banner(f"{part} is gone")).to_be_visible()
                expect(tab.page.get_by_text("gateway is gone")).to_have_count(0)
    for tab in wall.tabs.values():
        expect(tab.banner(rf"\b{part}\b")).to_be_hidden(timeout=SLACK_SECONDS * 1000)
    for tab in wall.of("overview"):
        tab.expect_state("payments", "running", SLACK_SECONDS)
        if part != "agent":  # which is no part, and has no row
            tab.expect_state(part, "running", SLACK_SECONDS)
        undimmed = _opacity_of(tab, tab.badge("payments"))
        poll_until("payments to be undimmed", undimmed, lambda seen: seen == 1, seconds=SLACK_SECONDS)


def _is_kept(tabs: list[Dashboard], role: Literal["region", "list"], name: str) -> None:
    """What was listed is still there, with its rows, and dimmed."""
    for tab in tabs:
        listed = tab.page.get_by_role(role, name=name)
        poll_until(f"{name} to be dimmed", _opacity_of(tab, listed), lambda seen: seen < 1, seconds=10)
        assert listed.get_by_role("row").or_(listed.get_by_role("listitem")).count() > 1, f"{tab.page.url}: not kept"


def _is_not_green(tab: Dashboard, part: str) -> None:
    """It is shown as gone. The banner comes with one update, the row of a page that is drawn anew with the next."""
    poll_until(
        f"{part} not to be green", lambda: tab.state(part), lambda seen: seen not in ("running", "degraded"), seconds=10
    )


def _opacity_of(tab: Dashboard, listed: Locator) -> Callable[[], float]:
    return lambda: tab.opacity(listed)


def _becomes_unknown(wall: Wall, began: float, strip: str) -> None:
    """What was known is kept, dimmed, and is unknown after 15 s; what left green never comes back to it."""
    tabs = wall.of("overview") + wall.of("service")
    faded: set[tuple[int, str]] = set()

    def green() -> list[str]:
        found = []
        for number, tab in enumerate(tabs):
            for service, state in tab.states().items():
                if state in ("running", "degraded"):
                    assert (number, service) not in faded, f"{service} turned {state} again with nobody to say so"
                    found.append(service)
                else:
                    faded.add((number, service))
        return found

    limit = began + UNKNOWN_SECONDS + SLACK_SECONDS - time.monotonic()
    poll_until("every state to be unknown", green, lambda left: not left, seconds=limit, every=0.5)
    for tab in tabs:
        expect(tab.strip).to_contain_text(re.compile(strip))
        assert set(tab.states().values()) <= {"unknown"}
        assert tab.opacity(tab.badge("payments")) < 1, f"{tab.page.url}: stale, and shown as if it were not"
    ends = time.monotonic() + 3  # silence is the thing: nothing turns green by itself
    while time.monotonic() < ends:
        assert green() == []


def test_killed_for_a_moment_it_is_forgotten_again(visit: Visitors, admin: Person, whole: Fleet) -> None:
    tab = visit(admin)
    for part in ("gateway", "control", "broker"):
        whole.wait_back(part, whole.signal(part, signal.SIGKILL))
    for part in ("gateway", "control", "broker", "payments"):
        tab.expect_state(part, "running")
    expect(tab.page.get_by_role("alert")).to_have_count(0)


def test_who_wants_in_while_auth_is_gone_is_told_so(visit: Visitors, vera: Person, whole: Fleet) -> None:
    tab = visit.stranger().open("/")
    with gone(whole, "auth"):
        tab.sign_in(vera)
        tab.banner("auth").wait_for()
        assert tab.page.context.cookies() == [] or tab.page.get_by_role("button", name="Sign in").is_visible()
    tab.sign_in(vera)
    tab.expect_page("Overview")


def test_the_dashboard_itself_comes_back_under_its_viewers(visit: Visitors, olaf: Person, whole: Fleet) -> None:
    """Its page reconnects by itself; whoever has to log in again is told so, not left before a dead page."""
    tab = visit.afresh(olaf)
    visit.forget()
    tab.strip.wait_for()
    # Stopped first, so that no update of its own comes between this reading and its death: a later one is the next's.
    old = whole.signal("dashboard", signal.SIGSTOP)
    tab.page.wait_for_timeout(1_000)
    before = tab.updated()
    whole.wait_back("dashboard", whole.signal("dashboard", signal.SIGKILL, old))
    tab.page.wait_for_timeout(1_000)
    poll_until(
        "the page to live again, or to ask for a login",
        lambda: tab.page.get_by_role("button", name="Sign in").is_visible()
        or (tab.strip.is_visible() and tab.updated() != before),
        seconds=30, every=0.5,
    )  # fmt: skip
