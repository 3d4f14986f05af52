"""Starts a program many times, and its imports once: `python nursery.py MODULE`, in the environment of MODULE.

A line of JSON on stdin, `{"environment": {…}, "log": PATH}`, forks a child that runs `python -m MODULE` from where its
imports are done; `{"pid": …}` and, when it has ended, `{"exit": …}` (negative: by that signal) come on stdout. One
child at a time. A broker boots in a tenth of the time so, which is what lets hundreds of power cuts fit into minutes;
the process is as real as any: its own pid, sockets, files and end.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import sys
import traceback
from typing import Any


def main() -> None:
    """Until stdin ends; then the child dies too."""
    module = sys.argv[1]
    importlib.import_module(f"{module}.__main__")
    while line := sys.stdin.readline():
        request: dict[str, Any] = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(module, request["environment"], request["log"])
        _say(pid=pid)
        _say(exit=_ended(pid))


def _become(module: str, environment: dict[str, str], log: str) -> None:
    os.environ.update(environment)
    target = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for descriptor in (1, 2):
        os.dup2(target, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = [module]
    del sys.modules[f"{module}.__main__"]  # it runs now, and under another name
    code = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _ended(pid: int) -> int:
    """Its exit code; it is killed if whoever asked for it goes first."""
    watch = os.pidfd_open(pid)
    ready, _, _ = select.select([watch, sys.stdin], [], [])
    if watch not in ready:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(watch)
    return os.waitstatus_to_exitcode(status)


def _say(**fields: int) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
