"""Traces: a list and a waterfall out of Jaeger's query API."""

from __future__ import annotations

import re
import time

import streamlit as st

from atoll_dashboard import markup, waterfall, wording
from atoll_dashboard.fleetview import View
from atoll_dashboard.gateway import Trouble
from atoll_dashboard.jaeger import Trace, TraceHead
from atoll_dashboard.sessions import Session
from atoll_dashboard.shell import zone
from atoll_dashboard.world import world

#: Parts that make no spans.
UNTRACED = frozenset({"broker", "journal", "jaeger", "dashboard"})
#: An order may be looked for sooner than its spans are exported.
_EXPORTING_SECONDS = 5.0
_ID = re.compile(r"[0-9a-f]{16,32}")
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
    with st.container(horizontal=True, key="filters", vertical_alignment="bottom"):
        st.text_input("Service", key="service", bind="query-params", placeholder="orders", autocomplete="off")
        st.text_input("At least, ms", key="min", bind="query-params", placeholder="0", autocomplete="off")
        st.text_input("Trace id", key="id", placeholder="32 hex digits", autocomplete="off", on_change=_go_to)
        st.checkbox("Errors only", key="errors", bind="query-params")
    slowest = str(st.session_state.get("min") or "").strip()
    if slowest and not re.fullmatch(r"\d{1,9}(\.\d+)?", slowest):
        st.html(markup.wrapped(markup.note("At least, ms: expected a number from 0", "down")))
        return
    listing(
        service=str(st.session_state.get("service") or "").strip() or "orders", view=view, limit=30,
        errors=bool(st.session_state.get("errors")), min_ms=float(slowest) if slowest else None,
    )  # fmt: skip


def _go_to() -> None:
    st.query_params["trace"] = str(st.session_state.get("id") or "").strip()


# ---- the list ----------------------------------------------------------------------------------------------------


def listing(*, service: str, view: View, limit: int, errors: bool = False, min_ms: float | None = None) -> None:
    """The last traces of a service; the last that were known, dimmed, while Jaeger is gone."""
    key = (service, errors, min_ms, limit)
    kept = st.session_state.get(_KEPT)
    try:
        heads = world().jaeger.search(service=service, limit=limit, error=errors, min_ms=min_ms)
    except Trouble as trouble:
        st.html(markup.wrapped(markup.note(f"jaeger is gone: {markup.text(trouble.text)}. {_HOW}", "degraded")))
        if kept and kept[0] == key and kept[1]:
            st.html(markup.wrapped(_table(kept[1]), dimmed=True))
        return
    st.session_state[_KEPT] = (key, heads)
    if not heads:
        st.html(
            markup.wrapped(
                markup.empty(
                    f"No traces of {service} match in the last hour.", "Spans arrive a few seconds after the call."
                )
            )
        )
        return
    st.html(markup.wrapped(_table(heads), dimmed=view.stale))


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
        st.html(markup.wrapped(markup.note(f"jaeger is gone: {markup.text(trouble.text)}. {_HOW}", "degraded")))
        kept: Trace | None = st.session_state.get(_TRACE)
        if kept is not None and kept.id == wanted:
            _show(kept, dimmed=True)
        return
    if trace is None:
        _unknown(wanted)
        return
    st.session_state[_TRACE] = trace  # the last one alone
    _show(trace, dimmed=view.stale)


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


def _show(trace: Trace, *, dimmed: bool) -> None:
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
        there = f"{markup.text(world().jaeger.link)}/trace/{markup.text(trace.id)}"
        facts.append(("", f'<a class="at-link" href="{there}" target="_blank" rel="noopener">Open in Jaeger</a>'))
    st.html(markup.wrapped(markup.pairs(facts), dimmed=dimmed))
    legend = '<p class="at-muted">Bars: blue calls, amber publishes, green consumes, red errors. A row opens.</p>'
    st.html(markup.wrapped(waterfall.render(trace) + legend, dimmed=dimmed))
