"""The composed system runs: each container's CMD out of its built image, as PID 1, on the model's networks."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
import measured
import reading
import rules
import topology
from engine import Composed
from images import Builder, Image
from polling import poll_until

pytest_plugins = ["container_fixtures"]
OWNER = 10_001
BACK_SECONDS = 5.0
DRAIN_SECONDS = 10.0
AGENT_MIB_MAX = 64
#: One HTTP exchange, from whatever network namespace it runs in.
_HTTP = """
import json, sys, urllib.error, urllib.request
method, url, headers, body = json.load(sys.stdin)
request = urllib.request.Request(url, data=body.encode() if body is not None else None, headers=headers, method=method)
try:
    with urllib.request.urlopen(request, timeout=10) as answer:
        print(json.dumps([answer.status, dict(answer.headers), answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, dict(error.headers), error.read().decode()]))
"""
#: Whether a connection can be opened, by address and by name.
_CONNECT = """
import json, socket, sys
host, port = json.load(sys.stdin)
try:
    socket.create_connection((host, port), timeout=2).close()
    print(json.dumps("open"))
except OSError as error:
    print(json.dumps(type(error).__name__ + ": " + str(error)))
"""


@pytest.fixture(scope="module")
def system(built: dict[str, Image], builder: Builder, whole: dict[str, Any]) -> Iterator[Composed]:
    """All parts, up. The collector's image is nobody's here: its place on the networks is there, and nothing in it."""
    folder = Path(tempfile.mkdtemp(prefix="atoll-composed-"))
    composed = Composed(folder, whole, built, builder.base)
    try:
        composed.open()
        code, said = composed.run("setup")
        assert code == 0, said
        began = time.monotonic()
        for name in rules.parts(whole):
            composed.start(name)
        poll_until("every part to be running", lambda: not_running(composed), lambda left: not left, seconds=90)
        measured.say(f"{len(composed.running)} containers from setup's end to every part running: "
                     f"{time.monotonic() - began:.1f} s")  # fmt: skip
        yield composed
    except BaseException:
        for name in whole["services"]:
            if composed.log(name).exists():
                print(f"---- {name}\n{composed.log(name).read_text()[-3000:]}")
        raise
    finally:
        composed.close()
        shutil.rmtree(folder, ignore_errors=True)


def snapshot(system: Composed) -> dict[str, dict[str, Any]]:
    """`docker compose exec control atoll status --json`: name -> part.

    Asked again while an agent whose container runs is late: the command knows nothing of before, and waits a second.
    """

    def seen() -> dict[str, dict[str, Any]]:
        code, said = system.exec("control", "atoll", "status", "--json")
        assert code == 0, said
        return {part["name"]: part for part in json.loads(said)["parts"]}

    def told(parts: dict[str, dict[str, Any]]) -> bool:
        return all(parts[name]["state"] != "unknown" for name in system.running if name in parts)

    return poll_until("every agent to answer", seen, told, seconds=10)


def not_running(system: Composed) -> dict[str, str]:
    """Parts that are not running, with why."""
    seen = snapshot(system)
    missing = {name: "not shown" for name in rules.parts(system.model) if name not in seen}
    return missing | {name: f"{one['state']}: {one['why']}" for name, one in seen.items() if one["state"] != "running"}


def call(
    system: Composed, method: str, path: str, *, token: str = "", body: Any = None, form: dict[str, str] | None = None,
    **headers: str,
) -> tuple[int, dict[str, str], Any]:
    """One call from the browser's network to the gateway: status, headers (lower case), JSON."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        sent["Authorization"] = f"Bearer {token}"
    sent["Content-Type"] = "application/x-www-form-urlencoded" if form else "application/json"
    content = urllib.parse.urlencode(form) if form else json.dumps(body) if body is not None else None
    status, told, text = system.python("browser", _HTTP, [method, f"http://gateway:8080{path}", sent, content])
    return status, {name.lower(): value for name, value in told.items()}, json.loads(text) if text else None


def credentials(system: Composed) -> dict[str, str]:
    """As the operator reads them."""
    code, said = system.run("setup", "cat", "/atoll/credentials.json", user=f"{OWNER}:{OWNER}")
    assert code == 0, said
    found: dict[str, str] = json.loads(said)
    return found


