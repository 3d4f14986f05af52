"""The process in Jaeger's slot: it brings the binary, then becomes it.

So the slot's lock, its pid, its log, and kill, stop and pause mean the same for Jaeger as for any part, while it is
brought as while it runs. How far it is stands in a line in its data directory, which the agent shows.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from atoll_ops import ports
from atoll_ops.errors import OperationError
from atoll_ops.jaeger import settings
from atoll_ops.jaeger.bring import AbsentError, bring
from atoll_ops.jaeger.cache import Binary
from atoll_ops.slots import ABSENT, NOTE

WRONG_CONFIGURATION = 64
INTERRUPTED = 130
#: The ports that Jaeger listens on, by the variable that tells it.
PORTS = {
    "JAEGER_QUERY_PORT": "Jaeger UI",
    "JAEGER_OTLP_GRPC_PORT": "OTLP gRPC",
    "JAEGER_OTLP_HTTP_PORT": "OTLP HTTP",
    "JAEGER_HEALTH_PORT": "Jaeger health",
}
#: A progress that did not change is written again so often: an unchanged line is a sign of life too.
_REPEAT_SECONDS = 2.0


class Note:
    """The line that the agent shows: why it is not ready yet, or never will be."""

    def __init__(self, data: Path) -> None:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = data / NOTE
        self._text, self._at = "", 0.0

    def say(self, text: str) -> None:
        """Replace the line."""
        now = time.monotonic()
        if text != self._text or now - self._at > _REPEAT_SECONDS:
            self._text, self._at = text, now
            passing = self._path.with_suffix(".new")
            with contextlib.suppress(OSError):  # a full disk: nobody sees how far we are
                passing.write_text(text)
                passing.replace(self._path)


def main() -> int:
    """Become Jaeger; or an exit code: 64 wrong settings, 69 absent (the note says why)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a build must not outlive us, nor half a download
    note = Note(Path(os.environ["ATOLL_DATA"]))
    try:
        settings.check(_own_settings(os.environ), "settings")
        note.say("looking for a Jaeger")
        binary = bring(Path.cwd(), note.say)
        _check_ports()
    except AbsentError as absent:
        note.say(str(absent))
        print(f"absent: {absent}", flush=True)
        return ABSENT
    except OperationError as error:
        note.say(str(error))
        print(error, flush=True)
        return WRONG_CONFIGURATION
    except KeyboardInterrupt:
        return INTERRUPTED
    return _become(binary, note)


def _become(binary: Binary, note: Note) -> NoReturn:
    note.say("" if binary.has_ui else f"has no UI: {binary.origin}")
    print(f"jaeger: {binary.path} ({binary.origin})", flush=True)
    storage = os.environ.get(settings.STORAGE, settings.STORAGES[0])
    command = [str(binary.path), *settings.configuration(Path.cwd(), storage)]
    data = Path(os.environ["ATOLL_DATA"]) / "badger"
    os.execve(command[0], command, os.environ | {"JAEGER_DATA": str(data)})  # noqa: S606 - no shell is wanted


def _own_settings(environment: Mapping[str, str]) -> dict[str, str]:
    told = {*PORTS, "JAEGER_HOST"}
    return {name: value for name, value in environment.items() if name.startswith("JAEGER_") and name not in told}


def _check_ports() -> None:
    """Raises AbsentError for a port that another process has: most likely a Jaeger that already runs."""
    for variable, what in PORTS.items():
        port = int(os.environ[variable])
        if not ports.can_bind(port):
            raise AbsentError(
                f"port {port} ({what}) is taken{ports.holder(port)}: if that is a Jaeger, "
                f"./atoll up --jaeger http://{ports.HOST}:{os.environ['JAEGER_QUERY_PORT']} uses it; "
                "else free it, or move every port with --ports BASE"
            )


if __name__ == "__main__":
    sys.exit(main())
