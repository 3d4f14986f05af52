"""Accounts for the tests, made as an administrator makes them: by auth's own command, beside the running service."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from fleet import REPOSITORY, Answer, Fleet, http
from polling import poll_until

_PYTHON = REPOSITORY / ".atoll" / "env" / "auth" / "bin" / "python"


@dataclass(frozen=True)
class Person:
    """Somebody who may log in."""

    name: str
    password: str
    role: str


def admin_of(shop: Fleet) -> Person:
    """The operator that `./atoll up` generated."""
    known = shop.credentials
    return Person(known["username"], known["password"], "admin")


def add(shop: Fleet, name: str, role: str) -> Person:
    """An account, usable when this returns."""
    person = Person(name, f"{name}-has-a-long-password", role)
    _auth(shop, "users", "add", name, "--role", role, stdin=person.password)
    poll_until(f"{name} to be let in", lambda: log_in(shop, person).status, lambda status: status == 200, seconds=10)
    return person


def remove(shop: Fleet, person: Person) -> None:
    """Take the account away; its tokens are revoked within a second."""
    _auth(shop, "users", "remove", person.name)


def log_in(shop: Fleet, person: Person) -> Answer:
    """`POST /auth/login` through the gateway."""
    return http("POST", f"{shop.gateway}/auth/login", body={"username": person.name, "password": person.password})


def token_of(shop: Fleet, person: Person) -> str:
    """A fresh access token of theirs."""
    answer = log_in(shop, person)
    assert answer.status == 200, f"{person.name} cannot log in: {answer.status} {answer.raw!r}"
    return str(answer.body["access_token"])


def _auth(shop: Fleet, *words: str, stdin: str = "") -> None:
    done = subprocess.run(
        [str(_PYTHON), "-m", "atoll_auth", *words], input=stdin + "\n", text=True, check=False, timeout=30,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"ATOLL_DATA": str(shop.state / "data" / "auth-1")},
    )  # fmt: skip
    assert done.returncode == 0, f"auth {' '.join(words)}: {done.stdout}"
