"""The `./atoll` command line.

Exit codes: 0 done · 1 refused or failed, with one line saying why · 2 wrong usage or system page · 130 interrupted.
`status` that could tell is done, whatever it had to tell.

Imports stay inside the commands: `status` and `up` are used all day, and load no more than they need.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

from cyclopts import App, CycloptsError, Parameter, validators

from atoll_ops import buscli
from atoll_ops.command import (
    BY_HAND,
    AsJson,
    MeshOption,
    Reason,
    StateOption,
    ask_control,
    host_only,
    page_of,
    root,
    state_of,
)
from atoll_ops.errors import OperationError

if TYPE_CHECKING:
    from atoll_ops.slots import Slot

app = App(
    name="atoll",
    help="Event-driven services in Python: a failure stays where it happens.",
    version_flags=[],
    help_format="plaintext",
    result_action="return_value",
)
contracts = App(name="contracts", help="What parts have promised one another about events.")
app.command(contracts)
buscli.register(app)

WRONG_USAGE = 2


@app.command
def up(
    *, detach: bool = False, ports: int | None = None, only: str = "", without: str = "", jaeger: str = "",
    mesh: MeshOption = None, state: StateOption = None,
) -> int:  # fmt: skip
    """Set up what is missing, start every part, wait until all are ready.

    Args:
        detach: Return once everything is ready; without it, stay until Ctrl-C, which drains in reverse order.
        ports: Base of all ports (gateway BASE, bus BASE+6, control BASE+7, …); 0 takes free ones.
        only: Start these parts alone, as in broker,auth,orders.
        without: Start all (or those of --only) but these, as in dashboard,jaeger.
        jaeger: Use the Jaeger that runs already, whose query API is at this URL; spans go to its host's port 4318, or
            to OTEL_EXPORTER_OTLP_ENDPOINT.
    """
    from atoll_ops import up as bring
    from atoll_ops.prepare import Wish

    host_only("docker compose up -d")
    wish = Wish(ports, _names(only), _names(without), jaeger)
    return bring.up(root(), state_of(state), page_of(mesh), wish, detach=detach)


def _names(given: str) -> tuple[str, ...]:
    return tuple(name for name in given.split(",") if name)


@app.command
def down(*, state: StateOption = None) -> int:
    """Drain and end everything, in reverse order."""
    from atoll_ops import up as bring

    host_only("docker compose down")
    return bring.down(root(), state_of(state))


@app.command
def status(*, as_json: AsJson = False, state: StateOption = None) -> int:
    """How every part is, with an agent or without.

    Args:
        as_json: The whole snapshot as JSON (fields: ops/README.md).
    """
    from atoll_ops import console
    from atoll_ops import status as look

    snapshot = look.snapshot(state_of(state))
    if as_json:
        print(json.dumps(snapshot, indent=2))
    else:
        console.status(snapshot)
    return 0


@app.command
def logs(
    name: str | None = None, /, *, follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    state: StateOption = None,
) -> int:  # fmt: skip
    """The last lines that the parts logged, merged; or one part's (NAME, NAME/N, or agent).

    Args:
        follow: Go on with whatever comes.
    """
    from atoll_ops import logview

    host_only("docker compose logs [-f] [NAME]")
    return logview.show(state_of(state), name, follow=follow)


@app.command
def doctor(*, mesh: MeshOption = None, state: StateOption = None) -> int:
    """Look for what is wrong with this machine, the environments or the state directory."""
    from atoll_ops import doctor as physician

    host_only("docker compose ps")
    return physician.examine(root(), state_of(state), page_of(mesh))


@app.command
def jaeger(*, pin: str | None = None) -> int:
    """Bring Jaeger into the cache now, with progress, and print where its program is.

    Args:
        pin: Print the rows of observability/jaeger/pins.toml for this release instead, as in 2.21.0. (For who maintains
            them.)
    """
    from atoll_ops.jaeger import foreground

    host_only("docker compose up -d jaeger")
    return foreground.print_pins(pin) if pin else foreground.bring_now(root())


@app.command
def reset(*, yes: bool = False, state: StateOption = None) -> int:
    """Forget everything: keys, databases, logs, credentials. Environments and tools stay.

    Args:
        yes: Do not ask. (Without a terminal nobody is asked.)
    """
    from atoll_ops import reset as forget

    host_only("docker compose down --volumes")
    return forget.reset(state_of(state), yes=yes)


# ---- one instance ------------------------------------------------------------------------------------------------


def _act(act: str, target: str, reason: str, state: Path | None, seconds: float | None = None) -> int:
    from atoll_ops import acts

    return acts.carry_out(state_of(state), act, _slot(target), reason, seconds)


def _slot(target: str) -> Slot:
    from atoll_ops.slots import Slot

    try:
        return Slot.parse(target)
    except ValueError as error:
        raise OperationError(str(error)) from error


@app.command
def kill(target: str, /, *, reason: Reason = BY_HAND, state: StateOption = None) -> int:
    """SIGKILL to NAME[/N] now. It is started again at once: this is a fault, not a stop."""
    return _act("kill", target, reason, state)


@app.command
def stop(target: str, /, *, reason: Reason = BY_HAND, state: StateOption = None) -> int:
    """Drain NAME[/N] (10 s, then less and less gently); it stays down until `start`."""
    return _act("stop", target, reason, state)


@app.command
def start(target: str, /, *, reason: Reason = BY_HAND, state: StateOption = None) -> int:
    """Start NAME[/N] that was stopped, or that waits after failures."""
    return _act("start", target, reason, state)


@app.command
def restart(target: str, /, *, reason: Reason = BY_HAND, state: StateOption = None) -> int:
    """Drain NAME[/N] and start it again."""
    return _act("restart", target, reason, state)


@app.command
def pause(target: str, /, *, seconds: float = 60.0, reason: Reason = BY_HAND, state: StateOption = None) -> int:
    """Make NAME[/N] stand still (SIGSTOP) until `resume`.

    Args:
        seconds: It goes on by itself after so long; at most 900.
    """
    return _act("pause", target, reason, state, seconds)


@app.command
def resume(target: str, /, *, reason: Reason = BY_HAND, state: StateOption = None) -> int:
    """Let a paused NAME[/N] go on."""
    return _act("resume", target, reason, state)


# ---- what control knows: configurations, the audit, alarms --------------------------------------------------------


@app.command
def config(target: str, /, *, as_json: AsJson = False, state: StateOption = None) -> int:
    """What the agent tells NAME[/N] when it starts it: its environment, secrets masked.

    Args:
        as_json: As JSON.
    """
    from atoll_ops import opsview

    slot = _slot(target)
    found = ask_control(state, "GET", f"/ops/instances/{slot.name}/{slot.instance}/configuration")["settings"]
    return _told(found) if as_json else opsview.settings(found)


@app.command
def audit(
    *,
    who: str = "",
    act: str = "",
    target: str = "",
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=200))] = 50,
    as_json: AsJson = False,
    state: StateOption = None,
) -> int:
    """Who did what to which instance, why, and how it ended; newest first.

    Args:
        who: Of this person only (an account, or local:UID at the command line).
        act: Of this act only, as kill.
        target: On this target only, as payments/1.
        limit: At most so many, up to 200.
        as_json: As JSON: each record with its trace and its operation.
    """
    from atoll_ops import opsview

    given = {"who": who, "act": act, "target": target, "limit": str(limit)}
    query = urlencode({name: value for name, value in given.items() if value})
    found = ask_control(state, "GET", f"/ops/audit?{query}")["items"]
    return _told(found) if as_json else opsview.audit(found)


@app.command
def alarms(*, as_json: AsJson = False, state: StateOption = None) -> int:
    """What an operator should look at now.

    Args:
        as_json: As JSON.
    """
    from atoll_ops import opsview

    found = ask_control(state, "GET", "/ops/snapshot")["alarms"]
    return _told(found) if as_json else opsview.alarms(found)


def _told(items: list[dict[str, Any]]) -> int:
    print(json.dumps(items, indent=2, ensure_ascii=False))
    return 0


# ---- contracts ---------------------------------------------------------------------------------------------------


@contracts.command(name="check")
def contracts_check(
    *,
    span: Annotated[str, Parameter(name="--range")] = "",
    running: Annotated[bool, Parameter(name="--running", negative="")] = False,
    as_json: AsJson = False,
    state: StateOption = None,
) -> int:
    """Does every consumer's copy fit its publisher's schema? Exits 1 if not. (Rules: docs/how-to/look-into-the-bus.md.)

    Args:
        span: Two commits, A..B (A.. for A and the files as they are): were there additions alone?
        running: And do the live sessions announce what the files say?
    """
    from atoll_ops.contracts import verb

    host_only("./atoll contracts check, in the repository")
    ask = (lambda: list(ask_control(state, "GET", "/ops/contracts")["contracts"])) if running else None
    return verb.run(root(), span, ask, as_json=as_json)


@app.command
def asyncapi(*, output: Path | None = None, mesh: MeshOption = None) -> int:
    """The whole system's events as one AsyncAPI 3.0 document (JSON): topics, schemas, who sends and who receives.

    Args:
        output: Into this file; default: standard output.
    """
    from atoll_ops.contracts import asyncapi as document

    host_only("./atoll asyncapi, in the repository")
    return document.write(root(), page_of(mesh), output)


# ---- accounts, through auth's own administration ------------------------------------------------------------------

Words = Annotated[str, Parameter(allow_leading_hyphen=True)]


@app.command
def users(*words: Words, state: StateOption = None) -> int:
    """People: list | add NAME --role viewer|operator|admin | remove NAME | set-password NAME | set-role NAME ROLE.

    Args:
        words: What to do. A password is asked for on the terminal, or read as one line from standard input.
    """
    return _administer("users", words, state)


@app.command
def clients(*words: Words, state: StateOption = None) -> int:
    """Programs: list | add NAME --scope SCOPE… | remove NAME | set-secret NAME.

    Args:
        words: What to do. A secret is made by auth, and shown once.
    """
    return _administer("clients", words, state)


def _administer(kind: str, words: tuple[str, ...], state: Path | None) -> int:
    from atoll_ops import accounts

    host_only(f"docker compose exec -e ATOLL_DATA=/atoll/data/auth-1 auth /env/bin/python -m atoll_auth {kind} …")
    return accounts.administer(root(), state_of(state), kind, words)


# ---- proving it --------------------------------------------------------------------------------------------------


@app.command
def demo(file: Path | None = None, /, *, rate: float | None = None, state: StateOption = None) -> int:
    """Send a file of real invoices through the gateway, wait for the sagas, compare what was sold with the file.

    Args:
        file: In UCI Online Retail format; default: a small invented sample.
        rate: At most so many requests a second.
    """
    host_only("./atoll demo --state DIR")
    from atoll_ops.demo import run

    return run.demo(state_of(state), file, rate)


@app.command
def test(
    *arguments: Annotated[str, Parameter(allow_leading_hyphen=True)],
    state: StateOption = None,  # noqa: PT028 - a verb, not a pytest test
) -> int:
    """Lint, types, architecture and every test suite, each in its own environment. Logs go to DIR/test.

    Args:
        arguments: Given to pytest, with a project's folder or path to run (default then: the tests that span parts).
    """
    from atoll_ops import suites

    return suites.run(root(), list(arguments), state_of(state).root / "test")


@app.command
def bench(name: str | None = None, /, *arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> int:
    """Run the measurement bench/NAME.py; without a name, list them."""
    from atoll_ops import suites

    return suites.bench(root(), name, list(arguments))


@app.command(show=False)
def agent(
    *, lock: int | None = None, part: str | None = None, state: StateOption = None, mesh: MeshOption = None
) -> int:
    """Supervise the system of a state directory: what `up --detach` leaves behind. With --part, one part: as PID 1.

    Args:
        lock: Descriptor of the agent's lock, held by whoever prepared the state directory.
        part: The one part of this container.
    """
    if part is not None:
        from atoll_ops import container

        return container.run(part, state_of(state), page_of(mesh))
    from atoll_ops import up as bring

    return bring.agent(root(), state_of(state), page_of(mesh), lock)


@app.command(show=False)
def setup(*, owner: int | None = None, state: StateOption = None, mesh: MeshOption = None) -> int:
    """Make the keys of a system in containers, each part's into its own volume.

    Args:
        owner: The uid and gid that the parts run as; this program begins as root, and goes on as that user.
    """
    from atoll_ops import setup as arrange

    return arrange.run(state_of(state), page_of(mesh), owner)


def main() -> int:
    """Run the command line; the exit code."""
    try:
        return int(app(sys.argv[1:], exit_on_error=False, print_error=False) or 0)
    except CycloptsError as error:
        print(f"atoll: {_usage(error)}", file=sys.stderr)
        return WRONG_USAGE
    except OperationError as error:
        print(f"atoll: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:
        raise  # whoever read has had enough
    except OSError as error:  # a full disk, a folder that is a file, a state directory of somebody else's
        print(f"atoll: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 1


def _usage(error: CycloptsError) -> str:
    """What is wrong with the command's words, in a line, and where it is said how they should be."""
    verbs = " ".join(error.command_chain or ())
    return f"{' '.join(str(error).split())} (how it is used: ./atoll {verbs + ' ' if verbs else ''}--help)"
