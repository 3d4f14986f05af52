"""Traces: a list and a waterfall out of Jaeger's query API."""

from __future__ import annotations

import re
import time

import streamlit as st

from atoll_dashboard import markup, waterfall, wording
from atoll_dashboard.fleetview import View
from atoll_dashboard.gateway import Trouble
from atoll_dashboard.jaeger import Search, TooMuch, Trace, TraceHead
from atoll_dashboard.sessions import Session
from atoll_dashboard.shell import zone
from atoll_dashboard.world import world

#: Parts that make no spans.
UNTRACED = frozenset({"broker", "journal", "jaeger", "dashboard"})
#: An order may be looked for sooner than its spans are exported.
_EXPORTING_SECONDS = 5.0
_ID = re.compile(r"[0-9a-f]{16,32}")
_MS = re.compile(r"\d{1,9}(\.\d+)?")
#: How far back the list looks, as the address has it.
_RANGES = {"15 min": 900.0, "1 h": 3600.0, "6 h": 21_600.0, "24 h": 86_400.0}
#: On each span of the bus: the ordering key of its event, which for an order is its id.
_SUBJECT = "cloudevents.event_subject"
_KEPT, _TRACE, _FIRST_ASKED = "traces-kept", "trace-kept", "trace-asked"
_HOW = (
    "<code>./atoll up</code> brings Jaeger by itself where it can (<code>./atoll status</code> says why not); "
    "<code>./atoll up --jaeger URL</code> uses one that runs."
)


def body(_: Session, view: View) -> None:
    """The list, or the trace that the address names."""
    wanted = st.query_params.get("trace", "").strip().lower()
    st.html(markup.wrapped(markup.heading(1, "Traces")))
    if wanted:
        _one(wanted, view)
        return
    chosen = _filters()
    if isinstance(chosen, str):
        st.html(markup.wrapped(markup.note(markup.text(chosen), "down")))
        return
    listing(chosen, view)


def _filters() -> Search | str:
    """What the address asks for, and fields that change the address; or what is wrong with it."""
    with st.container(horizontal=True, key="filters", vertical_alignment="bottom"):
        st.text_input("Service", key="service", bind="query-params", placeholder="orders", autocomplete="off")
        st.text_input(
            "Order id, or name=value", key="with", bind="query-params", placeholder="any", autocomplete="off",
            max_chars=300,
        )  # fmt: skip
        st.text_input("At least, ms", key="min", bind="query-params", placeholder="0", autocomplete="off", width=110)
        st.selectbox("In the last", list(_RANGES), index=1, key="in", bind="query-params", width=120)
        st.text_input("Trace id", key="id", placeholder="32 hex digits", autocomplete="off", on_change=_go_to)
        st.checkbox("Errors only", key="errors", bind="query-params")
    slowest = _asked("min")
    if slowest and not _MS.fullmatch(slowest):
        return "At least, ms: expected a number from 0"
    return Search(
        service=_asked("service") or "orders", limit=30, lookback_seconds=_RANGES.get(_asked("in"), _RANGES["1 h"]),
        error=bool(st.session_state.get("errors")), min_ms=float(slowest) if slowest else None,
        attribute=attribute(_asked("with")),
    )  # fmt: skip


def _asked(field: str) -> str:
    return str(st.session_state.get(field) or "").strip()


def attribute(asked: str) -> tuple[str, str] | None:
    """`name=value` of a span's attribute; a word alone is an event's subject, such as an order's id."""
    if not asked:
        return None
    name, equals, value = asked.partition("=")
    return (name.strip(), value.strip()) if equals and name.strip() else (_SUBJECT, asked)


def _go_to() -> None:
    st.query_params["trace"] = str(st.session_state.get("id") or "").strip()


# ---- the list ----------------------------------------------------------------------------------------------------


def listing(search: Search, view: View) -> None:
    """The traces that a search finds; the last that were known, dimmed, while Jaeger is gone."""
    kept = st.session_state.get(_KEPT)
    try:
        heads = world().jaeger.search(search)
    except Trouble as trouble:
        st.html(markup.wrapped(_without_jaeger(trouble, view)))
        if kept and kept[0] == search and kept[1]:
            st.html(markup.wrapped(_table(kept[1]), dimmed=True))
        return
    shown, newer = steady(kept[1] if kept and kept[0] == search else [], heads)
    st.session_state[_KEPT] = (search, shown)
    if not shown:
        st.html(
            markup.wrapped(
                markup.empty(
                    f"No traces of {search.service} match in the last {wording.duration(search.lookback_seconds)}.",
                    "Spans arrive a few seconds after the call.",
                )
            )
        )
        return
    _offer(newer, search, heads)
    st.html(markup.wrapped(_table(shown), dimmed=view.stale))


def steady(shown: list[TraceHead], found: list[TraceHead]) -> tuple[list[TraceHead], int]:
    """The list that stands, its traces as they are known now, in their places; and how many newer ones there are.

    Under load there is a new one at each look: rows would run away from whoever reaches for one.
    """
    if not shown:
        return found, 0
    fresh = {head.id: head for head in found}
    known = {head.id for head in shown}
    return [fresh.get(head.id, head) for head in shown], sum(head.id not in known for head in found)


