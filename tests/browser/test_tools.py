"""The suite's own tools can fail: a check that finds nothing must be one that would have found something."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

import npm
from browser import axe, bringing

_CLEAN = """<!doctype html><html lang="en"><head><title>Clean</title></head>
<body><main><h1>Clean</h1><p>Words.</p><label>Name <input></label></main></body></html>"""
_PLANTED = """<!doctype html><html><head><title>Planted</title></head><body><main>
<h1>Planted</h1><p style="color:#aaa;background:#fff">Pale words.</p><input>
<button style="padding:2em"></button></main></body></html>"""


def test_planted_violations_are_reported_each_by_its_rule(browser: Browser, axe_source: str) -> None:
    page = browser.new_page()
    page.set_content(_PLANTED)
    found = axe.violations(page, axe_source)
    assert {one.split(":")[0] for one in found} == {"html-has-lang", "color-contrast", "label", "button-name"}


def test_a_clean_page_is_called_clean(browser: Browser, axe_source: str) -> None:
    page = browser.new_page()
    page.set_content(_CLEAN)
    assert axe.violations(page, axe_source) == []


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(npm, "_TOOLS", tmp_path)
    with pytest.raises(bringing.AbsentError, match="axe-core: there is no npm"):
        bringing.axe_core()
    monkeypatch.setattr(bringing, "_playwrights_own", lambda: tmp_path / "none")
    monkeypatch.setattr(bringing, "_download_chromium", lambda: None)
    with pytest.raises(bringing.AbsentError, match="Chromium: "):
        bringing.chromium()
