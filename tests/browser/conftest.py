"""A Chromium and axe-core for the browser tests, or a reason why not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from browser import bringing

_FLAGS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def _brought(bring: Callable[[], Any]) -> Any:
    """What `bring` gives; without it the test skips by name, but not where everything is promised to run."""
    try:
        return bring()
    except bringing.AbsentError as absent:
        if os.environ.get("CI"):
            pytest.fail(f"on CI nothing is left out: {absent}", pytrace=False)
        pytest.skip(str(absent))


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
        running = playwright.chromium.launch(executable_path=chromium, headless=True, args=list(_FLAGS))
        yield running
        running.close()
