"""What every page has: the strip, what is gone, the operations of this tab; and one part that renews itself.

One live fragment a page, of HTML elements alone: with several, or with canvases, ten viewers were enough to bring the
server down. Nothing that comes and goes moves what is under the pointer: the strip stays at the upper edge of the
window and has one height, an alert lies over the page's title, and what became of an act stands at the lower edge.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import streamlit as st

from atoll_dashboard import acts, fleetview, markup, states, wording
from atoll_dashboard.fleetview import Absence, View
from atoll_dashboard.poller import Seen
from atoll_dashboard.sessions import Session, current
from atoll_dashboard.world import world

Body = Callable[[Session, View], None]

EVERY_SECONDS = 2.0
#: While an operation of this tab goes on.
EVERY_SECONDS_UNDERWAY = 0.5
_HOLD, _HELD, _LOOKS_OFTEN = "hold-updates", "held", "looks-often"


def page(body: Body) -> None:
    """A page: the live part around `body`, and a dialog where one was asked for."""
    often = acts.underway()
    st.session_state[_LOOKS_OFTEN] = often
    st.fragment(_live, run_every=EVERY_SECONDS_UNDERWAY if often else EVERY_SECONDS)(body)
    acts.open_dialog()


def _live(body: Body) -> None:
    session = current()
    if session is None:
        st.html(markup.wrapped(markup.note(f"You are signed out. {markup.link(markup.address('login'), 'Sign in')}")))
        return
    acts.follow(session)
    if acts.underway() != st.session_state[_LOOKS_OFTEN]:
        st.rerun()  # the whole page, which sets the other pace
    held = bool(st.session_state.get(_HOLD))
    view = _view(_seen(held), held)
    with st.container(key="top"):
        _strip(session, view)
        _alert(view)
    page, news = st.container(key="page"), st.container(key="news")
    with news:
        acts.show()
    with page:
        body(session, view)


def _seen(held: bool) -> Seen:
    if not held:
        st.session_state.pop(_HELD, None)
        return world().poller.seen()
    kept: Seen = st.session_state.setdefault(_HELD, world().poller.seen())
    return kept


def _view(seen: Seen, held: bool) -> View:
    ahead = acts.ahead(seen.snapshot.as_of) if seen.snapshot else {}
    return fleetview.view_of(seen, time.time(), time.monotonic(), ahead, held)


def zone() -> str | None:
    """The reader's time zone, as the browser says it."""
    return st.context.timezone


# ---- the strip ---------------------------------------------------------------------------------------------------


def _strip(session: Session, view: View) -> None:
    state, words = fleetview.fleet_word(view)
    look = states.look(state)
    faults = _faults(view)
    paused = ' class="at-badge at-paused"' if view.faults else ""
    age = "at-old" if view.stale or view.held else ""
    with st.container(horizontal=True, vertical_alignment="center", key="strip"):
        st.html(
            markup.wrapped(
                '<div class="at-strip" role="status" aria-label="Fleet status">'
                f'<span class="at-badge at-{look.tone}">{look.sign} {markup.text(words)}</span>'
                f"<span{paused}>{markup.text(faults)}</span>"
                f'<span class="{age}">{markup.text(fleetview.freshness(view, zone()))}</span>'
                f'<span class="at-who">{markup.text(session.username)} · {markup.text(session.role)}</span>'
                f"<span>{markup.link('/logout', 'Sign out')}</span></div>"
            )
        )
        if view.snapshot is not None:
            acts.stop_all_faults(session, view.snapshot)
        st.toggle("Hold updates", key=_HOLD)


def _faults(view: View) -> str:
    """The one that ends first, and how many more; those whose time is over by our clock are still said."""
    if view.age_seconds > states.UNKNOWN_AFTER_SECONDS:
        return "faults unknown"
    if not view.faults:
        return "no active faults"
    first = min(view.faults, key=lambda one: one.until or float("inf"))
    left = f", {max(0.0, first.until - view.now):.0f} s left" if first.until else ""
    more = f" and {len(view.faults) - 1} more" if len(view.faults) > 1 else ""
    return f"‖ {first.kind} of {first.target}{left}{more}"


def _alert(view: View) -> None:
    """A place of one line that is always there; more lines lie over the page's title."""
    sentences = [_with_time(one) for one in view.absences]
    if view.snapshot is not None and not view.stale:
        sentences += [
            f"{alarm.target}: {alarm.text} (since {wording.clock(alarm.since, zone())})"
            for alarm in view.snapshot.alarms
        ]
    said = markup.alert(sentences) if sentences else f"<span>{markup.text(fleetview.quiet(view))}</span>"
    st.html(markup.wrapped(f'<div class="at-quiet">{said}</div>'))


def _with_time(absence: Absence) -> str:
    return absence.text + (f" (since {wording.clock(absence.since, zone())})" if absence.since else "")
