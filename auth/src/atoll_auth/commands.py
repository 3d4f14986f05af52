"""Administration on the host: `python -m atoll_auth users | clients | keys …`, with the service running or not.

    users    list | add NAME --role ROLE | remove NAME | set-password NAME | set-role NAME ROLE
    clients  list | add NAME --scope SCOPE… | remove NAME | set-secret NAME
    keys     list | rotate | withdraw KID

It writes auth's database (in ATOLL_DATA) beside the running service, which looks at it each second. Passwords come
from the terminal or one line of standard input, never from the command line, where `ps` shows them; a client's secret
is made here and shown once.
"""

import argparse
import getpass
import os
import secrets
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

from atoll_token import SigningKey

from . import store
from .domain import SCOPES_OF_ROLE, check_secret, scope_text
from .passwords import hash_secret
from .store import RefusedError, Writer

# Returns what to print once it is committed.
Command = Callable[[Writer, argparse.Namespace, int], str]


class Direct:
    """A transaction of this process: what store.py needs, without the service's writer thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def one(self, sql: str, *params: object) -> sqlite3.Row | None:
        return cast("sqlite3.Row | None", self._connection.execute(sql, params).fetchone())

    def all(self, sql: str, *params: object) -> list[sqlite3.Row]:
        return self._connection.execute(sql, params).fetchall()

    def execute(self, sql: str, *params: object) -> int:
        return self._connection.execute(sql, params).rowcount


def run(arguments: Sequence[str]) -> int:
    """0 done; 1 refused; 64 no database; 74 storage; 2 (argparse) not understood. One line on stderr says why."""
    parsed = _parser().parse_args(arguments)
    path = Path(os.environ.get("ATOLL_DATA", "")) / store.FILE_NAME
    if not os.environ.get("ATOLL_DATA") or not path.exists():
        return _failed(64, "ATOLL_DATA: expected auth's data directory, with a database that the service has made")
    try:
        parsed.prepare(parsed)  # before the transaction: nobody else can write while it is open
        with _transaction(path) as db:
            answer = parsed.command(db, parsed, int(time.time()))
    except (RefusedError, ValueError) as error:
        return _failed(1, str(error))
    except sqlite3.Error as error:
        return _failed(74, f"{path.name}: {error}")
    if answer:
        print(answer)
    return 0


def _failed(code: int, why: str) -> int:
    print(why, file=sys.stderr)
    return code


@contextmanager
def _transaction(path: Path) -> Iterator[Direct]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield Direct(connection)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m atoll_auth", description="Administration of accounts and keys.")
    groups = parser.add_subparsers(required=True, metavar="users|clients|keys")
    users = groups.add_parser("users").add_subparsers(required=True)
    roles = sorted(SCOPES_OF_ROLE)
    _add(users, "list", list_users)
    _add(users, "add", add_user, "name", prepare=_ask_password).add_argument("--role", choices=roles, required=True)
    _add(users, "remove", remove_user, "name")
    _add(users, "set-password", set_password, "name", prepare=_ask_password)
    _add(users, "set-role", set_role, "name").add_argument("role", choices=roles)
    clients = groups.add_parser("clients").add_subparsers(required=True)
    _add(clients, "list", list_clients)
    _add(clients, "add", add_client, "name", prepare=_make_secret).add_argument("--scope", nargs="+", required=True)
    _add(clients, "remove", remove_client, "name")
    _add(clients, "set-secret", set_client_secret, "name", prepare=_make_secret)
    keys = groups.add_parser("keys").add_subparsers(required=True)
    _add(keys, "list", list_keys)
    _add(keys, "rotate", rotate)
    _add(keys, "withdraw", withdraw, "kid")
    return parser


def _add(
    group: "argparse._SubParsersAction[argparse.ArgumentParser]",
    verb: str,
    command: Command,
    *positional: str,
    prepare: Callable[[argparse.Namespace], None] = lambda _: None,
) -> argparse.ArgumentParser:
    parser = group.add_parser(verb, description=command.__doc__)
    parser.set_defaults(command=command, prepare=prepare)
    for name in positional:
        parser.add_argument(name)
    return parser


def _ask_password(arguments: argparse.Namespace) -> None:
    password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    check_secret(password)
    arguments.secret_hash = hash_secret(password)


def _make_secret(arguments: argparse.Namespace) -> None:
    arguments.secret = secrets.token_urlsafe(32)
    arguments.secret_hash = hash_secret(arguments.secret)


# ---- the commands -----------------------------------------------------------------------------------------------


def list_users(db: Writer, _: argparse.Namespace, __: int) -> str:
    """Names and roles."""
    return "\n".join(f"{account.name} {account.role}" for account in store.accounts(db, "user"))


def add_user(db: Writer, arguments: argparse.Namespace, now: int) -> str:
    """Add a person; the password is asked for."""
    store.add_user(db, arguments.name, arguments.secret_hash, arguments.role, now)
    return ""


def remove_user(db: Writer, arguments: argparse.Namespace, now: int) -> str:
    """Remove a person and end their tokens. The last admin stays."""
    store.remove(db, arguments.name, "user", now)
    return ""


def set_password(db: Writer, arguments: argparse.Namespace, now: int) -> str:
    """Change a password and end the tokens got with the old one."""
    store.set_secret(db, arguments.name, "user", arguments.secret_hash, now)
    return ""


def set_role(db: Writer, arguments: argparse.Namespace, now: int) -> str:
    """Change a role and end the tokens that carry the old one. The last admin stays one."""
    store.set_role(db, arguments.name, arguments.role, now)
    return ""


def list_clients(db: Writer, _: argparse.Namespace, __: int) -> str:
    """Ids and scopes."""
    return "\n".join(f"{account.name} {account.scope}" for account in store.accounts(db, "client"))


def add_client(db: Writer, arguments: argparse.Namespace, now: int) -> str:
    """Add a client; its secret is shown once."""
    store.add_client(db, arguments.name, arguments.secret_hash, scope_text(arguments.scope), now)
    return str(arguments.secret)


def remove_client(db: Writer, arguments: argparse.Namespace, now: int) -> str:
    """Remove a client and end its tokens."""
    store.remove(db, arguments.name, "client", now)
    return ""


def set_client_secret(db: Writer, arguments: argparse.Namespace, now: int) -> str:
    """Make a new secret, shown once, and end the tokens got with the old one."""
    store.set_secret(db, arguments.name, "client", arguments.secret_hash, now)
    return str(arguments.secret)


def list_keys(db: Writer, _: argparse.Namespace, __: int) -> str:
    """Signing keys, oldest first: pending, active or retired."""
    return "\n".join(f"{key.record.kid} {key.record.state}" for key in store.signing_keys(db))


def rotate(db: Writer, _: argparse.Namespace, now: int) -> str:
    """Begin a rotation now: a new key, which signs once it has been published for a while."""
    if any(key.record.state == "pending" for key in store.signing_keys(db)):
        raise RefusedError("a rotation has begun already")
    store.add_key(db, SigningKey.generate(), now, active=False)
    return ""


def withdraw(db: Writer, arguments: argparse.Namespace, _: int) -> str:
    """A stolen key: all tokens that it signed end now, and another key signs."""
    store.withdraw_key(db, arguments.kid)
    return ""
