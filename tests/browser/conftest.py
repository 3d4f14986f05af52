"""The whole fleet with its dashboard under the demo's load, people who may log in, and a Chromium to look with."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from browser import axe, bringing, people
from browser.load import Load
from browser.pages import PATIENCE_SECONDS, Dashboard
from browser.people import Person
from fleet import REPOSITORY, Fleet, fleet, write_mesh
from left_out import leave_out
from polling import poll_until

SCREENSHOTS = REPOSITORY / ".atoll" / "test" / "screenshots"
_FLAGS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


_PHONES_AGENT = (
    "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Mobile Safari/537.36"
)


@dataclass(frozen=True)
class Look:
    """A way to look at the dashboard."""

    name: str
    width: int
    height: int
    scheme: str
    mobile: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """For a browser context."""
        return {
            "viewport": {"width": self.width, "height": self.height},
            "color_scheme": self.scheme,
            "has_touch": self.mobile,
            "user_agent": _PHONES_AGENT if self.mobile else None,
            "reduced_motion": "reduce",  # a page in the middle of a fade is neither one state nor the other
        }


LOOKS = (
    Look("light", 1440, 900, "light"),
    Look("dark", 1440, 900, "dark"),
    Look("phone", 390, 844, "light", mobile=True),
)
LIGHT, DARK, PHONE = LOOKS
FADE_MS = 1000
PLANTED_NAME, PLANTED_SECRET = "ORDERS_PLANTED_TOKEN", "not-for-the-eyes-of-a-viewer"
#: Pixels of a picture.
LONG_MAX = 4000

#: Keeps a picture of a tab under a name.
Picture = Callable[[Dashboard, str], Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--readme-pictures", action="store_true", help="write docs/images/*.png from the running fleet")


def _brought(bring: Callable[[], Any]) -> Any:
    """What `bring` gives; without it the test skips by name, but not where everything is promised to run."""
    try:
        return bring()
    except bringing.AbsentError as absent:
        leave_out(str(absent))


@pytest.fixture(scope="package")
def chromium() -> Path:
    """A Chromium."""
    found: Path = _brought(bringing.chromium)
    return found


@pytest.fixture(scope="package")
def axe_source() -> str:
    """axe-core."""
    source: str = _brought(bringing.axe_core)
    return source


@pytest.fixture(scope="package")
def browser(chromium: Path) -> Iterator[Browser]:
    """A headless Chromium with an empty profile. It ends with this suite: Playwright's loop would stop other tests'."""
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_SECONDS * 1000)  # a page's own default time-out does not reach it
        running = playwright.chromium.launch(executable_path=chromium, headless=True, args=list(_FLAGS))
        yield running
        running.close()


@pytest.fixture(scope="package")
def folder() -> Iterator[Path]:
    """A directory with a short path: a Unix socket's may have 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="atoll-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture(scope="package")
def unloaded(folder: Path, jaeger_binary: Path) -> Iterator[Fleet]:
    """A whole fleet, dashboard and Jaeger too. Orders is told a secret, which no page may show."""
    page = write_mesh(folder / "mesh.toml", settings={"orders": {PLANTED_NAME: PLANTED_SECRET}})
    with fleet(folder / "state", page, whole=True) as running:
        poll_until("Jaeger", lambda: running.status()["jaeger"]["state"], lambda s: s == "running", seconds=60)
        yield running


@pytest.fixture(scope="package")
def load(unloaded: Fleet, folder: Path) -> Iterator[Load]:
    """The demo's load upon it."""
    running = Load(unloaded, folder)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="package")
def whole(unloaded: Fleet, load: Load) -> Fleet:
    """The whole fleet under the demo's load. Who breaks it mends it."""
    return unloaded


@pytest.fixture(scope="package")
def admin(whole: Fleet) -> Person:
    """May everything."""
    return people.admin_of(whole)


@pytest.fixture(scope="package")
def olaf(whole: Fleet) -> Person:
    """May act, except on broker and auth."""
    return people.add(whole, "olaf", "operator")


@pytest.fixture(scope="package")
def vera(whole: Fleet) -> Person:
    """May only look."""
    return people.add(whole, "vera", "viewer")


@pytest.fixture(scope="package")
def dashboard_url(whole: Fleet) -> str:
    """Where it is, once it answers."""
    url = whole.credentials["dashboard"].rstrip("/")
    poll_until("the dashboard", lambda: whole.status()["dashboard"]["state"], lambda s: s == "running", seconds=60)
    return url