def _offer(newer: int, search: Search, found: list[TraceHead]) -> None:
    """A line of one height above the list: what is newer waits there until it is asked for."""
    with st.container(horizontal=True, vertical_alignment="center", key="newer"):
        words = f"{newer} newer" if newer < search.limit else f"{newer} or more newer"
        st.html(markup.wrapped(f'<div class="at-newer">{words if newer else "The newest"}</div>'), width="content")
        if newer:
            st.button("Show the newest", key="newest", on_click=_show_newest, args=(search, found), type="tertiary")


def _show_newest(search: Search, found: list[TraceHead]) -> None:
    st.session_state[_KEPT] = (search, found)


def _without_jaeger(trouble: Trouble, view: View) -> str:
    """Why there are no traces now: too many, or Jaeger is brought just now, or there is none, or it is gone."""
    if isinstance(trouble, TooMuch):
        return markup.note(f"{markup.text(trouble.text)}.", "degraded")
    part = view.snapshot.part("jaeger") if view.snapshot is not None and not view.stale else None
    if part is not None and part.state == "starting" and part.why:
        return markup.note(f"jaeger is on its way: {markup.text(part.why)}. Traces are here as soon as it runs.")
    why = part.why if part is not None and part.state == "absent" and part.why else trouble.text
    word = "absent" if part is not None and part.state == "absent" else "gone"
    return markup.note(f"jaeger is {word}: {markup.text(why)}. {_HOW}", "degraded")


def _table(heads: list[TraceHead]) -> str:
    rows = [
        [
            f'<span class="at-nowrap">{wording.clock(head.started_at, zone())}</span>',
            markup.link(
                markup.address("traces", trace=head.id),
                f"{markup.text(head.root_service)}: {markup.text(head.root_name)} "
                f'<small class="at-muted">{markup.text(head.id[:8])}</small>',
            ),
            wording.milliseconds(head.duration_ms),
            str(head.spans),
            markup.text(", ".join(head.services)),
            f'<span class="at-error-text">✕ {head.errors}</span>' if head.errors else "none",
        ]
        for head in heads
    ]
    return markup.table("Traces", ["When", "Trace", "Took", "Spans", "Services", "Errors"], rows)


# ---- one trace ---------------------------------------------------------------------------------------------------


def _one(wanted: str, view: View) -> None:
    st.html(markup.wrapped(markup.link(markup.address("traces"), "← All traces")))
    if not _ID.fullmatch(wanted):
        st.html(
            markup.wrapped(markup.note(f"{markup.text(wanted)} is no trace id: expected 16 to 32 hex digits", "down"))
        )
        return
    try:
        trace = world().jaeger.trace(wanted)
    except Trouble as trouble:
        st.html(markup.wrapped(_without_jaeger(trouble, view)))
        kept: Trace | None = st.session_state.get(_TRACE)
        if kept is not None and kept.id == wanted:
            _show(kept, view, dimmed=True)
        return
    if trace is None:
        _unknown(wanted)
        return
    st.session_state[_TRACE] = trace  # the last one alone
    _show(trace, view, dimmed=view.stale)


def _unknown(wanted: str) -> None:
    asked, since = st.session_state.get(_FIRST_ASKED, ("", 0.0))
    if asked != wanted:
        since = time.monotonic()
        st.session_state[_FIRST_ASKED] = (wanted, since)
    if time.monotonic() - since < _EXPORTING_SECONDS:
        st.html(markup.wrapped(markup.empty("Still being exported …", "Spans arrive a few seconds after they end.")))
        return
    st.html(
        markup.wrapped(
            markup.empty(
                f"Jaeger knows no trace {wanted}.", "It may have been dropped: the memory store keeps the newest alone."
            )
        )
    )


def _show(trace: Trace, view: View, *, dimmed: bool) -> None:
    spans = trace.spans
    begin = min(span.started_at for span in spans)
    end = max(span.started_at + span.duration_ms / 1000 for span in spans)
    errors = sum(span.error for span in spans)
    services = sorted({span.service for span in spans})
    facts = [
        ("Trace", f"<code>{markup.text(trace.id)}</code>"),
        ("Began", wording.moment(begin, zone())),
        ("Took", wording.milliseconds(1000 * (end - begin))),
        ("Spans", f"{len(spans)} in {wording.plural(len(services), 'service')}"),
        ("Errors", str(errors)),
    ]
    if world().jaeger.has_ui():
        there = markup.text(world().jaeger.page_of(trace.id))
        facts.append(("", f'<a class="at-link" href="{there}" target="_blank" rel="noopener">Open in Jaeger</a>'))
    st.html(markup.wrapped(markup.pairs(facts), dimmed=dimmed))
    legend = '<p class="at-muted">Bars: blue calls, amber publishes, green consumes, red errors. A row opens.</p>'
    drawn = waterfall.render(trace, {part.name for part in view.by_name()})
    st.html(markup.wrapped(drawn + legend, dimmed=dimmed))
