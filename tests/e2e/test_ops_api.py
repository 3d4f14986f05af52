"""The operators' API over a real fleet: what it shows, who may act, that it is written down, and what ends a token.

One system for all tests here; each leaves it whole. What goes through the gateway carries an operator's own token.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import measured
from fleet import REPOSITORY, Answer, Fleet, http
from polling import poll_until
from topology import GROUPS, TOPICS

PASSWORD = "correct horse battery staple"
REVOKED_SECONDS = 1.0
SNAPSHOT_MS = 20
OBSERVED = ("broker", "auth", "gateway", "control", "orders", "inventory", "payments", "sales")


def accounts(shop: Fleet, *words: str, password: str | None = None) -> None:
    """`python -m atoll_auth users …` on the host, as an admin has it."""
    python = REPOSITORY / ".atoll" / "env" / "auth" / "bin" / "python"
    done = subprocess.run(
        [str(python), "-P", "-m", "atoll_auth", "users", *words], text=True, input=password and password + "\n",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=60,
        env=os.environ | {"ATOLL_DATA": str(shop.state / "data" / "auth-1")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def log_in(shop: Fleet, name: str, password: str) -> str:
    """An access token of a person."""
    answer = http("POST", f"{shop.gateway}/auth/login", body={"username": name, "password": password})
    assert answer.status == 200, answer.raw
    return str(answer.body["access_token"])


@contextmanager
def person(shop: Fleet, name: str, role: str) -> Iterator[str]:
    """Somebody with a role, for a while; the token."""
    accounts(shop, "add", name, "--role", role, password=PASSWORD)
    try:
        yield log_in(shop, name, PASSWORD)
    finally:
        left = accounts_left(shop)
        if name in left:
            accounts(shop, "remove", name)


def accounts_left(shop: Fleet) -> set[str]:
    """The names of all accounts."""
    with shop.database("auth") as database:
        return {row["name"] for row in database.execute("SELECT name FROM accounts")}


@pytest.fixture(scope="module")
def admin(shop: Fleet) -> str:
    """The generated operator's token."""
    known = shop.credentials
    return log_in(shop, known["username"], known["password"])


def snapshot(shop: Fleet, token: str) -> dict[str, Any]:
    answer = shop.call("GET", "/ops/snapshot", token=token)
    assert answer.status == 200, answer.raw
    return dict(answer.body)


def part(shop: Fleet, token: str, name: str) -> dict[str, Any]:
    return next(one for one in snapshot(shop, token)["parts"] if one["name"] == name)


def act(shop: Fleet, token: str, path: str, **body: Any) -> Answer:
    return shop.call("POST", f"/ops/instances/{path}", {"reason": "drill"} | body, token=token)


def ended(shop: Fleet, token: str, started: Answer) -> dict[str, Any]:
    """An operation, once it is done."""
    assert started.status == 202, started.raw
    answer = poll_until(
        "the operation to end",
        lambda: shop.call("GET", started.headers["location"], token=token),
        lambda answer: answer.status == 200 and answer.body["done"],
        seconds=90,
    )
    return dict(answer.body)


# ---- seeing ----------------------------------------------------------------------------------------------------------


def test_the_snapshot_tells_versions_rates_lag_and_topics_of_a_fleet_at_work(shop: Fleet, admin: str) -> None:
    # A rate needs a sample from before: what a part's first one holds already is never seen to grow.
    poll_until(
        "two samples of every part",
        lambda: snapshot(shop, admin),
        lambda seen: all(one["rates"] for one in seen["parts"] if one["name"] in OBSERVED),
        seconds=30,
        every=0.25,
    )
    for number in range(12):
        shop.place(f"S{number}")

    def at_work(seen: dict[str, Any]) -> bool:
        rates = {one["name"]: one["rates"] for one in seen["parts"]}
        busy = seen["bus"]["available"] and all(rates[name] for name in OBSERVED) and rates["orders"]["events_in"] > 0
        return bool(busy and seen["figures"]["events_per_second"])

    seen = poll_until("rates above nought", lambda: snapshot(shop, admin), at_work, seconds=15, every=0.25)
    parts = {one["name"]: one for one in seen["parts"]}
    for name in OBSERVED:
        assert re.match(r"\d+\.\d+", parts[name]["version"] or ""), f"{name} has no version"
        assert parts[name]["rates"] is not None, f"{name} is not observed"
        assert parts[name]["alone"] is True
    assert parts["orders"]["rates"]["p95_ms"] > 0
    assert parts["gateway"]["rates"]["requests"] > 0
    assert seen["figures"]["dead_letters"] == 0
    assert seen["figures"]["worst_lag"]["group"] in GROUPS
    for name, wanted in GROUPS.items():
        assert set(parts[name]["topics"]["consumes"]) == wanted
        assert parts[name]["lag"] is not None
    for topic, owner in TOPICS.items():
        assert topic in parts[owner]["topics"]["publishes"]
    assert seen["bus"]["topics"]["orders.order.placed.v1"]["rate"] >= 0


