"""compose.yaml and the Dockerfiles as compose and BuildKit themselves read them.

Both parsers are Go; `reader/` is a small program around them, built when first needed and kept in the user's cache
directory under a hash of its sources. Without Go there is nothing to read with, and the tests are skipped by that name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from left_out import leave_out

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE = REPOSITORY / "compose.yaml"
_SOURCES = Path(__file__).with_name("reader")
_BUILD_SECONDS_MAX = 600


class Unreadable(Exception):  # noqa: N818 - it is the file's fault, not an error of ours
    """The parser refuses the file; the text is the parser's."""


def reader() -> Path:
    """The reader, built if it is not there yet. Skips the test where it cannot be."""
    built = _cache() / f"reader-{_digest()}"
    if built.exists():
        return built
    go = shutil.which("go")
    if go is None:
        leave_out("containers: no Go, which compose's and BuildKit's own parsers are built with")
    built.parent.mkdir(parents=True, exist_ok=True)
    unready = built.with_name(f"{built.name}.{os.getpid()}")
    done = subprocess.run(
        [go, "build", "-trimpath", "-mod=readonly", "-o", str(unready), "."],
        cwd=_SOURCES, env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_BUILD_SECONDS_MAX, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"go build of {_SOURCES}:\n{done.stdout}"
    unready.replace(built)
    return built


def compose(*files: Path) -> dict[str, Any]:
    """The model of a project. Raises Unreadable."""
    model: dict[str, Any] = _read("compose", *files)
    return model


def dockerfile(path: Path) -> list[dict[str, Any]]:
    """The stages of a Dockerfile, each with its steps. Raises Unreadable."""
    stages: list[dict[str, Any]] = _read("dockerfile", path)
    return stages


def context(folder: Path) -> list[str]:
    """The files of a build context, relative to it. Raises Unreadable."""
    files: list[str] = _read("context", folder)
    return files


def _read(what: str, *paths: Path) -> Any:
    command = [str(reader()), what, *map(str, paths)]
    # Nothing of the caller's environment is to decide what the file says: PATH alone, for the runtime.
    done = subprocess.run(
        command, env={"PATH": os.defpath}, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    if done.returncode != 0:
        raise Unreadable(done.stderr.strip())
    return json.loads(done.stdout)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atoll" / "tests"


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:20]
