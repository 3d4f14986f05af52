"""`python -m atoll_auth …` beside a running service."""

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
from world import Caller, as_client

import atoll
from atoll_auth import commands
from conftest import Start


@pytest.fixture(autouse=True)
def _data(options: atoll.Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOLL_DATA", str(options.data))


def run(*words: str, stdin: str = "") -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        return commands.run(words)


async def test_people_come_and_go(auth: Caller, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("users", "add", "bert", "--role", "operator", stdin="bert's password\n") == 0
    assert (await auth.logged_in(username="bert", password="bert's password"))["scope"] == "ops:operate ops:read"
    assert run("users", "list") == 0
    assert capsys.readouterr().out == "anna admin\nbert operator\nvera viewer\n"
    assert run("users", "remove", "bert") == 0
    assert (await auth.login("bert", "bert's password")).status == 401


async def test_removal_ends_tokens(auth: Caller) -> None:
    login = await auth.logged_in(username="vera", password="vera's password")
    auth.clock.now = time.time()  # commands go by the true time
    fresh = await auth.logged_in(username="vera", password="vera's password")
    assert run("users", "remove", "vera") == 0
    assert not await auth.is_active(fresh["access_token"])
    assert (await auth.renew(login["refresh_token"])).status == 400
    assert (await auth.renew(fresh["refresh_token"])).status == 400


async def test_changed_password_counts_at_once(auth: Caller) -> None:
    auth.clock.now = time.time()
    old = await auth.logged_in()
    assert run("users", "set-password", "anna", stdin="a new password\n") == 0
    assert (await auth.login()).status == 401
    assert not await auth.is_active(old["access_token"])
    new = await auth.logged_in(password="a new password")
    assert await auth.is_active(new["access_token"]), "issued within the second of the change"


async def test_changed_role_counts_at_the_next_login(auth: Caller) -> None:
    auth.clock.now = time.time()
    assert run("users", "set-role", "vera", "operator") == 0
    assert (await auth.logged_in(username="vera", password="vera's password"))["scope"] == "ops:operate ops:read"


async def test_refusals_say_why(auth: Caller, capsys: pytest.CaptureFixture[str]) -> None:
    for words, stdin, why in [
        (("users", "remove", "anna"), "", "last admin"),
        (("users", "set-role", "anna", "viewer"), "", "last admin"),
        (("users", "remove", "demo"), "", "there is no demo"),
        (("users", "add", "demo", "--role", "viewer"), "long enough\n", "taken"),
        (("users", "add", "bert", "--role", "viewer"), "short\n", "8 to 256"),
        (("clients", "add", "bot", "--scope", "*"), "", "not a scope"),
        (("keys", "withdraw", "0" * 16), "", "no key"),
    ]:
        assert run(*words, stdin=stdin) == 1
        assert why in capsys.readouterr().err


async def test_clients_come_and_go(auth: Caller, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("clients", "add", "bot", "--scope", "stock:read", "orders:read") == 0
    secret = capsys.readouterr().out.strip()
    token = await auth.client_token(**as_client("bot", secret))
    assert token["scope"] == "orders:read stock:read"
    assert run("clients", "set-secret", "bot") == 0
    answer = await auth.form("/auth/token", {"grant_type": "client_credentials", **as_client("bot", secret)})
    assert answer.status == 401
    assert run("clients", "remove", "bot") == 0
    assert run("clients", "list") == 0
    assert "bot" not in capsys.readouterr().out.split("\n", 1)[1]


async def test_rotation_begins_once(auth: Caller, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("keys", "rotate") == 0
    assert run("keys", "rotate") == 1
    capsys.readouterr()
    assert run("keys", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[1] for line in lines) == ["active", "pending"]


async def test_database_must_be_there(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("", str(tmp_path)):
        monkeypatch.setenv("ATOLL_DATA", place)
        assert run("users", "list") == 64
        assert "ATOLL_DATA" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AUTH_ACCESS_SECONDS", "9"),
        ("AUTH_REFRESH_SECONDS", "x"),
        ("AUTH_ROTATE_SECONDS", "-1"),
        ("AUTH_PUBLIC_URL", "me"),
    ],
)
def test_wrong_setting_stops_the_start_with_its_name(options: atoll.Options, variable: str, value: str) -> None:
    environment = {
        "PATH": "",
        "ATOLL_SLOT": options.slot,
        "ATOLL_HOST": options.host,
        "ATOLL_PORT": "0",
        "ATOLL_DATA": str(options.data),
        "ATOLL_KEYS": str(options.keys),
        "ATOLL_BUS": options.bus,
        variable: value,
    }
    done = subprocess.run(
        [sys.executable, "-m", "atoll_auth"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert variable in done.stderr
    assert done.stderr.count("\n") == 1