@pytest.fixture(scope="module")
def client(system: Composed) -> str:
    """A token of the demo client."""
    known = credentials(system)
    asked = {"grant_type": "client_credentials"} | {key: known[key] for key in ("client_id", "client_secret")}
    status, _, body = poll_until(
        "auth to be reached through the gateway", lambda: call(system, "POST", "/auth/token", form=asked),
        lambda answer: answer[0] == 200, seconds=20,
    )  # fmt: skip
    assert status == 200
    return str(body["access_token"])


@pytest.fixture(scope="module")
def operator(system: Composed) -> str:
    """The operator's token."""
    known = credentials(system)
    status, _, body = call(
        system, "POST", "/auth/login", body={"username": known["username"], "password": known["password"]}
    )
    assert status == 200, body
    return str(body["access_token"])


def place(system: Composed, token: str, invoice: str) -> str:
    """Place an order; its path."""
    line = {"sku": "85123A", "description": "a light", "quantity": 6, "unit_price": "2.55"}
    order = {
        "invoice": invoice, "customer": "17850", "country": "France", "placed_at": "2026-11-24T08:00:00Z",
        "lines": [line],
    }  # fmt: skip
    status, headers, body = call(system, "POST", "/orders", token=token, body=order)
    assert status == 202, body
    return headers["location"]


def wait_confirmed(system: Composed, token: str, path: str) -> None:
    """Wait until an order is confirmed: it went to four services and back by the bus."""
    poll_until(
        f"{path} to be confirmed", lambda: call(system, "GET", path, token=token)[2],
        lambda order: order["status"] == "confirmed", seconds=30,
    )  # fmt: skip


# ---- it works ----------------------------------------------------------------------------------------------------


def test_an_order_through_the_gateway_is_confirmed(system: Composed, client: str) -> None:
    began = time.monotonic()
    wait_confirmed(system, client, place(system, client, "500001"))
    measured.say(f"an order through gateway and containers confirmed in {time.monotonic() - began:.1f} s")
    poll_until(
        "sales to have counted it", lambda: call(system, "GET", "/sales?by=country", token=client)[2]["rows"],
        lambda rows: [(row["key"], row["revenue"]) for row in rows] == [("France", "15.30")], seconds=10,
    )  # fmt: skip


def test_parts_announce_themselves_under_their_names(system: Composed, operator: str) -> None:
    """Not as 0.0.0.0, which they listen on, nor under an id that no sibling of the gateway could resolve."""
    status, _, told = call(system, "GET", "/ops/snapshot", token=operator)
    assert status == 200
    assert {part["name"]: part["host"] for part in told["parts"] if part["name"] in rules.mesh()} == {
        name: name for name in rules.mesh()
    }
    for name in ("orders", "sales", "inventory"):
        status, _, _ = system.python("gateway", _HTTP, ["GET", f"http://{name}:8000/ready", {}, None])
        assert status == 200


def test_the_health_check_of_each_image_says_the_truth(system: Composed) -> None:
    for name in system.running:
        code, said = system.exec(name, *system.images[name].health)
        assert (code, said.strip()) == (0, "ready"), f"{name}: {said}"
    code, said = system.exec("orders", "/agent/bin/python", "-m", "atoll_ops.probe", "8999")
    assert (code, said.strip()) == (1, "no answer")


# ---- it is shut in -----------------------------------------------------------------------------------------------


def _addresses(system: Composed, name: str) -> list[str]:
    return list(system.addresses[name].values())


def test_no_service_can_open_a_connection_to_a_sibling(system: Composed) -> None:
    for one in topology.SERVICES:
        for other in topology.SERVICES:
            if one != other:
                for place_ in (other, *_addresses(system, other)):
                    said = system.python(one, _CONNECT, [place_, topology.CONTAINER_PORT])
                    assert said != "open", f"{one} reaches {other} at {place_}"


def test_the_control_case_gateway_and_control_can(system: Composed) -> None:
    for who in ("gateway", "control"):
        for service in topology.SERVICES:
            assert system.python(who, _CONNECT, [service, topology.CONTAINER_PORT]) == "open", f"{who} to {service}"
    for service in topology.SERVICES:
        assert system.python(service, _CONNECT, ["broker", 8086]) == "open"


def test_a_service_reaches_nothing_outside(system: Composed) -> None:
    assert system.python("orders", _CONNECT, ["192.0.2.1", 443]) != "open"
    routes = system.python("orders", "import json; print(json.dumps(open('/proc/net/route').read().splitlines()[1:]))")
    assert len(routes) == 1, f"orders has more than its own network: {routes}"


