"""What silence and refusals of the gateway mean: who is gone, who said no, whose access was withdrawn."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import standin
from serving import until
from standin import AWAY, CLIENT, State

from atoll_dashboard.gateway import Gateway, Refused, Trouble, Withdrawn
from atoll_dashboard.instances import Setting
from atoll_dashboard.poller import Poller
from atoll_dashboard.sessions import Session, Sessions


@pytest.fixture
def behind() -> Iterator[standin.Gateway]:
    server = standin.Gateway()
    yield server
    server.close()


@pytest.fixture
def state(behind: standin.Gateway) -> State:
    return behind.state


@pytest.fixture
def client(tmp_path: Path) -> Path:
    path = tmp_path / "client.json"
    path.write_text(json.dumps(CLIENT))
    return path


@pytest.fixture
def gateway(behind: standin.Gateway, client: Path) -> Gateway:
    return Gateway(behind.url, client)


def signed_in(gateway: Gateway, name: str = "operator") -> Session:
    return Sessions(bytes(32), 60.0, 60.0).create(gateway.login(name, f"pw-{name}"), name)


def kill(gateway: Gateway, session: Session) -> dict[str, object]:
    return gateway.act(session, "kill", "payments", 1, "drill", key="k1")


def test_an_act_is_the_operators_with_his_reason_and_key(state: State, gateway: Gateway) -> None:
    assert kill(gateway, signed_in(gateway))["id"] == "o1"
    assert state.acts == [{"who": "operator", "path": "/ops/instances/payments/1/kill", "key": "k1", "reason": "drill"}]


def test_a_part_behind_the_gateway_is_named(state: State, gateway: Gateway) -> None:
    session = signed_in(gateway)
    calls: list[tuple[str, Callable[[], object]]] = [
        ("control", gateway.snapshot),
        ("control", lambda: gateway.audit(session)),
        ("auth", lambda: gateway.login("operator", "x")),
    ]
    gateway.snapshot()
    for part, call in calls:
        state.auth, state.ops = ("well", AWAY) if part == "control" else (AWAY, "well")
        with pytest.raises(Trouble) as trouble:
            call()
        assert trouble.value.part == part
    state.auth = state.ops = "well"
    assert gateway.snapshot()["system"] == "atoll"


def test_a_gateway_that_is_not_there_is_named_soon(client: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(Trouble) as trouble:
        Gateway(url, client).snapshot()
    assert trouble.value.part == "gateway"
    assert time.monotonic() - began < 2


def test_a_gateway_that_hangs_is_named_in_bounded_time(state: State, gateway: Gateway) -> None:
    state.auth = state.ops = "hang"
    began = time.monotonic()
    with pytest.raises(Trouble) as trouble:
        gateway.snapshot()
    assert trouble.value.part == "gateway"
    assert time.monotonic() - began < 15


def test_a_token_that_was_revoked_is_renewed_once(state: State, gateway: Gateway) -> None:
    session = signed_in(gateway)
    state.tokens.clear()
    kill(gateway, session)
    assert state.count("POST", "/auth/token") == 1
    assert len(state.acts) == 1


def test_many_who_need_a_new_token_use_the_refresh_token_once(state: State, gateway: Gateway) -> None:
    """Auth ends a login whose refresh token is shown twice."""
    session = signed_in(gateway)
    state.tokens.clear()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(gateway.audit, session) for _ in range(8)]
    assert all(one.result() == {"items": [], "next": None} for one in answers)
    assert state.count("POST", "/auth/token") == 1


def test_who_was_removed_is_told_that_his_access_is_withdrawn(state: State, gateway: Gateway) -> None:
    session = signed_in(gateway)
    state.remove("operator")
    with pytest.raises(Withdrawn):
        kill(gateway, session)
    assert state.acts == []


def test_being_throttled_is_no_withdrawal(state: State, gateway: Gateway) -> None:
    """Auth answers a renewal 429 while somebody guesses; the refresh token is as good as before."""
    session = signed_in(gateway)
    state.tokens.clear()
    state.auth = (429, {"error": "temporarily_unavailable", "error_description": "too many wrong attempts"})
    with pytest.raises((Trouble, Refused)):
        kill(gateway, session)
    state.auth = "well"
    kill(gateway, session)


def test_the_snapshot_is_seen_while_auth_is_away_and_the_token_lasts(state: State, gateway: Gateway) -> None:
    state.access_seconds = 20.0  # less than the reserve before which it is renewed
    gateway.snapshot()
    state.auth = AWAY
    assert gateway.snapshot()["system"] == "atoll"


def test_the_dashboards_own_token_is_renewed_at_once_when_it_is_revoked(state: State, gateway: Gateway) -> None:
    gateway.snapshot()
    state.tokens.clear()
    assert gateway.snapshot()["system"] == "atoll", "one look was lost, and all viewers were told that control is gone"


def test_an_answer_that_is_no_token_response_is_auths_trouble(state: State, gateway: Gateway) -> None:
    state.auth = {"welcome": "to the hotel's network"}
    with pytest.raises(Trouble):
        gateway.login("operator", "pw-operator")


# ---- the poller --------------------------------------------------------------------------------------------------


def test_the_poller_keeps_what_it_knew_names_who_is_gone_and_wakes(state: State, gateway: Gateway) -> None:
    poller = Poller(gateway, every_seconds=0.05)
    poller.start()
    try:
        until("a snapshot", lambda: poller.seen().snapshot, 5)
        state.ops = AWAY
        until("control to be named", lambda: [one.part for one in poller.seen().gone] == ["control"], 5)
        first = poller.seen()
        assert first.snapshot is not None
        before = state.count("GET", "/ops/snapshot")
        until("further looks", lambda: state.count("GET", "/ops/snapshot") > before + 2, 5)
        later = poller.seen()
        assert (later.at, later.gone[0].since) == (first.at, first.gone[0].since)
        state.ops = "well"
        until("it to be forgotten", lambda: not poller.seen().gone, 3)
    finally:
        poller.stop()


def test_the_poller_outlives_nonsense(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    poller = Poller(gateway, every_seconds=0.05)
    poller.look()
    for nonsense in ({"bus": 7}, {"parts": None}, {}, {"bus": {"available": False, "why": 3}}):
        monkeypatch.setattr(gateway, "snapshot", lambda found=nonsense: found)
        poller.look()

    def broken() -> None:
        raise KeyError("x")

    monkeypatch.setattr(gateway, "snapshot", broken)
    poller.look()
    assert poller.seen().gone[0].part == "control"
    assert threading.active_count() < 50


# ---- log and configuration of an instance ------------------------------------------------------------------------


def test_log_and_configuration_are_asked_for_by_the_viewers_own_token(state: State, gateway: Gateway) -> None:
    session = signed_in(gateway, "viewer")
    state.lines, state.settings = [{"text": "a"}], [{"name": "A", "value": "b", "masked": False}]
    assert gateway.log(session, "pay/ments", 1, 50).lines[0].text == "a"
    assert gateway.configuration(session, "payments", 1).settings[0] == Setting("A", "b")
    asked = [(one.who, one.path) for one in state.asked if one.path.startswith("/ops/instances")]
    assert asked == [
        ("viewer", "/ops/instances/pay%2Fments/1/log?lines=50"),
        ("viewer", "/ops/instances/payments/1/configuration"),
    ]


@pytest.mark.parametrize("answer", [{"lines": 7}, {}, {"lines": [{"text": None}]}, {"lines": [[]]}])
def test_an_answer_of_another_shape_is_a_control_that_is_not_understood(
    state: State, gateway: Gateway, answer: Any
) -> None:
    session = signed_in(gateway, "viewer")
    state.ops = answer
    with pytest.raises(Trouble) as trouble:
        gateway.log(session, "payments", 1, 50)
    assert trouble.value.part == "control"


def test_one_agent_that_is_gone_holds_up_nothing_else(state: State, gateway: Gateway) -> None:
    """Where each part has its own agent, its silence must not stop everybody's other looks for seconds."""
    session = signed_in(gateway, "viewer")
    state.ops = (503, "agent_gone")
    with pytest.raises(Trouble) as trouble:
        gateway.log(session, "payments", 1, 50)
    assert trouble.value.part == "agent"
    state.ops = "well"
    assert gateway.audit(session) == {"items": [], "next": None}
    state.ops = AWAY  # the control: control itself is not asked again so soon
    with pytest.raises(Trouble):
        gateway.log(session, "payments", 1, 50)
    state.ops = "well"
    with pytest.raises(Trouble):
        gateway.audit(session)


def test_a_log_that_is_elsewhere_is_a_refusal_with_its_reason(state: State, gateway: Gateway) -> None:
    state.ops = (404, {"code": "not_here", "detail": "docker compose logs payments"})
    with pytest.raises(Refused, match="docker compose logs payments"):
        gateway.log(signed_in(gateway, "viewer"), "payments", 1, 50)
