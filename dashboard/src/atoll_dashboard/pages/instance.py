"""An instance's configuration and its last log lines, on the Service page: read with the viewer's own token.

Both come from the agent by way of control. When they do not come, what was known stays, dimmed, and the reason is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import streamlit as st

from atoll_dashboard import markup, wording
from atoll_dashboard.fleetview import View
from atoll_dashboard.gateway import Refused, Trouble, Withdrawn
from atoll_dashboard.instances import Configuration, Line, Log
from atoll_dashboard.sessions import Session
from atoll_dashboard.shell import zone
from atoll_dashboard.snapshot import Part
from atoll_dashboard.world import world

LINES_SHOWN = 50
_FRESH_SECONDS = {"log": 2.0, "configuration": 15.0}  # the second changes with a new agent alone
_KEPT = "instance-kept"
#: Sign and tone of what wants a look; other levels are words among words.
_LOOKS = {"warning": ("△", "degraded"), "error": ("✕", "down"), "critical": ("✕", "down")}

Answer = Any  # a Log or a Configuration


class Told(NamedTuple):
    """What is known, and why it is not newer, or why there is none."""

    answer: Answer | None
    why: str = ""
    tone: str = "degraded"


def body(session: Session, view: View, part: Part) -> None:
    """Both, the configuration first: it keeps its height, so nothing that can be pressed moves with the log."""
    title = "" if part.alone and part.instance == 1 else f" of {part.slot}"
    with st.expander(f"Configuration{title}"):
        _section("configuration", view, part, lambda: world().gateway.configuration(session, part.name, part.instance))
    st.html(markup.wrapped(markup.heading(2, f"Log{title}")))
    _section("log", view, part, lambda: world().gateway.log(session, part.name, part.instance, LINES_SHOWN))


def _section(what: str, view: View, part: Part, ask: Callable[[], Answer]) -> None:
    draw = st.html
    if (what, part.slot) not in _all_kept():  # the first look: something stands there meanwhile
        draw = st.empty().html
        draw(markup.wrapped(markup.skeleton()))
    told = _told(what, part, ask, held=view.held)
    shown = "" if told.answer is None else _PIECES[what](told.answer)
    draw(_why(what, told) + markup.wrapped(shown, dimmed=view.parts_stale or bool(told.why)))


def _told(what: str, part: Part, ask: Callable[[], Answer], *, held: bool) -> Told:
    """The answer, asked for anew where the last one is old; or the last one, and what is wrong."""
    last, at = _all_kept().get((what, part.slot), (None, 0.0))
    if last is not None and (held or time.monotonic() - at < _FRESH_SECONDS[what]):
        return Told(last)
    try:
        told = Told(ask())
        at = time.monotonic()
    except Trouble as trouble:
        told = Told(last, f"{trouble.part} {wording.state(trouble.waits)}: {what} unknown. {_plain(trouble)}.")
    except Withdrawn as withdrawn:
        told = Told(last, f"Your access was withdrawn: {withdrawn.text}", "down")
    except Refused as refused:
        told = Told(None, refused.text, "unknown")
    _keep(what, part, told.answer, at)
    return told


def _keep(what: str, part: Part, answer: Answer | None, at: float) -> None:
    """What this tab last knew, of the part on its page alone; None says that it was asked for."""
    of_this = {key: one for key, one in _all_kept().items() if key[1].split("/")[0] == part.name}
    st.session_state[_KEPT] = of_this | {(what, part.slot): (answer, at)}


def _all_kept() -> dict[tuple[str, str], tuple[Answer | None, float]]:
    """By what and slot: the answer, and when it came."""
    found: dict[tuple[str, str], tuple[Answer | None, float]] = st.session_state.get(_KEPT, {})
    return found


def _plain(trouble: Trouble) -> str:
    """Why, as a sentence of its own."""
    text = wording.reason(trouble.part, trouble.text)
    return f"{text[:1].upper()}{text[1:]}"


def _why(what: str, told: Told) -> str:
    if not told.why:
        return ""
    kept = f" This is the {what} as last known." if told.answer is not None else ""
    return markup.wrapped(markup.note(markup.text(told.why + kept), told.tone))


# ---- pieces ------------------------------------------------------------------------------------------------------


def _settings(configuration: Configuration) -> str:
    if not configuration.settings:
        return markup.empty("It is told nothing.")
    rows = [
        [f"<code>{markup.text(one.name)}</code>", f"{_value(one.value)}{_masked(masked=one.masked)}"]
        for one in configuration.settings
    ]
    return markup.table("Settings", ["Variable", "Value"], rows)


def _value(value: str) -> str:
    return markup.text(value) if value else '<span class="at-muted">empty</span>'


def _masked(*, masked: bool) -> str:
    return ' <small class="at-muted">masked</small>' if masked else ""


def _log(log: Log) -> str:
    if not log.lines:
        return markup.empty("It has said nothing yet.")
    rows = [
        [
            f'<span class="at-nowrap">{wording.clock(line.at, zone()) if line.at is not None else ""}</span>',
            _level(line.level),
            _said(line),
            markup.trace(line.trace_id) if line.trace_id else "",
        ]
        for line in log.lines[-LINES_SHOWN:]
    ]
    caption = f"Log, the last {wording.plural(len(rows), 'line')}"
    return f'<div class="at-log">{markup.table(caption, ["When", "Level", "Said", "Trace"], rows)}</div>'


def _level(level: str | None) -> str:
    if not level:
        return ""
    if level not in _LOOKS:
        return markup.text(level)
    sign, tone = _LOOKS[level]
    return f'<span class="at-badge at-{tone}"><span aria-hidden="true">{sign}</span> {markup.text(level)}</span>'


def _said(line: Line) -> str:
    event = f"<b>{markup.text(line.event)}</b> " if line.event else ""
    return f'<span class="at-said">{event}{markup.text(line.text)}</span>'


_PIECES: dict[str, Callable[[Answer], str]] = {"configuration": _settings, "log": _log}
