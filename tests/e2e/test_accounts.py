"""Accounts from the command line, and the client that the dashboard is."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import urllib.parse

from fleet import LAUNCHER, REPOSITORY, Answer, Fleet, http
from polling import poll_until


def _administer(shop: Fleet, *words: str, password: str = "") -> tuple[int, str]:
    done = subprocess.run(
        [str(LAUNCHER), *words, "--state", str(shop.state)],
        cwd=REPOSITORY, text=True, input=password + "\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def _login(shop: Fleet, username: str, password: str) -> Answer:
    return http("POST", f"{shop.gateway}/auth/login", body={"username": username, "password": password})


def _client_token(shop: Fleet, client: dict[str, str]) -> Answer:
    form = urllib.parse.urlencode({"grant_type": "client_credentials"} | client).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return http("POST", f"{shop.gateway}/auth/token", data=form, headers=headers)


def test_a_viewer_is_added_seen_changed_and_removed(shop: Fleet) -> None:
    assert _administer(shop, "users", "add", "ada", "--role", "viewer", password="a good long one") == (0, "")
    assert "ada viewer" in _administer(shop, "users", "list")[1]
    granted = _login(shop, "ada", "a good long one")
    assert granted.status == 200
    assert granted.body["scope"] == "ops:read"
    assert _administer(shop, "users", "set-password", "ada", password="another long one")[0] == 0
    assert _login(shop, "ada", "a good long one").status in (400, 401)
    assert _administer(shop, "users", "set-role", "ada", "operator")[0] == 0
    assert "ops:operate" in _login(shop, "ada", "another long one").body["scope"]
    assert _administer(shop, "users", "remove", "ada")[0] == 0
    assert _login(shop, "ada", "another long one").status in (400, 401)


def test_what_auth_refuses_is_said_with_its_code(shop: Fleet) -> None:
    code, said = _administer(shop, "users", "remove", "operator")
    assert (code, said.count("\n")) == (1, 1)
    assert "last admin" in said
    assert _administer(shop, "users", "add", "bob", "--role", "emperor")[0] == 2
    assert _administer(shop, "users", "add", "bob", "--role", "viewer", password="short")[0] == 1


def test_a_client_gets_its_secret_once(shop: Fleet) -> None:
    code, secret = _administer(shop, "clients", "add", "scripts", "--scope", "sales:read", "stock:read")
    assert code == 0
    granted = _client_token(shop, {"client_id": "scripts", "client_secret": secret.strip()})
    assert granted.body["scope"] == "sales:read stock:read"


def test_the_dashboards_client_reads_operations_and_cannot_act(shop: Fleet) -> None:
    client = json.loads((shop.state / "keys" / "dashboard" / "client.json").read_text())
    granted = _client_token(shop, client)
    assert granted.body["scope"] == "ops:read"
    token = granted.body["access_token"]
    assert shop.call("GET", "/ops/snapshot", token=token).status == 200
    key = {"Idempotency-Key": "a-key-of-ours"}
    refused = shop.call("POST", "/ops/instances/sales/1/kill", {"reason": "no"}, token=token, headers=key)
    assert refused.status == 403


def test_a_state_directory_of_an_older_release_gets_the_dashboards_client(shop: Fleet) -> None:
    """auth of that release has sown the demo client alone; its next start sows the dashboard's too."""
    path = shop.state / "keys" / "auth" / "seed.json"
    seed = json.loads(path.read_text())
    shop.atoll("down")
    path.write_text(json.dumps(seed | {"clients": seed["clients"][:1]}))
    (shop.state / "keys" / "dashboard" / "client.json").unlink()
    with sqlite3.connect(shop.database_path("auth")) as database:
        database.execute("DELETE FROM accounts WHERE name = 'dashboard'")
        database.execute("DELETE FROM seeds WHERE name = 'dashboard'")
    shop.up()
    client = json.loads((shop.state / "keys" / "dashboard" / "client.json").read_text())
    assert client["client_secret"] != seed["clients"][1]["client_secret"]
    poll_until("its token", lambda: _client_token(shop, client).status, lambda status: status == 200, seconds=15)
