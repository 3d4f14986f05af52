"""The agent is gone and everything else runs: the pages name it, once, and keep what it last told, dimmed."""

from __future__ import annotations

import re

from serving import Dashboard, until
from standin import snapshot

GONE = {"state": "unknown", "pid": 7, "why": "the agent is gone; ./atoll up starts one, which adopts what runs"}
UNHEARD = {"state": "unknown", "why": "when last heard of: running", "last_state": "running"}
SAID = "agent is gone: nobody starts parts again or carries out acts; ./atoll up starts one, which adopts what runs"


def test_the_pages_name_it_once_and_dim_what_it_told(dashboard: Dashboard) -> None:
    state = dashboard.gateway.state
    with dashboard.page(dashboard.login("viewer")) as page:
        until("a fleet that is well", lambda: "1 of 1 up" in page.open())
        assert '<div class="at at-dim">' not in page.text
        state.snapshot = snapshot("payments", **UNHEARD) | {"agent": GONE, "figures": {"up": None, "of": 1}}
        until("the agent to be named", lambda: SAID in page.open())
        assert page.text.count(SAID) == 1
        assert "payments is unknown" not in page.text
        assert "? the fleet&#x27;s state is unknown" in page.text
        assert 'aria-label="Services up: –"' in page.text
        assert re.search(r'at at-dim"><div class="at-list">.*aria-label="payments: running"', page.text)
        page.open("service", "name=payments")
        assert re.search(r'at at-dim"><span class="at-badge at-running[^>]*aria-label="payments: running"', page.text)
