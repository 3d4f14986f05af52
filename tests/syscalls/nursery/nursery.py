"""Parts that are imported already, one fork a wish: what a kill at every syscall needs is hundreds of quick starts.

Run by the interpreter of a part's environment: `nursery.py MODULE`, where MODULE has a `main()`. Standard input has one
JSON object a line, `{"environment": {…}, "folder": "…", "log": "…", "plant": "…" or null, "held": false}`; the answer
is one line, the pid. A child is the part as `python -m MODULE` would run it, but for its imports, which it has got. It
dies with the nursery. `plant` is a Python file that is run in the child first (docs/decisions/0005). A held child stops
before its `main()` until somebody sends SIGCONT, so that a tracer sees its first syscall.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import runpy
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

_SET_PARENT_DEATH_SIGNAL = 1
_SET_NAME = 15
_libc = ctypes.CDLL(None)


def main() -> None:
    part = importlib.import_module(sys.argv[1])
    threading.Thread.run = _named(threading.Thread.run)  # type: ignore[method-assign]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children here: they are watched by pidfd
    _answer("ready")
    for line in sys.stdin:
        assert threading.active_count() == 1, "a fork would lose the other threads"
        wish = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(part.main, wish)
        _answer(str(pid))


def _answer(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _named(run: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """Threads show their names to the kernel, as newer Pythons do by themselves: who traces one must find it."""

    def named(self: threading.Thread) -> None:
        _libc.prctl(_SET_NAME, self.name.encode()[:15], 0, 0, 0)
        run(self)

    return named


def _become(part: Callable[[], object], wish: dict[str, Any]) -> NoReturn:
    _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.chdir(wish["folder"])
    for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (_log(wish["log"]), 1)):
        os.dup2(source, target)
        os.close(source)
    os.dup2(1, 2)
    os.environ.update(wish["environment"])
    if wish["plant"]:
        runpy.run_path(wish["plant"])
    if wish["held"]:
        os.kill(os.getpid(), signal.SIGSTOP)
    code: object = 1
    try:
        code = part()
    except SystemExit as end:
        code = end.code
    finally:
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _log(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


if __name__ == "__main__":
    main()
