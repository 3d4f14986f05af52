"""Operations: what was done, by whom and why. The audit is control's; this page only reads it."""

from __future__ import annotations

import csv
import io
import time
from typing import Any

import streamlit as st

from atoll_dashboard import markup, wording
from atoll_dashboard.fleetview import View
from atoll_dashboard.gateway import Refused, Trouble, Withdrawn
from atoll_dashboard.sessions import Session
from atoll_dashboard.shell import zone
from atoll_dashboard.world import world

FILTERS = ("who", "act", "target")
_PAGE = 50
#: How a spreadsheet's formula begins, in wide letters too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_KEPT, _FRESH_SECONDS = "audit-kept", 2.0


def body(session: Session, view: View) -> None:
    """The page."""
    st.html(markup.wrapped(markup.heading(1, "Operations")))
    chosen = _filters()
    cursor = st.query_params.get("before")
    answer, kept = _audit(session, chosen, cursor)
    if answer is None:
        st.html(markup.wrapped(markup.skeleton()))
        return
    items = answer["items"]
    dimmed = kept or view.stale
    if not items:
        st.html(
            markup.wrapped(
                markup.empty("No acts match." if any(chosen.values()) else "No acts yet. Quiet is good."), dimmed=dimmed
            )
        )
        return
    st.html(markup.wrapped(_table(items), dimmed=dimmed))
    _below(answer, chosen, items)


def _filters() -> dict[str, str]:
    """What the address asks for, and fields that change the address."""
    with st.container(horizontal=True, key="filters"):
        for name, title in zip(FILTERS, ("Who", "Act", "Target"), strict=True):
            st.text_input(title, key=name, bind="query-params", autocomplete="off", placeholder="any")
    return {name: str(st.session_state.get(name) or "").strip() for name in FILTERS}


def _audit(session: Session, chosen: dict[str, str], cursor: str | None) -> tuple[dict[str, Any] | None, bool]:
    """A page of the audit, and whether it is one that was kept because control does not answer now."""
    key = (tuple(chosen.values()), cursor)
    last = st.session_state.get(_KEPT)
    if last and last[0] == key and time.monotonic() - last[2] < _FRESH_SECONDS:
        return last[1], False
    try:
        answer = world().gateway.audit(session, limit=_PAGE, cursor=cursor, **{k: v or None for k, v in chosen.items()})
    except (Trouble, Withdrawn) as error:
        if isinstance(error, Withdrawn):
            st.html(markup.wrapped(markup.alert([f"Your access was withdrawn: {error.text}"])))
        return (last[1] if last and last[0] == key else None), True
    except Refused as refused:
        st.html(markup.wrapped(markup.alert([f"The audit was refused: {refused.text}"])))
        return {"items": [], "next": None}, False
    st.session_state[_KEPT] = (key, answer, time.monotonic())
    return answer, False


def _table(items: list[dict[str, Any]]) -> str:
    rows = [
        [
            f'<span class="at-nowrap">{wording.moment(item["at"], zone())}</span>',
            markup.text(item["who"]),
            markup.text(item["act"]),
            markup.text(item["target"]),
            markup.text(item["reason"]),
            markup.text(item["result"] or "goes on"),
            markup.trace(item.get("trace_id")),
        ]
        for item in items
    ]
    return markup.table("Audit log", ["When", "Who", "Act", "Target", "Reason", "Result", "Trace"], rows)


def _below(answer: dict[str, Any], chosen: dict[str, str], items: list[dict[str, Any]]) -> None:
    with st.container(horizontal=True, key="below", vertical_alignment="center"):
        if answer.get("next"):
            older = markup.address("operations", **chosen, before=answer["next"])
            st.html(markup.wrapped(markup.link(older, "Older")), width="content")
        st.download_button(
            "Download CSV", _csv(items), file_name="audit.csv", mime="text/csv", key="csv", type="tertiary"
        )


def _csv(items: list[dict[str, Any]]) -> str:
    """This page of the audit. A cell that a spreadsheet would take for a formula is told that it is text."""
    out = io.StringIO()
    names = ["at", "who", "act", "target", "reason", "result", "operation_id", "trace_id"]
    writer = csv.writer(out)
    writer.writerow(names)
    for item in items:
        cells = [str(item.get(name) if item.get(name) is not None else "") for name in names]
        writer.writerow([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells])
    return out.getvalue()
