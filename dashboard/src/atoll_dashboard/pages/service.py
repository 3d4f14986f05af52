"""Service: everything that is known of one part, and what may be done to it."""

from __future__ import annotations

import streamlit as st

from atoll_dashboard import acts, markup, progress, wording
from atoll_dashboard.fleetview import View
from atoll_dashboard.jaeger import Search
from atoll_dashboard.pages import instance, traces
from atoll_dashboard.sessions import Session
from atoll_dashboard.shell import zone
from atoll_dashboard.snapshot import Part, Snapshot

_EXITS_SHOWN = 5
_TRACES_SHOWN = 20


def body(session: Session, view: View) -> None:
    """The page of the part that the address names."""
    name = st.query_params.get("name", "")
    st.html(markup.wrapped(markup.heading(1, name or "Service")))
    if view.snapshot is None:
        st.html(markup.wrapped(markup.skeleton()))
        return
    instances = [part for part in view.snapshot.parts if part.name == name]
    if not instances:
        st.html(markup.wrapped(_unknown(name, view.snapshot)))
        return
    for part in instances:
        _instance(session, view, view.snapshot, part)
    _recent_traces(name, view)
    for part in instances:
        instance.body(session, view, part)


def _unknown(name: str, snapshot: Snapshot) -> str:
    links = ", ".join(
        markup.link(markup.address("service", name=one), markup.text(one))
        for one in sorted({p.name for p in snapshot.parts})
    )
    return markup.empty(
        f"There is no service named {name}." if name else "No service is chosen.", f"There are: {links}"
    )


def _instance(session: Session, view: View, snapshot: Snapshot, part: Part) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key=f"head-{part.name}-{part.instance}"):
        why = f' <span class="at-muted">{markup.text(part.why)}</span>' if part.why else ""
        st.html(
            markup.wrapped(
                f"{markup.badge(part.name, view.state(part))} {markup.text(part.slot)}{why}", dimmed=view.parts_stale
            )
        )
        acts.buttons(session, part, snapshot)
        acts.menu(session, part, snapshot)
    if part.last_act is not None:
        st.html(markup.wrapped(f'<div class="at-muted">{markup.text(_acted(part))}</div>', dimmed=view.parts_stale))
    st.html(markup.wrapped(_facts(part) + _topics(part, snapshot) + _exits(part), dimmed=view.parts_stale))


def _acted(part: Part) -> str:
    """`payments stopped 18:16:15 by amy: drill`."""
    act = part.last_act
    assert act is not None
    past = {
        "stop": "stopped",
        "kill": "killed",
        "pause": "paused",
        "start": "started",
        "restart": "restarted",
        "resume": "resumed",
    }
    reason = f": {act.reason}" if act.reason else ""
    result = f" ({progress.ended(act.result)})" if act.result else ""
    return f"{part.name} {past.get(act.act, act.act)} {wording.clock(act.at, zone())} by {act.who}{reason}{result}"


def _facts(part: Part) -> str:
    rates = part.rates
    paused = [("Paused until", wording.clock(part.paused_until, zone()))] if part.paused_until else []
    items = [
        ("Version", part.version or wording.DASH),
        ("Process", f"pid {part.pid}" if part.pid else "none"),
        ("Up for", wording.duration(part.uptime_seconds)),
        ("Restarts", str(part.restarts)),
        ("Memory", f"{part.memory_mb:.0f} MiB" if part.memory_mb is not None else wording.DASH),
        *paused,
        ("Requests per second", wording.rate(rates.requests if rates else None)),
        (
            "Events in / out per second",
            f"{wording.rate(rates.events_in if rates else None)} / {wording.rate(rates.events_out if rates else None)}",
        ),
        ("Errors per second", wording.rate(rates.errors if rates else None)),
        ("Retries per second", wording.rate(rates.retries if rates else None)),
        ("p95", wording.milliseconds(rates.p95_ms if rates else None)),
        ("Lag", wording.count(part.lag)),
        ("In flight", wording.count(part.in_flight)),
        (
            "Oldest unacknowledged",
            wording.duration(part.oldest_unacked_seconds) if part.lag or part.in_flight else wording.DASH,
        ),
        ("Dead letters", wording.count(part.dead_letters)),
    ]
    return markup.pairs([(name, markup.text(value)) for name, value in items])


def _topics(part: Part, snapshot: Snapshot) -> str:
    rates = {name: topic.rate for name, topic in (snapshot.bus.topics or {}).items()}
    pieces = []
    for title, topics in (("Publishes", part.topics.publishes), ("Consumes", part.topics.consumes)):
        if topics:
            rows = "".join(
                f"<li><span>{markup.text(topic)}</span>"
                f'<span class="at-nowrap">{wording.rate(rates.get(topic))} /s</span></li>'
                for topic in topics
            )
            pieces.append(f'{markup.heading(2, title)}<ul class="at-topics">{rows}</ul>')
    return "".join(pieces)


def _exits(part: Part) -> str:
    if not part.exits:
        return ""
    rows = [
        [
            wording.moment(one.at, zone()),
            "–" if one.code is None else str(one.code),
            markup.text(one.meaning),
            wording.duration(one.after_seconds),
        ]
        for one in reversed(part.exits[-_EXITS_SHOWN:])
    ]
    return markup.heading(2, "How it ended before") + markup.table("Exits", ["When", "Code", "Meaning", "After"], rows)


def _recent_traces(name: str, view: View) -> None:
    if name in traces.UNTRACED:
        return
    st.html(markup.wrapped(markup.heading(2, "Last traces")))
    traces.listing(Search(name, limit=_TRACES_SHOWN), view)
