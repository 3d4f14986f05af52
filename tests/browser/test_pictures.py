"""The pictures of the README, taken of the running fleet.

`./atoll test tests/browser/test_pictures.py --readme-pictures` writes them to docs/images; without the option they are
taken all the same, and kept beside the other screenshots.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect

from browser.conftest import LIGHT, SCREENSHOTS, Visitors
from browser.pages import Dashboard
from browser.people import Person
from fleet import REPOSITORY
from polling import poll_until

BYTES_MAX = 200_000


@pytest.fixture
def album(request: pytest.FixtureRequest) -> Path:
    """Where the pictures go."""
    folder = REPOSITORY / "docs" / "images" if request.config.getoption("--readme-pictures") else SCREENSHOTS / "readme"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_the_overview_under_load(visit: Visitors, olaf: Person, album: Path) -> None:
    tab = visit(olaf, replace(LIGHT, height=1140))  # room for the first rows under the topology
    tab.expect_state("payments", "running")
    poll_until(
        "events to flow on the page",
        lambda: re.search(r"Events per second\D*([1-9]\d*|\d+\.\d*[1-9])", tab.page.get_by_role("main").inner_text()),
        seconds=30, every=0.5,
    )  # fmt: skip
    _take(tab, album / "overview.png")


def test_a_trace(visit: Visitors, olaf: Person, album: Path) -> None:
    tab = visit(olaf, replace(LIGHT, height=1080), "/traces", "Traces")
    tab.page.get_by_role("link", name=re.compile("POST .orders")).last.click()
    expect(tab.page.get_by_text("payments").first).to_be_visible()
    _take(tab, album / "trace.png")


def _take(tab: Dashboard, path: Path) -> None:
    tab.page.evaluate("document.activeElement.blur()")
    tab.page.screenshot(path=path, animations="disabled")
    assert path.stat().st_size <= BYTES_MAX, f"{path.name} has {path.stat().st_size} bytes: a README is to load quickly"
