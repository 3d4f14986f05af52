"""`python -m atoll_ops VERB`: the command line and the agent; `python -m atoll_ops control`: the operators' API."""

from __future__ import annotations

import signal
import sys

INTERRUPTED = 130


def main() -> int:
    if sys.argv[1:] == ["control"]:
        from atoll_ops.control import __main__ as control

        return control.main()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both ask to end: one way out, with every `finally`
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup ./atoll up` means to outlive its terminal
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        from atoll_ops import cli  # it takes a while: Ctrl-C may come in the middle of it

        return cli.main()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `./atoll logs | head`
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
