"""Built by Go, where there is no release for the platform or its host cannot be reached.

The module is pinned by observability/jaeger/go.mod and go.sum, and the checksum database stays as the user has it; `go`
refuses what does not fit. The result has no UI: the UI's files are no part of the module.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

from atoll_ops.jaeger.pins import Pins

#: More compilers at once than this want more memory than a laptop has to spare (3.6 GiB with two).
PARALLEL_MAX = 4
BUILD_SECONDS_MAX = 3600.0
_ENDING_SECONDS = 10.0
_SIGN_OF_LIFE_SECONDS = 5.0
_FETCHING = "building: fetching modules"

Say = Callable[[str], None]


class BuildError(Exception):
    """Go could not build it; the text says why."""


def build(pins: Pins, workroom: Path, say: Say) -> Path:
    """Build the binary into `workroom`, in the background of everything else; its path. Raises BuildError."""
    go = shutil.which("go")
    if go is None:
        raise BuildError(f"no `go` on PATH ({needed(pins)} builds it)")
    packages = sum(1 for _ in _lines([go, "list", "-deps", pins.module.package], pins, lambda: say(_FETCHING)))
    version = f"-X github.com/jaegertracing/jaeger/internal/version.latestVersion=v{pins.module.jaeger_version}"
    made = workroom / "jaeger"
    command = [
        go, "build", "-v", "-trimpath", f"-p={_parallel()}", f"-ldflags=-s -w {version}", "-o", str(made),
        pins.module.package,
    ]  # fmt: skip
    progress = _Progress(packages, say)
    for _ in _lines(command, pins, progress.tell):
        progress.one_more()
    return made


def needed(pins: Pins) -> str:
    """Which Go is wanted, as in `Go 1.25 or newer`."""
    with contextlib.suppress(OSError):
        for line in (pins.folder / "go.mod").read_text().splitlines():
            if line.startswith("go "):
                return f"Go {line.split()[1]} or newer"
    return "Go"


class _Progress:
    """Packages compiled, of those that the program has. The compiler's cache makes it jump, never go back."""

    def __init__(self, packages: int, say: Say) -> None:
        self._packages = max(1, packages)
        self._compiled = 0
        self._say = say

    def one_more(self) -> None:
        self._compiled += 1
        self.tell()

    def tell(self) -> None:
        percent = min(99, 100 * self._compiled // self._packages)  # the last hundredth is the linker's
        self._say(f"building {percent} %")


def _lines(command: list[str], pins: Pins, tell: Callable[[], None]) -> Iterator[str]:
    """Run `go`, politely, and give each line that it prints; `tell`, at first and now and then, shows that we live."""
    tell()
    nice = [shutil.which("nice") or "", "-n", "10"]
    process = subprocess.Popen(
        [*(nice if nice[0] else []), *command], cwd=pins.folder, env=_variables(), text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said: list[str] = []
    heartbeat = Thread(target=_show_life, args=(process, tell), daemon=True)
    heartbeat.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said = [*said[-5:], line.strip()]
            yield line
        code = process.wait()
    finally:
        _end(process)
        heartbeat.join()
    if code != 0:
        raise BuildError(f"go {command[1]}: {_cause(said)}")


def _show_life(process: subprocess.Popen[str], tell: Callable[[], None]) -> None:
    deadline = time.monotonic() + BUILD_SECONDS_MAX
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SIGN_OF_LIFE_SECONDS)
            return
        tell()
        if time.monotonic() > deadline:
            process.kill()


def _end(process: subprocess.Popen[str]) -> None:
    """End `go` if it still runs. Interrupted, it lets its compilers finish the file that they are at."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _cause(said: list[str]) -> str:
    """The line that says why; go prints it last, behind what it was busy with."""
    telling = [line for line in said if line and not line.startswith("go: downloading")]
    return (telling or ["it failed, and said nothing"])[-1][:300]


def _parallel() -> int:
    return max(1, min(PARALLEL_MAX, os.cpu_count() or 1))


def _variables() -> dict[str, str]:
    """The user's environment, with what would make another program of the same pins taken out."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GOFLAGS", "GOOS", "GOARCH", "GOWORK")}
    return kept | {"GOFLAGS": "-mod=readonly", "GOWORK": "off", "CGO_ENABLED": "0"}
