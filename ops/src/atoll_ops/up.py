"""`up` and `down`: bring a system up in the foreground or behind it, and take it down."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from atoll_ops import client, console, links, mesh, prepare
from atoll_ops.agent import Agent, filled_slots, tail
from atoll_ops.errors import AgentGoneError, OperationError
from atoll_ops.launch import Plan
from atoll_ops.prepare import Wish
from atoll_ops.slots import is_held
from atoll_ops.state import State

INTERRUPTED = 130
_SOCKET_SECONDS = 15.0
#: The longest silence between two lines of a start or a drain: an agent that says nothing for so long hangs.
_SILENCE_SECONDS = 120.0
_LOOK_EVERY_SECONDS = 0.02


def up(root: Path, state: State, page: Path, wish: Wish, *, detach: bool) -> int:
    """Bring the system up: in the foreground until Ctrl-C, or with `detach` until it is ready. The exit code."""
    whole = mesh.read(page, root)
    lock = prepare.own(state)
    plan = prepare.plan(root, state, whole, wish, console.say)
    plan.workshop().sync(plan.environments(), console.say)
    return _behind(plan, lock) if detach else _in_front(plan)


def _in_front(plan: Plan) -> int:
    return asyncio.run(_live_in_front(plan))


async def _live_in_front(plan: Plan) -> int:
    def show(happened: dict[str, Any]) -> None:
        if happened["event"] == "draining":
            print(flush=True)  # the terminal has written ^C
            console.say("draining", f"{happened['parts']} parts; Ctrl-C again ends them at once")
        console.event(happened)
        if happened["event"] == "up":
            console.links(links.of(plan, supervised.snapshot()), happened["seconds"])
            console.say("", "Ctrl-C ends it")
        if happened["event"] == "end" and happened["code"] == 0:
            console.say("down", "everything has ended")

    supervised = Agent(plan, show)
    return await supervise(supervised)


async def supervise(agent: Agent) -> int:
    """Run an agent until it ends by a signal, by `down`, or because a part did not come up."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # under nohup it stays ignored
            loop.add_signal_handler(number, agent.end)
    if os.getpid() == 1:
        loop.add_signal_handler(signal.SIGCHLD, agent.reap)
        agent.reap()
    return await agent.run()


def _behind(plan: Plan, lock: int) -> int:
    state = plan.state
    agent = _start_agent(plan, lock)
    try:
        _await_socket(state, agent)
        code = _follow_up(plan)
        if code != 0:
            agent.wait(_SILENCE_SECONDS)  # what failed to come up has ended whole before this command does
        return code
    except KeyboardInterrupt:
        _finish_agent(state, agent)
        return INTERRUPTED
    except AgentGoneError as gone:
        last = "\n    ".join(tail(state.logs / "agent.log"))
        raise AgentGoneError(f"the agent ended while it came up ({gone}); its log ends with\n    {last}") from gone


def _start_agent(plan: Plan, lock: int) -> subprocess.Popen[bytes]:
    """The agent as a process of its own session. It inherits the lock, so there is no moment without an owner."""
    log = os.open(plan.state.logs / "agent.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        agent = subprocess.Popen(
            [sys.executable, "-P", "-m", "atoll_ops", "agent", "--state", str(plan.state.root), "--lock", str(lock)],
            cwd="/", env=os.environ | {"ATOLL_ROOT": str(plan.root)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, pass_fds=(lock,),
        )  # fmt: skip
    finally:
        os.close(log)
    prepare.note_owner(lock, agent.pid)
    os.close(lock)
    return agent


def _await_socket(state: State, agent: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _SOCKET_SECONDS
    while not state.agent_socket.exists():
        if agent.poll() is not None or time.monotonic() > deadline:
            raise AgentGoneError(f"exit code {agent.returncode}")
        time.sleep(_LOOK_EVERY_SECONDS)


def _follow_up(plan: Plan) -> int:
    for happened in client.stream(plan.state, _SILENCE_SECONDS, do="follow"):
        console.event(happened)
        if happened["event"] == "up":
            console.links(links.of(plan, client.ask(plan.state, do="snapshot")), happened["seconds"])
            return 0
        if happened["event"] == "end":
            return int(happened["code"]) or 1
    raise AgentGoneError("it closed the connection")


def _finish_agent(state: State, agent: subprocess.Popen[bytes]) -> None:
    """Ctrl-C before everything was up: take it down again."""
    agent.send_signal(signal.SIGTERM)
    try:
        agent.wait(_SILENCE_SECONDS)
    except KeyboardInterrupt:
        agent.send_signal(signal.SIGTERM)  # twice: stop being patient
        agent.wait(_SILENCE_SECONDS)
    console.say("ended", f"nothing runs in {state.root}")


def agent(root: Path, state: State, page: Path, lock: int | None) -> int:
    """The agent's process: with a lock, what `up --detach` prepared; without one, all by itself."""
    if lock is not None:
        os.set_inheritable(lock, False)
        return asyncio.run(supervise(Agent(prepare.again(root, state))))
    own = prepare.own(state)
    plan = prepare.plan(root, state, mesh.read(page, root), Wish(), console.say)
    plan.workshop().sync(plan.environments(), console.say)
    try:
        return asyncio.run(supervise(Agent(plan, console.event)))
    finally:
        os.close(own)


def down(root: Path, state: State) -> int:
    """Drain everything, with a line a part. Works without an agent too."""
    if is_held(state.agent_lock):
        _down_by_agent(state)
        return 0
    system = state.read_system()
    running = filled_slots(state, list(system.kinds)) if system else {}
    if not running:
        console.say("down", f"nothing runs in {state.root}")
        return 0
    lock = prepare.own(state)
    try:
        plan = prepare.without_page(root, state)
        console.say("agent gone", f"ending {len(running)} parts that still run")
        asyncio.run(_drain_orphans(plan))
    finally:
        os.close(lock)
    return 0


async def _drain_orphans(plan: Plan) -> None:
    await Agent(plan, console.event).drain_orphans()


def _down_by_agent(state: State) -> None:
    try:
        for happened in client.stream(state, _SILENCE_SECONDS, do="down"):
            console.event(happened)
    except AgentGoneError:
        _signal_owner(state)  # an `up` that still installs has no socket yet
    deadline = time.monotonic() + _SILENCE_SECONDS
    while is_held(state.agent_lock):
        if time.monotonic() > deadline:
            raise OperationError(f"the agent (pid {prepare.owner(state)}) does not end; kill it, then `./atoll down`")
        time.sleep(_LOOK_EVERY_SECONDS)
    console.say("down", "everything has ended")


def _signal_owner(state: State) -> None:
    owner = prepare.owner(state)
    if owner is not None:
        os.kill(owner, signal.SIGTERM)
