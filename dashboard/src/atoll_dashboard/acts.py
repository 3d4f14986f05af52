"""Acting on a part: the menu, the dialog before damage, and the operations that this tab began.

No authority lives here: what is asked goes to the ops API with the operator's own token, and is refused there or not.
A Streamlit callback runs before the page does, so a choice only notes what is wanted; the page then opens the dialog.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

import streamlit as st

from atoll_dashboard import fleetview, markup, progress, wording
from atoll_dashboard.gateway import AGENT, Refused, Trouble, Withdrawn
from atoll_dashboard.sessions import Session, current
from atoll_dashboard.snapshot import Part, Snapshot
from atoll_dashboard.world import world

_ASK, _OPERATIONS, _MESSAGE = "asked", "operations", "message"
#: Operations that ended stay on the page for a while.
_KEPT_SECONDS = 20.0
_KEPT_MAX = 8
#: Streamlit puts the focus on the dialog itself; who presses Enter by habit shall cancel, not kill.
_STOPPING_FAULTS = "stop all faults"
_FOCUS_CANCEL = '<script src="/atoll/focus-cancel.js"></script>'


@dataclass(frozen=True)
class Asked:
    """An act that waits for its dialog. One idempotency key a dialog: a double click is one act."""

    act: str
    part: Part
    snapshot: Snapshot
    key: str


# ---- the menu ----------------------------------------------------------------------------------------------------


def menu(session: Session, part: Part, snapshot: Snapshot) -> None:
    """The button with what this operator may do to a part; nothing at all for those who may do nothing."""
    options = fleetview.acts_for(part, session.scopes)
    if not options:
        st.html('<div class="at-no-actions"></div>', width="content")  # the columns stay where they are
        return
    key = f"menu-{part.slot}"
    busy = part.operation is not None or any(one["name"] == part.name and not one["done"] for one in operations())
    with st.container(key=f"actions-{part.name}-{part.instance}", width="content"):
        st.menu_button(
            f"Actions for {part.name}", options, key=key, disabled=busy, type="tertiary",
            on_click=_chosen, args=(key, part, snapshot),
        )  # fmt: skip


def buttons(session: Session, part: Part, snapshot: Snapshot) -> None:
    """What needs no dialog, as a button of its own: Start where it is stopped."""
    if part.wanted == "stopped" and "Start" in fleetview.acts_for(part, session.scopes):
        st.button(
            "Start", key=f"start-{part.slot}", type="primary", on_click=_choose, args=("Start", part, snapshot),
            disabled=part.operation is not None,
        )  # fmt: skip


def stop_all_faults(session: Session, snapshot: Snapshot) -> None:
    """The button in the strip of every page, while there is a fault that this operator may end. It harms nobody."""
    parts = fleetview.held(snapshot, session.scopes)
    on_deliveries = fleetview.faults_on_deliveries(snapshot, session.scopes) > 0
    if parts or on_deliveries:
        st.button(
            "Stop all faults", key="stop-all-faults", on_click=_let_go, args=(parts, snapshot, on_deliveries),
            width="content",
        )  # fmt: skip


def _let_go(parts: list[Part], snapshot: Snapshot, on_deliveries: bool) -> None:
    for part in parts:
        _carry_out(Asked("Resume", part, snapshot, uuid.uuid4().hex), _STOPPING_FAULTS)
    if on_deliveries:
        _stop_faults_on_deliveries()
    st.rerun()


def _stop_faults_on_deliveries() -> None:
    session = current()
    try:
        if session is None:
            raise Withdrawn("You are signed out.")
        world().gateway.stop_faults(session, _STOPPING_FAULTS, key=uuid.uuid4().hex)
    except Refused as refused:
        _say(f"Stop all faults was refused: {refused.text}")
    except Withdrawn as withdrawn:
        _say(f"No fault was stopped. Your access was withdrawn: {withdrawn.text}", signed_out=True)
    except Trouble as trouble:
        _say(f"Nobody knows whether the faults were stopped: {_gone(trouble)}.")


def _chosen(key: str, part: Part, snapshot: Snapshot) -> None:
    act = st.session_state.get(key)
    if act:
        _choose(str(act), part, snapshot)


def _choose(act: str, part: Part, snapshot: Snapshot) -> None:
    asked = Asked(act, part, snapshot, uuid.uuid4().hex)
    if fleetview.needs_dialog(act, part):
        st.session_state[_ASK] = asked
        st.rerun()  # a dialog belongs to the page, not to the part of it that renews itself
    else:
        _carry_out(asked, f"{act.lower()} from the dashboard")
        st.rerun()


# ---- the dialog --------------------------------------------------------------------------------------------------


def open_dialog() -> None:
    """Open what was asked for, once: who closes it with Esc has not asked any more."""
    asked = st.session_state.pop(_ASK, None)
    if asked is not None:
        st.dialog(f"{asked.act} {asked.part.name}", width="medium")(_dialog)(asked)


def _dialog(asked: Asked) -> None:
    name = asked.part.name
    st.html(
        markup.wrapped(
            f"<p>{markup.text(fleetview.consequence(asked.act, name))}</p>"
            f"<p><strong>{markup.text(fleetview.blast_radius(asked.snapshot, asked.part))}</strong></p>"
        )
    )
    typed = fleetview.needs_name(asked.act, asked.part)
    reason = st.text_input(
        "Reason, kept in the audit log", max_chars=500, key=f"reason-{asked.key}", live=True, autocomplete="off"
    )
    entered = (
        st.text_input(f"Type {name} to confirm", key=f"typed-{asked.key}", live=True, autocomplete="off")
        if typed
        else name
    )
    ready = bool((reason or "").strip()) and (entered or "") == name
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Cancel", key=f"cancel-{asked.key}"):
            st.rerun()
        if st.button(f"{asked.act} {name}", key=f"confirm-{asked.key}", type="primary", disabled=not ready):
            _carry_out(asked, (reason or "").strip())
            st.rerun()
    st.html(_FOCUS_CANCEL, unsafe_allow_javascript=True)


def _carry_out(asked: Asked, reason: str) -> None:
    """Ask the API; what it answers is what the page says."""
    session = current()  # the cookie is looked at again at each act
    part = asked.part
    try:
        if session is None:
            raise Withdrawn("You are signed out.")
        begun = world().gateway.act(session, asked.act.lower(), part.name, part.instance, reason, key=asked.key)
    except Refused as refused:
        _say(f"{asked.act} {part.name} was refused: {refused.text}")
    except Withdrawn as withdrawn:
        _say(f"Nothing was done to {part.name}. Your access was withdrawn: {withdrawn.text}", signed_out=True)
    except Trouble as trouble:
        _say(_unanswered(asked.act, part.name, trouble))
    else:
        kept = [one for one in operations() if one["id"] != begun["id"]]
        st.session_state[_OPERATIONS] = [*kept, begun][-_KEPT_MAX:]


def _unanswered(act: str, name: str, trouble: Trouble) -> str:
    """What is known of an act that got no answer. Control looks for the agent first: with it gone, nothing was done.
    Nor where the gateway passed nothing on.
    """
    if trouble.part == AGENT or trouble.waits:
        return f"Nothing was done to {name}: {_gone(trouble)}."
    what = f"{act.lower()} {name}"
    return f"Nobody knows what became of {what}: {_gone(trouble)}. Look at Operations before you ask again."


def _gone(trouble: Trouble) -> str:
    return wording.absence(trouble.part, trouble.text, waits=trouble.waits)


def _say(words: str, *, signed_out: bool = False) -> None:
    st.session_state[_MESSAGE] = (words, signed_out)


# ---- what became of it -------------------------------------------------------------------------------------------


def operations() -> list[dict[str, Any]]:
    """The operations that this tab began and still shows, oldest first."""
    found: list[dict[str, Any]] = st.session_state.get(_OPERATIONS, [])
    return found


def underway() -> bool:
    """Whether one goes on: then the page looks more often."""
    return any(not one["done"] for one in operations())


def follow(session: Session) -> None:
    """Look how those that go on are; forget those that ended a while ago."""
    followed = []
    for one in operations():
        if one["done"]:
            if time.time() - float(one["steps"][-1]["at"]) < _KEPT_SECONDS or progress.ended_badly(one):
                followed.append(one)
            continue
        try:
            followed.append(world().gateway.operation(session, one["id"]))
        except Refused as refused:
            _say(f"{one['act']} {one['name']}: {refused.text}")
        except Withdrawn as withdrawn:
            _say(f"Your access was withdrawn: {withdrawn.text}", signed_out=True)
        except Trouble:
            followed.append(one)  # what is gone is said elsewhere; the next look asks again
    st.session_state[_OPERATIONS] = followed


def ahead(snapshot_as_of: float) -> dict[str, str]:
    """Slot -> state, where this tab's operations know more than the snapshot."""
    known = {f"{one['name']}/{one['instance']}": progress.ahead(one, snapshot_as_of) for one in operations()}
    return {slot: state for slot, state in known.items() if state}


def show() -> None:
    """The operations and the last message, under the strip."""
    for one in operations():
        bad = " at-bad" if progress.ended_badly(one) else ""
        st.html(markup.wrapped(f'<div class="at-progress{bad}" role="status">{markup.text(progress.line(one))}</div>'))
    words, signed_out = st.session_state.get(_MESSAGE, ("", False))
    if words:
        again = f" {markup.link(markup.address('login'), 'Sign in')}" if signed_out else ""
        with st.container(horizontal=True, vertical_alignment="center", key="message"):
            st.html(
                markup.wrapped(
                    f'<div class="at-alert at-down" role="alert"><span>{markup.text(words)}{again}</span></div>'
                )
            )
            st.button("Dismiss", key="dismiss", on_click=st.session_state.pop, args=(_MESSAGE, None), type="tertiary")
