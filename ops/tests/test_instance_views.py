"""An instance's last log lines and its configuration: what is read of a log, what is masked, who answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]
from controlled import PROJECT, Control, running
from hypothesis import given
from hypothesis import strategies as some
from system import System, poll_until

from atoll_ops import container, masking
from atoll_ops.agency import Agency
from atoll_ops.agent import Agent
from atoll_ops.logtail import BYTES_MAX, LINES_MAX, TEXT_MAX, last_lines, structured
from atoll_ops.masking import MASK, masked
from atoll_ops.state import State

REPOSITORY = PROJECT.parent
TRACE = "0af7651916cd43dd8448eb211c80319c"
SECRET = "s3cr3t"


# ---- the log -----------------------------------------------------------------------------------------------------


def test_a_line_of_a_part_is_told_apart() -> None:
    entry = {"time": "2026-11-28T10:00:00.250Z", "level": "WARNING", "event": "lease lost", "service": "orders"}
    line = structured(json.dumps(entry | {"slot": "orders/1", "key": "k-1", "none": None, "trace_id": TRACE}))
    assert line == {
        "at": 1795860000.25, "level": "warning", "event": "lease lost", "text": "key=k-1", "trace_id": TRACE,
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        '  File "x.py", line 1', "17", '["event"]', '{"level": "info"}', '{"event":', "[" * 100_000, "NaN",
        "\x1b[2J<b>x</b>",
    ],
)  # fmt: skip
def test_what_is_no_json_of_ours_is_told_as_text(line: str) -> None:
    told = structured(line)
    assert told["text"].startswith(line[:TEXT_MAX])
    assert (told["at"], told["level"], told["event"], told["trace_id"]) == (None, None, None, None)


@pytest.mark.parametrize("moment", [17, "yesterday", None, "9999-99-99", [], "2026-11-28T10:00:00.25"])
def test_a_time_that_is_none_is_not_known_and_one_without_a_zone_is_utc(moment: object) -> None:
    at = structured(json.dumps({"time": moment, "event": "x"}))["at"]
    assert at == (1795860000.25 if moment == "2026-11-28T10:00:00.25" else None)


@pytest.mark.parametrize("trace", ["x", 17, TRACE.upper(), f"{TRACE}0", "javascript:alert(1)"])
def test_what_is_no_trace_id_stays_a_field_among_others(trace: object) -> None:
    line = structured(json.dumps({"event": "x", "trace_id": trace}))
    assert (line["trace_id"], line["text"]) == (None, f"trace_id={trace}")


@given(some.text(max_size=200))
def test_no_line_breaks_the_reader_and_all_it_says_can_be_sent(line: str) -> None:
    for told in (structured(line), structured(json.dumps({"time": line, "event": line, "level": line, "a": line}))):
        json.dumps(told, allow_nan=False).encode()


def test_the_last_lines_are_read_out_of_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    log = tmp_path / "orders-1.log"
    assert last_lines(log, 50) == [], "an instance that was never started has said nothing"
    log.write_bytes(b"".join(b"%06d\n" % number for number in range(100_000)))
    assert [line["text"] for line in last_lines(log, 3)] == ["099997", "099998", "099999"]
    wide = 1000
    log.write_bytes(b"".join(b"%06d%s\n" % (number, b"x" * wide) for number in range(2000)))
    found = last_lines(log, LINES_MAX)
    assert BYTES_MAX // (wide + 7) - 1 <= len(found) < LINES_MAX
    assert [line["text"][:6] for line in found] == [f"{number:06d}" for number in range(2000 - len(found), 2000)]
    log.write_bytes(b"y" * (3 * BYTES_MAX))
    (line,) = last_lines(log, 50)
    assert line["text"].startswith("y" * TEXT_MAX)
    assert len(line["text"]) < TEXT_MAX + 60


def test_a_line_that_has_not_ended_and_one_that_holds_another_are_each_one(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text('{"event": "a\u2028b"}\n\n{"event": "c\\nd"}\nhalf', encoding="utf-8")
    assert [(line["event"], line["text"]) for line in last_lines(log, 9)] == [
        ("a\u2028b", ""), ("c\nd", ""), (None, "half"),
    ]  # fmt: skip


def test_a_log_that_was_just_put_aside_is_read_on_in_the_older_one(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.with_suffix(".log.1").write_text("a\nb\nc\n")
    log.write_text("d\n")
    assert [line["text"] for line in last_lines(log, 3)] == ["b", "c", "d"]


def test_the_largest_answer_fits_into_what_an_agent_may_say(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes((b"\x00" * 500 + b"\n") * 2000)
    found = last_lines(log, LINES_MAX)
    assert len(found) == LINES_MAX
    assert len(json.dumps({"log": found})) < 4 * 1024 * 1024


# ---- what is masked ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "SHOP_SMTP_PASSWORD", "PGPASSWORD", "ACCESS_TOKEN", "CLIENT_SECRET", "API_KEY", "APIKEY", "AWS_CREDENTIALS",
        "GOPASSWD", "KEY", "OTEL_EXPORTER_OTLP_HEADERS", "SIGNING_KEYS", "SESSION_COOKIE", "DB_DSN", "private_key",
    ],
)  # fmt: skip
def test_a_name_gives_a_secret_away(name: str) -> None:
    assert masked(name, SECRET) == MASK
    assert masked(name, "12345678") == MASK, "a secret may be a number"
    assert masked(name, "") == "", "that none is set is no secret"


@pytest.mark.parametrize(
    "value",
    [
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIP\n", "Bearer abc", "host=db password=s3cr3t",
        "api-key: s3cr3t",
        "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl", "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    ],
)  # fmt: skip
def test_a_value_gives_itself_away_under_any_name(value: str) -> None:
    assert masked("SHOP_THING", value) == MASK


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("HTTPS_PROXY", f"http://amy:{SECRET}@proxy:3128", f"http://{MASK}@proxy:3128"),
        ("HTTPS_PROXY", f"http://amy:{SECRET}@p@proxy:3128", f"http://{MASK}@proxy:3128"),
        ("SHOP_DB", f"postgres://amy:{SECRET}@db/shop?sslmode=on", f"postgres://{MASK}@db/shop?{MASK}"),
        ("SHOP_TWO", f"https://a,https://amy:{SECRET}@b", f"https://{MASK}@b"),
        ("SHOP_COMMA", f"https://amy:a,{SECRET}@b", f"https://{MASK}@b"),
        ("SHOP_TWO", f"https://a, https://amy:{SECRET}@b", f"https://a, https://{MASK}@b"),
        ("NOTIFICATIONS_SMTP", f"amy:{SECRET}@mail:25", f"{MASK}@mail:25"),
        ("OPS_ALARM_WEBHOOK", f"https://hooks.example.com/T0/{SECRET}", f"https://hooks.example.com/{MASK}"),
        ("OPS_ALARM_WEBHOOK", f"https://a,https://b/{SECRET}", MASK),
        ("SHOP_HOOK", "https://hooks.example.com/x/Xy3kQ9Zr7LmN2pT5vW8a", f"https://hooks.example.com/x/{MASK}"),
        ("SHOP_TOKEN", f"token://{SECRET}", MASK),
    ],
)
def test_an_address_is_shown_without_what_opens_it(name: str, value: str, shown: str) -> None:
    assert masked(name, value) == shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ATOLL_GATEWAY", "http://127.0.0.1:8080"), ("ATOLL_BUS", "tcp://127.0.0.1:8086"), ("ATOLL_SLOT", "orders/1"),
        ("ACCESS_TOKEN_SECONDS", "300"), ("KEY_BYTES_MAX", "4096"), ("LANG", "en_US.UTF-8"), ("ATOLL_PORT", "8501"),
        ("NOTIFICATIONS_FROM", "shop@example.com"), ("MONKEYS", ""), ("PATH", "/usr/local/sbin:/usr/local/bin:/x1"),
        ("JAEGER_STORAGE", "memory"), ("DASHBOARD_ORIGINS", "https://ops.example.com"),
    ],
)  # fmt: skip
def test_what_is_no_secret_is_shown(name: str, value: str) -> None:
    assert masked(name, value) == value


def test_the_path_of_a_secret_is_none_if_it_is_one(tmp_path: Path) -> None:
    secret = tmp_path / "curve.secret"
    secret.write_text(SECRET)
    assert masked("SHOP_SECRET_FILE", str(secret)) == str(secret)
    assert masked("ATOLL_KEYS", str(tmp_path)) == str(tmp_path)
    assert masked("ATOLL_DATA", str(tmp_path / "not-yet-made-0123456789")) == str(tmp_path / "not-yet-made-0123456789")
    for value in ("/9j4AAQSkZJRgABAQEAYABgAAD", "/nowhere/at/all", "/" + "x" * 5000):
        assert masked("SHOP_KEY", value) == MASK, "it begins like a path, and names nothing"


def test_the_settings_are_all_there_by_name_and_say_what_is_masked() -> None:
    assert masking.settings({"B": "1", "A_TOKEN": SECRET}) == [
        {"name": "A_TOKEN", "value": MASK, "masked": True},
        {"name": "B", "value": "1", "masked": False},
    ]


# ---- a real agent ------------------------------------------------------------------------------------------------


def _ask(system: System, do: str, **more: Any) -> dict[str, Any]:
    return asyncio.run(Agency(system.state / "run").ask(do=do, **more))


def test_the_agent_tells_the_log_and_the_masked_configuration_of_an_instance(system: System) -> None:
    system.write_mesh(FAKE_PLAIN="seen", FAKE_PASSWORD=SECRET)
    system.up()
    lines = poll_until(
        "the part's first line", lambda: _ask(system, "log", name="one", instance=1, lines=1)["log"], seconds=20
    )
    assert [line["event"] for line in lines] == ["fake is up"]
    answer = _ask(system, "configuration", name="one", instance=1)
    told = {setting["name"]: setting["value"] for setting in answer["configuration"]}
    assert (told["FAKE_PLAIN"], told["FAKE_PASSWORD"], told["ATOLL_SLOT"]) == ("seen", MASK, "one/1")
    assert told["ATOLL_KEYS"] == str(system.state / "keys" / "one")
    assert SECRET not in json.dumps(answer)
    for do in ("log", "configuration"):
        for name, instance in (("nobody", 1), ("one", 2), ("../agent", 1)):
            error = _ask(system, do, name=name, instance=instance, lines=1)["error"]
            assert (error["code"], f"{name}/{instance}" in error["text"]) == ("unknown_instance", True)


def test_in_a_container_the_agent_says_who_keeps_what_a_part_says(tmp_path: Path) -> None:
    state = State(tmp_path / "atoll")
    for folder in (state.run, state.data, state.keys / "orders"):
        folder.mkdir(parents=True)
    (state.keys / "orders" / "curve.secret").write_text("x")
    agent = Agent(container.plan("orders", state, REPOSITORY / "mesh.toml"))
    error = agent._log({"name": "orders", "instance": 1, "lines": 50})["error"]
    assert error["code"] == "not_here"
    assert "docker compose logs orders" in error["text"]
    told = agent._configuration({"name": "orders", "instance": 1})["configuration"]
    assert {"name": "ATOLL_BUS", "value": "tcp://broker:8086", "masked": False} in told


# ---- through control ---------------------------------------------------------------------------------------------


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    """Control in front of a fake agent that has a line and a setting to tell."""
    async with running(tmp_path) as made:
        made.agent.told["log"] = {"log": [structured('{"event": "x"}')]}
        made.agent.told["configuration"] = {"configuration": masking.settings({"A_TOKEN": SECRET})}
        yield made


async def test_a_viewer_reads_log_and_configuration_in_the_shape_of_the_contract(control: Control) -> None:
    document = yaml.safe_load((PROJECT / "contract" / "http.openapi.yaml").read_text())
    schemas = {name: set(schema["properties"]) for name, schema in document["components"]["schemas"].items()}
    status, log = await control.get("viewer", "/ops/instances/orders/1/log?lines=7")
    assert (status, set(log), set(log["lines"][0])) == (200, schemas["Log"], schemas["Line"])
    status, told = await control.get("viewer", "/ops/instances/orders/1/configuration")
    assert (status, set(told), set(told["settings"][0])) == (200, schemas["Configuration"], schemas["Setting"])
    asked = [one for one in control.agent.asked if one["do"] in ("log", "configuration")]
    assert [(one["do"], one["name"], one["instance"], one.get("lines")) for one in asked] == [
        ("log", "orders", 1, 7), ("configuration", "orders", 1, None),
    ]  # fmt: skip
    await control.get("viewer", "/ops/instances/orders/1/log")
    assert control.agent.asked[-1]["lines"] == 50
    async with control.client.get("/ops/instances/orders/1/log") as answer:
        assert answer.status == 401


@pytest.mark.parametrize("lines", ["0", "501", "-1", "x", "", "1.5", "9" * 30])
async def test_a_number_of_lines_that_is_none_is_refused_by_its_name(control: Control, lines: str) -> None:
    status, problem = await control.get("viewer", f"/ops/instances/orders/1/log?lines={lines}")
    assert (status, problem["code"], problem["field"]) == (422, "validation", "lines")
    assert "from 1 to 500" in problem["detail"]
    assert not [one for one in control.agent.asked if one["do"] == "log"]


@pytest.mark.parametrize("what", ["log", "configuration"])
async def test_what_cannot_be_told_is_a_problem_that_says_why(control: Control, what: str) -> None:
    path = f"/ops/instances/nobody/1/{what}"
    control.agent.told[what] = {"error": {"code": "unknown_instance", "text": "there is no nobody/1"}}
    status, problem = await control.get("viewer", path)
    assert (status, problem["code"]) == (404, "unknown_instance")
    assert "There is no nobody/1 (there are: orders/1, auth/1, sales/1)" in problem["detail"]
    control.agent.told[what] = {"error": {"code": "not_here", "text": "ask the engine"}}
    status, problem = await control.get("viewer", path)
    assert (status, problem["code"]) == (404, "not_here")
    assert f"The {what} of nobody/1 is not reachable from here: ask the engine" in problem["detail"]
    del control.agent.told[what]
    status, problem = await control.get("viewer", path)
    assert (status, "its agent is of a release" in problem["detail"]) == (404, True)
    control.agent.hangs = True
    status, problem = await control.get("viewer", path)  # sooner than the dashboard gives it up
    assert (status, problem["code"], problem["detail"]) == (503, "agent_gone", "the agent does not answer")
    await control.agent.stop()
    assert (await control.get("viewer", path))[0] == 503
