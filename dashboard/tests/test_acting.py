"""Who may act: not the page decides, nor this process. Messages to Streamlit are made by hand here."""

from __future__ import annotations

from serving import Dashboard, until
from standin import AWAY, snapshot

STOPPED = {"state": "stopped", "pid": None, "wanted": "stopped"}


def test_a_button_that_was_not_drawn_cannot_be_pressed(dashboard: Dashboard) -> None:
    state = dashboard.gateway.state
    state.snapshot = snapshot("payments", **STOPPED)
    with dashboard.page(dashboard.login("operator")) as page, dashboard.page(dashboard.login("viewer")) as looks:
        until("the operator's Start", lambda: page.open("service", "name=payments") and "Start" in page.widgets)
        start = page.widgets["Start"]
        looks.open("service", "name=payments")
        assert "Start" not in looks.widgets
        assert not any(label.startswith("Actions for") for label in looks.widgets)
        before = state.count("POST", "/ops/")
        looks.press(start)  # the same message that acts for the operator
        assert state.count("POST", "/ops/") == before
        page.press(start)
        until("the operator's act", lambda: state.count("POST", "/ops/") == before + 1)
    (asked,) = [one for one in state.asked if one.method == "POST" and one.path.startswith("/ops/")][-1:]
    assert (asked.path, asked.who) == ("/ops/instances/payments/1/start", "operator")
    assert asked.headers["Idempotency-Key"]


def test_whose_role_was_taken_away_is_refused_by_the_api(dashboard: Dashboard) -> None:
    """The page still has its button: the ops API says no, and the page says so."""
    state = dashboard.gateway.state
    state.snapshot = snapshot("payments", **STOPPED)
    with dashboard.page(dashboard.login("operator")) as page:
        until("Start", lambda: page.open("service", "name=payments") and "Start" in page.widgets)
        state.tokens = {token: (who, "ops:read", end) for token, (who, _, end) in state.tokens.items()}
        page.text = ""
        page.press(page.widgets["Start"])
        assert "Start payments was refused: told: forbidden" in page.text


def test_whose_account_was_removed_acts_no_more(dashboard: Dashboard) -> None:
    state = dashboard.gateway.state
    state.snapshot = snapshot("payments", **STOPPED)
    with dashboard.page(dashboard.login("operator")) as page:
        until("Start", lambda: page.open("service", "name=payments") and "Start" in page.widgets)
        state.remove("operator")
        before, page.text = len(state.asked), ""
        page.press(page.widgets["Start"])
        assert "Nothing was done to payments. Your access was withdrawn" in page.text
    tried = [one.who for one in state.asked[before:] if one.path.endswith("/start")]
    assert tried == [None]  # asked with a token that is nobody's any more, and not again


def test_with_the_agent_gone_it_says_that_nothing_was_done(dashboard: Dashboard) -> None:
    """Control looks for the agent before it does anything, so this is no "nobody knows"."""
    state = dashboard.gateway.state
    state.snapshot = snapshot("payments", **STOPPED)
    gone = {"code": "agent_gone", "detail": "the agent is gone; ./atoll up starts one, which adopts what runs"}
    with dashboard.page(dashboard.login("operator")) as page:
        until("Start", lambda: page.open("service", "name=payments") and "Start" in page.widgets)
        state.ops, page.text = (503, gone), ""
        page.press(page.widgets["Start"])
        said = "Nothing was done to payments: agent is gone: ./atoll up starts one, which adopts what runs."
        assert said in page.text
        state.ops, page.text = AWAY, ""  # the control: of one that was on its way nobody knows
        page.press(page.widgets["Start"])
        assert "Nobody knows what became of start payments: control is gone" in page.text


def test_who_takes_over_a_page_finds_nothing_of_the_one_before(dashboard: Dashboard) -> None:
    """In the same tab: one signs out, another signs in, and Streamlit goes on with the page that it knows."""
    state = dashboard.gateway.state
    state.snapshot = snapshot("payments", **STOPPED)
    cookie = dashboard.login("operator")
    with dashboard.page(cookie) as page:
        until("Start", lambda: page.open("service", "name=payments") and "Start" in page.widgets)
        page.press(page.widgets["Start"])
        assert "payments: requested" in page.open()
    with dashboard.page(cookie, page.id) as same:
        assert "payments: requested" in same.open()  # the control: his own page goes on
        assert same.id == page.id
    with dashboard.page(dashboard.login("viewer"), page.id) as other:
        assert "payments: requested" not in other.open()
        assert other.id == page.id
        assert "viewer" in other.text