class Members:
    """Browser contexts of people who have logged in, by person and look: kept, for what they have in their cache.

    A page in a context that has shown the dashboard before comes up in a third of the time.
    """

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url
        self._cookies: dict[str, Any] = {}
        self._contexts: dict[tuple[str, Look], BrowserContext] = {}

    def context(self, person: Person, look: Look) -> BrowserContext:
        """Where the person's tabs open. The first of them logs in; the other looks carry the same cookie."""
        known = self._contexts.get((person.name, look))
        if known is None:
            known = self._browser.new_context(storage_state=self._cookies.get(person.name), **look.options)
            self._contexts[person.name, look] = known
        if person.name not in self._cookies:
            first = Dashboard(known.new_page(), self._url).open("/")
            first.sign_in(person)
            first.expect_page("Overview")
            self._cookies[person.name] = known.storage_state()
            first.page.close()
        return known

    def forget(self) -> None:
        """Everybody's session is over."""
        for context in self._contexts.values():
            context.close()
        self._contexts.clear()
        self._cookies.clear()


class Visitors:
    """Tabs on the dashboard; closed when the test ends."""

    def __init__(self, browser: Browser, url: str, members: Members) -> None:
        self._browser = browser
        self._url = url
        self._members = members
        self._contexts: list[BrowserContext] = []
        self._pages: list[Page] = []

    def stranger(self, look: Look = LIGHT) -> Dashboard:
        """A tab of somebody who has not logged in."""
        context = self._browser.new_context(**look.options)
        self._contexts.append(context)
        return Dashboard(context.new_page(), self._url)

    def blank(self, person: Person, look: Look = LIGHT) -> Dashboard:
        """A tab of a person who has logged in, which shows nothing yet."""
        page = self._members.context(person, look).new_page()
        self._pages.append(page)
        return Dashboard(page, self._url)

    def __call__(self, person: Person, look: Look = LIGHT, path: str = "/", heading: str = "Overview") -> Dashboard:
        """A tab of a person who has logged in."""
        return self.blank(person, look).open(path, heading)

    def afresh(self, person: Person, look: Look = LIGHT) -> Dashboard:
        """A tab with a login of its own, which the test may spoil."""
        tab = self.stranger(look).open("/")
        tab.sign_in(person)
        tab.expect_page("Overview")
        return tab

    def forget(self) -> None:
        """The dashboard begins anew, and with it everybody's session."""
        self._pages.clear()
        self._members.forget()

    def leave(self) -> None:
        """Close every tab."""
        for page in self._pages:
            page.close()
        for context in self._contexts:
            context.close()
        self._pages.clear()
        self._contexts.clear()


@pytest.fixture(scope="package")
def members(browser: Browser, dashboard_url: str) -> Iterator[Members]:
    """Everybody's browser."""
    opened = Members(browser, dashboard_url)
    yield opened
    opened.forget()


@pytest.fixture(scope="module")
def visitors(browser: Browser, dashboard_url: str, members: Members) -> Iterator[Visitors]:
    """As `visit`, for tabs that stay open for a module's tests."""
    opened = Visitors(browser, dashboard_url, members)
    yield opened
    opened.leave()


@pytest.fixture
def visit(browser: Browser, dashboard_url: str, members: Members) -> Iterator[Visitors]:
    """Open the dashboard as somebody: `visit(olaf)`."""
    visiting = Visitors(browser, dashboard_url, members)
    yield visiting
    visiting.leave()


@contextmanager
def _whole_page(page: Page) -> Iterator[None]:
    """A window as high as the page is long: Streamlit scrolls a part of it, which a picture of the window would cut."""
    size = page.viewport_size
    assert size is not None
    long = page.evaluate("Math.max(...[...document.querySelectorAll('body, body *')].map(one => one.scrollHeight))")
    try:
        page.set_viewport_size({"width": size["width"], "height": min(max(size["height"], long), LONG_MAX)})
        yield
    finally:
        page.set_viewport_size(size)


@pytest.fixture(scope="package")
def picture() -> Picture:
    """Keep a screenshot of the whole page: `picture(tab, "overview-stale-dark")`."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    def take(tab: Dashboard, name: str) -> Path:
        path = SCREENSHOTS / f"{name}.png"
        tab.page.bring_to_front()  # a picture waits for frames, of which a hidden tab has few
        # An open menu stays where the window put it: in a window of another height it would be out of reach after.
        has_menu = tab.page.get_by_role("menu").count() > 0
        with nullcontext() if has_menu else _whole_page(tab.page):
            tab.page.screenshot(path=path, full_page=True, animations="disabled")
        return path

    return take


@pytest.fixture
def accessible(axe_source: str, picture: Picture) -> Iterator[Callable[[Dashboard, str], None]]:
    """Look at a page in a state: keep a picture, collect what axe-core says. All of it fails the test at its end.

    What it says must still hold a second later: the middle of a fade is neither one state nor the other.
    """
    found: list[str] = []

    def look(tab: Dashboard, name: str) -> None:
        picture(tab, name)
        if said := axe.violations(tab.page, axe_source):
            tab.page.wait_for_timeout(FADE_MS)
            still = axe.violations(tab.page, axe_source)
            found.extend(f"{name}: {one}" for one in said if one in still)

    yield look
    assert not found, f"{len(found)} violations of WCAG 2.x A/AA:\n" + "\n".join(found)