def test_twenty_who_look_at_once_are_answered_in_milliseconds_while_a_part_stands_still(
    shop: Fleet, admin: str
) -> None:
    operation = ended(shop, admin, act(shop, admin, "sales/1/pause", seconds=30))
    assert operation["steps"][-1]["state"] == "paused"
    try:
        (fault,) = snapshot(shop, admin)["faults"]
        assert (fault["kind"], fault["target"], fault["reason"]) == ("pause", "sales/1", "drill")
        assert fault["by"] == shop.credentials["username"]
        assert 0 < fault["until"] - time.time() <= 30

        def look(_: int) -> float:
            began = time.perf_counter()
            snapshot(shop, admin)
            return (time.perf_counter() - began) * 1000

        with ThreadPoolExecutor(20) as viewers:
            times = sorted(viewers.map(look, range(200)))
        median, worst = times[len(times) // 2], times[-1]
        measured.say(f"snapshot, 20 at once: median {median:.0f} ms, worst {worst:.0f} ms")
        alone = sorted(look(0) for _ in range(50))[25]
        measured.say(f"snapshot through the gateway: median {alone:.1f} ms (promised {SNAPSHOT_MS})")
        assert alone < 3 * SNAPSHOT_MS
    finally:
        ended(shop, admin, act(shop, admin, "sales/1/resume"))
    assert snapshot(shop, admin)["faults"] == []


def test_with_the_broker_down_control_answers_and_knows_the_topics_after_its_own_restart_too(
    shop: Fleet, admin: str
) -> None:
    known = part(shop, admin, "payments")["topics"]
    assert known["publishes"]
    ended(shop, admin, act(shop, admin, "broker/1/stop"))
    try:
        shop.atoll("kill", "control", seconds=60)
        seen = poll_until(
            "control to be back without a bus",
            lambda: local_snapshot(shop),
            lambda seen: seen is not None and not seen["bus"]["available"],
            seconds=20,
        )
        assert seen is not None
        payments = next(one for one in seen["parts"] if one["name"] == "payments")
        assert payments["topics"] == known
        assert payments["lag"] is None
        assert next(one for one in seen["parts"] if one["name"] == "broker")["state"] == "stopped"
    finally:
        shop.atoll("start", "broker", seconds=90)
    poll_until(
        "the bus to be seen", lambda: local_snapshot(shop), lambda seen: seen and seen["bus"]["available"], seconds=20
    )
    poll_until(  # without auth's beats for 15 s the gateway lets no operator in
        "the gateway to have heard auth",
        lambda: shop.call("GET", "/ops/snapshot", token=admin).status,
        lambda status: status == 200,
        seconds=20,
    )


def local_snapshot(shop: Fleet) -> dict[str, Any] | None:
    """What `./atoll status --json` has from control; None while control does not answer."""
    seen = json.loads(shop.atoll("status", "--json").output)
    return seen if "figures" in seen else None


# ---- doing -----------------------------------------------------------------------------------------------------------


def test_every_act_tells_its_steps_with_their_times(shop: Fleet, admin: str) -> None:
    expected = {
        "kill": ["requested", "stopped", "started"],
        "pause": ["requested", "paused"],
        "resume": ["requested", "resumed"],
        "restart": ["requested", "stopping", "stopped", "started"],
        "stop": ["requested", "stopping", "stopped"],
        "start": ["requested", "started"],
    }
    for what, states in expected.items():
        operation = ended(shop, admin, act(shop, admin, f"payments/1/{what}"))
        assert [step["state"] for step in operation["steps"]] == states
        assert operation["ok"], operation
        times = [step["at"] for step in operation["steps"]]
        assert times == sorted(times)
        if what == "kill":
            assert operation["steps"][1]["text"] == "killed"
            measured.say(f"payments killed and back in {times[-1] - times[0]:.1f} s")
        shown = (shop.credentials["username"], what, "drill")
        poll_until(f"{shown} as the last act", lambda: _last_act(shop, admin), shown.__eq__, seconds=5)


def _last_act(shop: Fleet, token: str) -> tuple[str, str, str]:
    seen = part(shop, token, "payments")["last_act"]
    return seen["who"], seen["act"], seen["reason"]


def test_while_an_act_goes_on_it_can_be_watched_and_a_second_is_a_conflict(shop: Fleet, admin: str) -> None:
    first = act(shop, admin, "inventory/1/restart")
    assert first.status == 202
    going_on = shop.call("GET", first.headers["location"], token=admin)
    assert going_on.status == 200
    assert not going_on.body["done"]
    second = act(shop, admin, "inventory/1/kill")
    assert (second.status, second.code) == (409, "busy"), second.raw
    assert shop.credentials["username"] in second.body["detail"]
    assert ended(shop, admin, first)["ok"]
    assert ended(shop, admin, act(shop, admin, "inventory/1/kill"))["ok"]


# ---- who may ---------------------------------------------------------------------------------------------------------


def test_a_viewer_is_refused_and_his_attempt_is_in_the_audit_with_its_trace(shop: Fleet, admin: str) -> None:
    pid = shop.pid("payments")
    with person(shop, "vera", "viewer") as token:
        assert shop.call("GET", "/ops/snapshot", token=token).status == 200
        refused = act(shop, token, "payments/1/kill")
        assert (refused.status, refused.code) == (403, "insufficient_scope")
    (record,) = shop.call("GET", "/ops/audit?who=vera", token=admin).body["items"]
    assert (record["act"], record["target"], record["reason"], record["result"]) == (
        "kill", "payments/1", "drill", "denied",
    )  # fmt: skip
    assert re.fullmatch("[0-9a-f]{32}", record["trace_id"])
    assert shop.pid("payments") == pid
    said = shop.atoll("audit", "--who", "vera", "--act", "kill").output
    assert "denied" in said
    assert "payments/1" in said
    assert f"trace {record['trace_id']}" in said
    assert json.loads(shop.atoll("audit", "--who", "vera", "--json").output) == [record]


def test_the_command_line_shows_how_a_part_is_set_and_no_secret(shop: Fleet, admin: str) -> None:
    told = shop.call("GET", "/ops/instances/control/1/configuration", token=admin).body["settings"]
    assert json.loads(shop.atoll("config", "control", "--json").output) == told
    lines = shop.atoll("config", "control/1").output.splitlines()
    assert lines == [f"{one['name']}={one['value']}" for one in told]
    assert any(one["name"] == "ATOLL_BUS" for one in told)
    nobody = shop.atoll("config", "nobody/1", check=False)
    assert (nobody.code, "nobody/1" in nobody.output) == (1, True)


def test_a_client_without_ops_scopes_gets_no_further_than_the_gateway(shop: Fleet) -> None:
    assert act(shop, shop.token(), "payments/1/kill").status == 403
    assert shop.call("GET", "/ops/snapshot", token=shop.token()).status == 403


@pytest.mark.parametrize("how", ["remove", "set-role"])
def test_an_operator_who_was_removed_or_lowered_acts_no_more_within_a_second(shop: Fleet, admin: str, how: str) -> None:
    name = f"amy-{how}"
    with person(shop, name, "operator") as token:
        assert ended(shop, token, act(shop, token, "sales/1/resume"))["ok"]
        accounts(shop, how, name, *(["viewer"] if how == "set-role" else []))
        began = time.monotonic()
        refused = poll_until(
            "the token to be refused",
            lambda: act(shop, token, "sales/1/resume"),
            lambda answer: answer.status != 202,
            seconds=3 * REVOKED_SECONDS,
            every=0.02,
        )
        seconds = time.monotonic() - began
        measured.say(f"{how}: the token was refused {seconds:.2f} s later (promised {REVOKED_SECONDS:.0f})")
        assert refused.status == 401, refused.raw
        assert shop.call("GET", "/ops/snapshot", token=token).status == 401
        until = shop.call("GET", f"/ops/audit?who={name}", token=admin).body["items"][0]["at"]
        for _ in range(5):
            assert act(shop, token, "sales/1/kill").status == 401
        assert shop.call("GET", f"/ops/audit?who={name}", token=admin).body["items"][0]["at"] == until


# ---- alarms ----------------------------------------------------------------------------------------------------------


def test_a_group_that_stands_still_raises_an_alarm_that_goes_when_it_has_caught_up(shop: Fleet, admin: str) -> None:
    ended(shop, admin, act(shop, admin, "sales/1/stop"))
    try:
        shop.wait_order(shop.place("A1"), "confirmed")

        def slow() -> list[dict[str, Any]]:
            return [one for one in snapshot(shop, admin)["alarms"] if one["kind"] == "slow_group"]

        (alarm,) = poll_until("the alarm", slow, seconds=30, every=0.25)
        assert alarm["target"] == "sales"
        assert "slow_group" in shop.atoll("alarms").output
    finally:
        ended(shop, admin, act(shop, admin, "sales/1/start"))
    poll_until("the alarm to go", slow, lambda found: not found, seconds=20, every=0.25)
    assert shop.metrics("control")['atoll_ops_alarms{kind="slow_group"}'] == 0
