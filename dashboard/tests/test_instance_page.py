"""The Service page's log and configuration: what they show, in whose name, and what while control is gone."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from serving import Dashboard, until
from standin import AWAY, State, snapshot
from test_markup import Elements

from atoll_dashboard import instances
from atoll_dashboard.instances import Line, Log
from atoll_dashboard.pages import instance

TRACE = "0af7651916cd43dd8448eb211c80319c"
HOSTILE = "<img src=x onerror=alert(1)></td><script>alert(2)</script>"
PAGE = ("service", "name=payments")


def line(text: str, **more: Any) -> dict[str, Any]:
    return {"at": 1795860000.25, "level": "info", "event": None, "text": text, "trace_id": None} | more


# ---- showing -----------------------------------------------------------------------------------------------------


def test_no_line_and_no_setting_can_inject_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "zone", lambda: None)

    def log(word: str) -> Elements:
        return Elements(instance._log(Log([Line(word, 1.0, word, word, word)])))

    def settings(word: str) -> Elements:
        return Elements(instance._settings(instances.Configuration([instances.Setting(word, word, True)])))

    for piece in (log, settings):
        plain, attacked = piece("x"), piece(HOSTILE)
        assert attacked.names == plain.names
        assert [name for name, _ in attacked.attributes] == [name for name, _ in plain.attributes]
        assert HOSTILE in attacked.said


def test_a_level_is_a_shape_a_word_and_a_colour_and_a_trace_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "zone", lambda: None)
    shown = instance._log(Log([Line("a", 1.0, "error", "lost", TRACE), Line("b", None, "warning"), Line("c")]))
    assert 'at-down"><span aria-hidden="true">✕</span> error' in shown
    assert 'at-degraded"><span aria-hidden="true">△</span> warning' in shown
    assert f'href="/traces?trace={TRACE}"' in shown
    assert shown.count("<a ") == 1
    assert shown.count("<tr>") == 4
    many = instance._log(Log([Line(f"line {number}") for number in range(80)]))
    assert (many.count("<tr>"), "line 79" in many, "line 29" in many) == (51, True, False)


# ---- the page ----------------------------------------------------------------------------------------------------


def shown(dashboard: Dashboard) -> State:
    """The gateway's state, with a log and a configuration to show."""
    made = dashboard.gateway.state
    made.lines = [line("older"), line(HOSTILE, level="error", event="it broke", trace_id=TRACE)]
    made.settings = [
        {"name": "PAYMENTS_TOKEN", "value": "••••••", "masked": True},
        {"name": "PAYMENTS_DECLINE_ABOVE", "value": "", "masked": False},
    ]
    return made


def test_the_service_page_shows_the_last_lines_and_the_masked_configuration(dashboard: Dashboard) -> None:
    state = shown(dashboard)
    before = len(state.asked)  # by other tests
    with dashboard.page(dashboard.login("viewer")) as page:
        until("the log", lambda: "it broke" in page.open(*PAGE))
        assert page.text.index("older") < page.text.index("it broke")
        assert HOSTILE not in page.text
        assert "&lt;script&gt;" in page.text
        assert f"/traces?trace={TRACE}" in page.text
        assert re.search(r"PAYMENTS_TOKEN</code></td>.*?••••••.*?masked", page.text)
        assert "PAYMENTS_DECLINE_ABOVE" in page.text
        assert "empty" in page.text
    wanted = tuple(f"/ops/instances/payments/1/{what}" for what in ("log", "configuration"))
    looked = {one.who for one in state.asked[before:] if one.path.startswith(wanted)}
    assert looked == {"viewer"}


def test_who_acted_last_is_told_without_a_pid(dashboard: Dashboard) -> None:
    act = {"who": "amy", "act": "kill", "at": 0.0, "reason": "drill", "result": "started: pid 8"}
    dashboard.gateway.state.snapshot = snapshot("payments", last_act=act)
    with dashboard.page(dashboard.login("viewer")) as page:
        until("who acted last", lambda: "by amy: drill (started)" in page.open(*PAGE))
        assert "pid 8" not in page.text


def test_an_empty_log_says_so(dashboard: Dashboard) -> None:
    with dashboard.page(dashboard.login("viewer")) as page:
        until("the words for none", lambda: "It has said nothing yet." in page.open(*PAGE))


def test_while_control_is_gone_what_was_known_stays_dimmed_and_the_reason_is_said(dashboard: Dashboard) -> None:
    state = shown(dashboard)
    with dashboard.page(dashboard.login("viewer")) as page:
        until("the log", lambda: "it broke" in page.open(*PAGE))
        state.ops = AWAY
        until("the reason", lambda: "control is gone: log unknown" in page.open(*PAGE))
        assert "This is the log as last known." in page.text
        assert re.search(r'at at-dim"><div class="at-log">.*it broke', page.text)
    with dashboard.page(dashboard.login("viewer")) as fresh:
        fresh.open(*PAGE)
        assert "control is gone: log unknown" in fresh.text
        assert "it broke" not in fresh.text
    state.ops = "well"
    with dashboard.page(dashboard.login("viewer")) as page:
        until("the log again", lambda: "it broke" in page.open(*PAGE) and "log unknown" not in page.text)


def test_a_gateway_that_hangs_delays_the_page_once_and_not_for_each_of_its_pieces(dashboard: Dashboard) -> None:
    state = shown(dashboard)
    with dashboard.page(dashboard.login("viewer")) as page:
        until("the log", lambda: "it broke" in page.open(*PAGE))
        state.ops = "hang"
        began = time.monotonic()
        until("the reason", lambda: "gateway is gone: log unknown" in page.open(*PAGE), 5)
        took = time.monotonic() - began
        print(f"» a page with a gateway that hangs was drawn in {took:.1f} s")
        began = time.monotonic()
        page.open(*PAGE)
        assert time.monotonic() - began < 3 * 0.8, "what is gone is asked once, not for each piece of the page"


def test_a_log_that_is_kept_elsewhere_is_named_on_the_page(dashboard: Dashboard) -> None:
    state = shown(dashboard)
    with dashboard.page(dashboard.login("viewer")) as page:
        page.open(*PAGE)
        time_out = time.monotonic() + 10
        state.ops = (404, {"code": "not_here", "detail": "not reachable from here: docker compose logs payments"})
        while "docker compose logs payments" not in page.open(*PAGE):
            assert time.monotonic() < time_out, page.text
        assert "it broke" not in page.text, "what is not reachable is not shown as if it were the last"
