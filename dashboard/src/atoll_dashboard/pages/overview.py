"""Overview: four figures, the topology, a row a service."""

from __future__ import annotations

import streamlit as st

from atoll_dashboard import acts, fleetview, markup, topology, wording
from atoll_dashboard.fleetview import View
from atoll_dashboard.sessions import Session
from atoll_dashboard.snapshot import Part, Rates, Snapshot


def body(session: Session, view: View) -> None:
    """The page."""
    st.html(markup.wrapped(markup.heading(1, "Overview")))
    if view.snapshot is None:
        st.html(markup.wrapped(markup.skeleton(6)))
        return
    st.html(markup.wrapped(_figures(view), dimmed=view.parts_stale or view.without_bus))
    with st.expander("Topology", expanded=not _phone()):
        _topology(view)
    st.html(markup.wrapped(markup.heading(2, "Services")))
    if _acts(session, view):
        with st.container(key="rows"):
            for part in view.by_name():
                _acting_row(session, view, view.snapshot, part)
    else:
        rows = "".join(f'<div class="at-row">{cells(view, part)}</div>' for part in view.by_name())
        st.html(markup.wrapped(f'<div class="at-list">{rows}</div>', dimmed=view.parts_stale))


def _acts(session: Session, view: View) -> bool:
    return any(fleetview.acts_for(part, session.scopes) for part in view.by_name())


def _acting_row(session: Session, view: View, snapshot: Snapshot, part: Part) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key=f"row-{part.name}-{part.instance}"):
        st.html(markup.wrapped(f'<div class="at-row">{cells(view, part)}</div>', dimmed=view.parts_stale))
        acts.menu(session, part, snapshot)


def _figures(view: View) -> str:
    told = view.bus_figures
    lag, dead = told.worst_lag, told.dead_letters
    up = "down" if view.up is not None and view.up[0] < view.up[1] and not view.stale else ""
    letters = "" if dead is None else "good" if dead == 0 else "see ./atoll dlq list"
    group = f"in group {lag.group}" if lag is not None and lag.lag else "no group is behind" if lag is not None else ""
    return markup.figures(
        [
            markup.figure("Services up", fleetview.total_up(view), _not_up(view), up),
            markup.figure("Events per second", wording.rate(told.events_per_second), "over the last 10 s"),
            markup.figure("Worst consumer lag", wording.count(lag.lag if lag else None), group),
            markup.figure(
                "Dead letters", wording.count(dead), letters, "down" if dead and not view.stale else ""
            ),
        ]
    )  # fmt: skip


def _not_up(view: View) -> str:
    if view.up is None:
        return ""
    missing = [part.name for part in view.by_name() if view.state(part) in ("down", "stopped", "paused")]
    return ", ".join(missing) or "all parts"


def cells(view: View, part: Part) -> str:
    """The cells of a part's row: its name, state and figures; and why, where that is not plain."""
    rates = part.rates
    name = part.name if part.alone and part.instance == 1 else part.slot
    why = f'<div class="at-why">{markup.text(part.why)}</div>' if part.why and view.state(part) == part.state else ""
    return (
        f'<span class="at-cell">{markup.link(markup.address("service", name=part.name), markup.text(name))}</span>'
        f'<span class="at-cell">{markup.badge(part.name, view.state(part))}</span>'
        f'<span class="at-cell">{_events(rates)}</span>'
        f'<span class="at-cell"><small>p95</small> {wording.milliseconds(rates.p95_ms if rates else None)}</span>'
        f'<span class="at-cell"><small>lag</small> {wording.count(view.lag(part))}</span>'
        f'<span class="at-cell"><small>restarts</small> {part.restarts}</span>{why}'
    )


def _events(rates: Rates | None) -> str:
    if rates is None:
        return f"{wording.DASH} <small>events/s</small>"
    events = rates.events_in + rates.events_out
    if events == 0 and rates.requests:
        return f"{wording.rate(rates.requests)} <small>requests/s</small>"
    return f"{wording.rate(events)} <small>events/s</small>"


# ---- the topology ------------------------------------------------------------------------------------------------


def _topology(view: View) -> None:
    theme = "dark" if st.context.theme.type == "dark" else "light"
    parts = view.by_name()
    if not topology.flows(parts):
        st.html(markup.wrapped(markup.empty("No topics are known yet.")))
        return
    around = st.query_params.get("around")
    words = topology.words(parts)
    st.graphviz_chart(
        topology.dot(view, theme, around), width="stretch", alt=f"Topics between the services. {'; '.join(words)}"
    )
    items = "".join(f"<li>{markup.text(one)}</li>" for one in words)
    st.html(
        markup.wrapped(f"<details><summary>The same in words</summary><ul>{items}</ul></details>", dimmed=view.stale)
    )


def _phone() -> bool:
    """As far as the browser tells at its first request: on a phone the graph waits to be asked for."""
    return "Mobile" in (st.context.headers.get("User-Agent") or "")
