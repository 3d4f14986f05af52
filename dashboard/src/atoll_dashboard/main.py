"""Each page view: who is it, and which page. Run anew for each page view; everything lasting is in `world`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from atoll_dashboard import markup, sessions, shell
from atoll_dashboard.pages import operations, overview, service, traces

_WATCH = '<script src="/atoll/watch.js"></script>'
_OF = "of-session"
_ICON = Path(__file__).with_name("icon.png")


def _overview() -> None:
    shell.page(overview.body)


def _service() -> None:
    shell.page(service.body)


def _traces() -> None:
    shell.page(traces.body)


def _operations() -> None:
    shell.page(operations.body)


def run() -> None:
    """Draw the page that the address names."""
    st.set_page_config(page_icon=str(_ICON), layout="wide", initial_sidebar_state="auto")
    pages = [
        st.Page(_overview, title="Overview", icon=":material/hub:", url_path="overview", default=True),
        st.Page(_traces, title="Traces", icon=":material/waterfall_chart:", url_path="traces"),
        st.Page(_operations, title="Operations", icon=":material/history:", url_path="operations"),
        st.Page(_service, title="Service", url_path="service", visibility="hidden"),
    ]
    chosen = st.navigation(pages)
    st.html(markup.style())
    st.html(_WATCH, unsafe_allow_javascript=True)
    session = sessions.current()
    if session is not None and st.session_state.setdefault(_OF, session.id) != session.id:
        st.session_state.clear()  # Streamlit gave this person the page that another had open in this tab
        st.session_state[_OF] = session.id
    if session is None:
        st.html(markup.wrapped(markup.note(f"You are signed out. {markup.link(markup.address('login'), 'Sign in')}")))
        return
    chosen.run()