def test_a_browser_reaches_the_gateway_and_no_service(system: Composed) -> None:
    assert system.python("browser", _CONNECT, ["gateway", 8080]) == "open"
    for service in (*topology.SERVICES, "auth", "broker", "control"):
        for address in (service, *_addresses(system, service)):
            assert system.python("browser", _CONNECT, [address, topology.CONTAINER_PORT]) != "open"


def test_a_part_is_nobody_and_can_write_nowhere_else(system: Composed) -> None:
    code, said = system.exec("orders", "sh", "-c", "grep -E 'Uid|CapEff|CapBnd|NoNewPrivs' /proc/1/status")
    told = dict(line.split(":", 1) for line in said.splitlines())
    assert set(told["Uid"].split()) == {str(OWNER)}
    assert (told["CapEff"].strip(), told["CapBnd"].strip()) == ("0" * 16, "0" * 16)
    assert told["NoNewPrivs"].strip() == "1"
    for place_ in ("/service/x", "/env/x", "/atoll/keys/orders/x", "/etc/x", "/x"):
        code, said = system.exec("orders", "sh", "-c", f"echo x > {place_}")
        assert code != 0, f"orders can write {place_}"
    code, said = system.exec("orders", "sh", "-c", "ls /atoll/keys; ls /atoll; ls /work 2>&1")
    assert said.split()[0] == "orders"
    assert "gateway" not in said, "orders sees keys of others"


def test_keys_are_each_parts_own(system: Composed) -> None:
    for name in rules.mesh():
        folder = system.folder / "volumes" / f"keys-{name}"
        for path in (folder, *folder.rglob("*")):
            assert path.stat().st_uid == OWNER, path
            assert path.stat().st_mode & 0o077 == 0, path


def test_setup_again_changes_nothing(system: Composed) -> None:
    def contents() -> dict[str, bytes]:
        folders = [path for path in (system.folder / "volumes").iterdir() if path.name.startswith(("keys-", "setup"))]
        return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}

    before = contents()
    code, said = system.run("setup")
    assert code == 0, said
    assert "complete" in said
    assert contents() == before


# ---- it is operated ----------------------------------------------------------------------------------------------


def test_payments_killed_through_the_ops_api_comes_back(system: Composed, operator: str, client: str) -> None:
    """Control's act reaches an agent in another container; nobody has the engine's socket."""
    before = snapshot(system)["payments"]
    status, headers, begun = call(
        system, "POST", "/ops/instances/payments/1/kill", token=operator, body={"reason": "a test"},
        Idempotency_Key=f"kill-{time.time_ns()}",
    )  # fmt: skip
    assert status == 202, begun
    began = time.monotonic()
    ended = poll_until(
        "the operation to end", lambda: call(system, "GET", headers["location"], token=operator)[2],
        lambda one: one["done"], seconds=3 * BACK_SECONDS,
    )  # fmt: skip
    seconds = time.monotonic() - began
    measured.say(f"payments killed in its container, back in {seconds:.1f} s (promised {BACK_SECONDS:g})")
    assert [step["state"] for step in ended["steps"]] == ["requested", "stopped", "started"]
    after = snapshot(system)["payments"]
    assert after["restarts"] == before["restarts"] + 1
    assert after["pid"] != before["pid"]
    wait_confirmed(system, client, place(system, client, "500002"))


def test_the_command_line_works_inside_control(system: Composed) -> None:
    code, said = system.exec("control", "atoll", "restart", "sales", "--reason", "a test")
    assert code == 0, said
    assert "stopped (drained)" in said
    assert "started" in said
    code, said = system.exec("control", "atoll", "group", "list")
    assert code == 0, said
    assert "orders" in said
    code, said = system.exec("control", "atoll", "up")
    assert code == 1
    assert "docker compose" in said


def test_accounts_are_administered_in_auths_container(system: Composed) -> None:
    auth = ("env", "ATOLL_DATA=/atoll/data/auth-1", "/env/bin/python", "-m", "atoll_auth")
    code, said = system.exec("auth", *auth, "users", "list")
    assert code == 0, said
    assert "operator" in said
    code, said = system.exec("control", "atoll", "users", "list")
    assert code == 1
    assert "docker compose exec -e ATOLL_DATA=/atoll/data/auth-1 auth" in said


