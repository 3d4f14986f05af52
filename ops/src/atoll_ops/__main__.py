"""`python -m atoll_ops VERB`: the command line and the agent; `python -m atoll_ops control`: the operators' API."""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130


def main() -> int:
    if sys.argv[1:] == ["control"]:
        from atoll_ops.control import __main__ as control

        return control.main()
    try:
        return _command_line()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `./atoll logs | head`
        sys.stderr.close()
        return 0


def _command_line() -> int:
    """All that asks to end is one way out, with every `finally`: Ctrl-C, SIGTERM, a closed terminal.

    While modules load there is nothing to tidy, and an exception in the middle of that may come out as another one (a
    class body makes it a RuntimeError): the process ends where it stands. `signal` is itself such a module.
    """
    import signal

    # `nohup ./atoll up` means to outlive its terminal; a script's background job has no Ctrl-C.
    heard = [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    for number in (signal.SIGTERM, *heard):
        signal.signal(number, lambda *_: os._exit(INTERRUPTED))
    from atoll_ops import cli

    for number in (signal.SIGTERM, *heard):
        signal.signal(number, signal.default_int_handler)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
