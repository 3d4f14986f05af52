"""The dashboard as a person meets it: by role and name, never by a selector. One place for every name that it shows."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Locator, Page, expect

from browser.people import Person
from polling import poll_until

STATES = ("running", "degraded", "down", "paused", "stopped", "starting", "unknown", "absent")
REASON = "Reason, kept in the audit log"
#: How long a page may take to show itself; a promise of its own is measured where it is made.
PATIENCE_SECONDS = 20.0
_MS = 1000

_COUNT_CLICKS = """() => {
  window.clicksSeen = 0;
  document.addEventListener('click', event => { if (event.isTrusted) window.clicksSeen += 1; }, true);
}"""
#: Where each row's button stands in the page, whatever is scrolled: name -> every place that it has had.
_WATCH_PLACES = r"""() => {
  window.placesSeen = {};
  const look = () => {
    for (const one of document.querySelectorAll('button')) {
      const name = (one.textContent.match(/Actions for (\S+?)(expand_|$)/) || [])[1];
      if (!name) continue;
      let top = one.getBoundingClientRect().top;
      for (let up = one.parentElement; up; up = up.parentElement) top += up.scrollTop;
      const seen = window.placesSeen[name] = window.placesSeen[name] || [];
      if (!seen.some(known => Math.abs(known - top) < 2)) seen.push(Math.round(top));
    }
    window.placesWatch = requestAnimationFrame(look);
  };
  look();
}"""
_OPACITY = """element => {
  if (!element.isConnected) return null;
  let found = 1;
  for (let one = element; one; one = one.parentElement) found *= Number(getComputedStyle(one).opacity);
  return found;
}"""


class Dashboard:
    """One tab on the dashboard at `url`."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url.rstrip("/")
        page.set_default_timeout(PATIENCE_SECONDS * _MS)

    # ---- coming in -----------------------------------------------------------------------------------------------

    def open(self, path: str = "/", heading: str | None = None) -> Dashboard:
        """Go to a page by its address, and wait for its heading if one is named."""
        self.page.goto(self.url + path)
        if heading is not None:
            self.expect_page(heading)
        return self

    def sign_in(self, person: Person) -> None:
        """Fill in the form and send it; what comes of it is the caller's to look at."""
        self.page.get_by_role("textbox", name="User name").fill(person.name)
        self.page.get_by_role("textbox", name="Password").fill(person.password)
        self.page.get_by_role("button", name="Sign in").click()

    def expect_page(self, heading: str) -> None:
        """The page of that name is shown."""
        expect(self.heading(heading)).to_be_visible(timeout=PATIENCE_SECONDS * _MS)

    def follow(self, name: str) -> None:
        """Follow a link of the navigation and wait for its page. On a phone the navigation is opened first."""
        menu = self.page.get_by_role("button", name="Expand sidebar")
        if menu.is_visible():
            menu.click()
        self.page.get_by_role("link", name=name, exact=True).first.click()
        self.expect_page(name)

    # ---- what is seen --------------------------------------------------------------------------------------------

    def heading(self, name: str) -> Locator:
        """The page's own heading."""
        return self.page.get_by_role("heading", level=1, name=name, exact=True)

    @property
    def strip(self) -> Locator:
        """The strip on every page."""
        return self.page.get_by_role("status", name="Fleet status")

    def badge(self, service: str, state: str | None = None) -> Locator:
        """What says the state of a service."""
        wanted = state or rf"({'|'.join(STATES)})"
        return self.page.get_by_role("img", name=re.compile(rf"^{service}: {wanted}$")).first

    def state(self, service: str) -> str:
        """The state of a service, in the page's word."""
        return (self.badge(service).get_attribute("aria-label") or "").rsplit(": ", 1)[-1]

    def states(self) -> dict[str, str]:
        """Every state that the page shows, read at one moment."""
        badges = self.page.get_by_role("img", name=re.compile(rf"^\S+: ({'|'.join(STATES)})$"))
        labels = badges.evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
        return dict(label.split(": ", 1) for label in labels)

    def expect_state(self, service: str, state: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the page says so."""
        expect(self.badge(service, state)).to_be_visible(timeout=seconds * _MS)

    def banner(self, text: str) -> Locator:
        """The alert that says so."""
        return self.page.get_by_role("alert").filter(has_text=re.compile(text, re.IGNORECASE)).first

    def opacity(self, locator: Locator) -> float:
        """How much of it is seen, through everything around it: 1 is undimmed."""
        seen = poll_until(  # it may be replaced, by its next update, between being found and being looked at
            "it to stay for a look", lambda: locator.evaluate(_OPACITY), lambda found: found is not None, seconds=5
        )
        return float(seen)

    def updated(self) -> str:
        """The time of the last update, as the strip says it."""
        found = re.search(r"\d\d:\d\d:\d\d", self.strip.inner_text())
        assert found, f"the strip says no time: {self.strip.inner_text()!r}"
        return found.group(0)

    # ---- acting --------------------------------------------------------------------------------------------------

    def actions(self, service: str) -> Locator:
        """The button that opens a service's menu."""
        return self.page.get_by_role("button", name=f"Actions for {service}", exact=True)

    def choose(self, service: str, act: str) -> None:
        """Open the menu of a service and take one entry."""
        self.actions(service).click()
        self.page.get_by_role("menuitem", name=act, exact=True).click()

    @property
    def dialog(self) -> Locator:
        """The open dialog."""
        return self.page.get_by_role("dialog")

    def confirm_button(self, act: str, service: str) -> Locator:
        """What carries the act out."""
        return self.dialog.get_by_role("button", name=f"{act} {service}", exact=True)

    def fill_dialog(self, reason: str, typed: str | None = None) -> None:
        """Give the reason, and the name where it is asked for."""
        self.dialog.get_by_role("textbox", name=REASON).fill(reason)
        if typed is not None:
            box = self.dialog.get_by_role("textbox", name=re.compile(r"^Type .+ to confirm$"))
            box.fill(typed)
            box.press("Tab")

    def act(self, service: str, act: str, reason: str, typed: str | None = None) -> float:
        """From the row to the confirmed dialog; when it was confirmed (monotonic)."""
        self.choose(service, act)
        self.fill_dialog(reason, typed)
        button = self.confirm_button(act, service)
        expect(button).to_be_enabled()
        confirmed = time.monotonic()
        button.click()
        return confirmed

    @contextmanager
    def counted_clicks(self) -> Iterator[list[int]]:
        """How often the mouse is pressed in the block; the one number is there when it ends."""
        self.page.evaluate(_COUNT_CLICKS)
        clicks: list[int] = []
        yield clicks
        clicks.append(int(self.page.evaluate("window.clicksSeen")))

    @contextmanager
    def watched_places(self) -> Iterator[dict[str, list[int]]]:
        """Every place that the rows' buttons have in the block, frame by frame; filled when it ends."""
        self.page.evaluate(_WATCH_PLACES)
        places: dict[str, list[int]] = {}
        yield places
        places.update(self.page.evaluate("() => { cancelAnimationFrame(window.placesWatch); return placesSeen; }"))