def test_a_container_that_is_stopped_drains_and_is_unknown_until_it_returns(system: Composed, operator: str) -> None:
    code, seconds = system.stop("sales")
    measured.say(f"a stopped container drained in {seconds:.1f} s (promised {DRAIN_SECONDS:g})")
    assert code == 0, f"exit code {code} (137: killed)"
    assert seconds < DRAIN_SECONDS
    assert '"how": "drained"' in system.log("sales").read_text()
    seen = snapshot(system)
    assert seen["sales"]["state"] == "unknown"
    assert "sales's container" in seen["sales"]["why"]
    poll_until("all others to be running", lambda: set(not_running(system)), lambda left: left == {"sales"}, seconds=20)
    status, _, refused = call(
        system, "POST", "/ops/instances/sales/1/restart", token=operator, body={"reason": "a test"},
        Idempotency_Key=f"gone-{time.time_ns()}",
    )  # fmt: skip
    assert status in (202, 503), refused
    system.start("sales")
    poll_until("sales to be running", lambda: snapshot(system)["sales"]["state"], lambda s: s == "running", seconds=20)


def test_a_second_container_on_a_parts_volumes_refuses_to_start(system: Composed) -> None:
    first = system.running["inventory"]
    second = system.start("inventory")
    try:
        assert second.process.wait(20) == 1
        assert "already up" in system.log("inventory").read_text()
        assert first.process.poll() is None
    finally:
        system.running["inventory"] = first


def test_a_part_that_an_operator_stopped_leaves_its_container_up_and_unhealthy(system: Composed) -> None:
    """PID 1 stays: it is who starts the part again."""
    code, said = system.exec("control", "atoll", "stop", "notifications", "--reason", "a test")
    assert code == 0, said
    assert snapshot(system)["notifications"]["state"] == "stopped"
    assert system.running["notifications"].process.poll() is None
    assert system.exec("notifications", *system.images["notifications"].health)[0] == 1
    code, said = system.exec("control", "atoll", "start", "notifications", "--reason", "a test")
    assert code == 0, said
    assert system.exec("notifications", *system.images["notifications"].health)[0] == 0


def test_a_part_that_cannot_start_leaves_its_agent_up_to_say_why(system: Composed, tmp_path: Path) -> None:
    """An engine that restarts a container over and over shows neither the reason nor anything to act on."""
    page = reading.REPOSITORY / "mesh.toml"
    wrong = tmp_path / "mesh.toml"
    wrong.write_text(page.read_text().replace('NOTIFICATIONS_SMTP = ""', 'NOTIFICATIONS_SMTP = "no address"'))
    assert system.stop("notifications")[0] == 0
    configs = system.model["configs"]["mesh"]
    configs["file"] = str(wrong)
    try:
        system.start("notifications")
        seen = poll_until(
            "notifications to be in a crash loop", lambda: snapshot(system)["notifications"],
            lambda one: "crash loop" in one["why"], seconds=30,
        )  # fmt: skip
        assert "exited 64 (configuration error)" in seen["why"]
        assert system.running["notifications"].process.poll() is None
        assert system.stop("notifications")[0] == 0
    finally:
        configs["file"] = str(page)
    system.start("notifications")
    poll_until("all to be running", lambda: not_running(system), lambda left: not left, seconds=30)


def test_what_the_agents_cost_is_said(system: Composed) -> None:
    sizes = []
    for container in system.running.values():
        told = Path(f"/proc/{container.pid}/smaps_rollup").read_text()
        sizes.append(next(int(line.split()[1]) for line in told.splitlines() if line.startswith("Rss:")) / 1024)
    measured.say(f"an agent as PID 1 takes {min(sizes):.0f} to {max(sizes):.0f} MiB resident")
    assert max(sizes) < AGENT_MIB_MAX


def test_no_container_piles_up_zombies(system: Composed) -> None:
    for name in system.running:
        code, said = system.exec(name, "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z ' || true")
        assert (code, said.strip()) == (0, "0"), f"{name}: {said}"


def test_everything_drains_when_the_system_is_stopped(system: Composed) -> None:
    """Last: nothing runs after it."""
    codes = {name: system.stop(name)[0] for name in list(system.running)}
    assert codes == dict.fromkeys(codes, 0)
    engine.sweep()
