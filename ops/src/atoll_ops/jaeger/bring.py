"""The order in which a Jaeger is looked for, and what is said where there is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from atoll_ops.jaeger import build, pins, release
from atoll_ops.jaeger.cache import Binary, Place
from atoll_ops.jaeger.pins import Pins
from atoll_ops.jaeger.settings import configuration

Say = Callable[[str], None]
_TRIAL_SECONDS_MAX = 20.0


class AbsentError(Exception):
    """This machine cannot have one; the text says why, and what to do."""


def bring(folder: Path, say: Say, place: Place | None = None) -> Binary:
    """A Jaeger that takes our configuration, brought here if need be. `folder` is observability/jaeger.

    `say` hears how far it is. Raises AbsentError; OperationError where the pins themselves cannot be read.
    """
    wanted = pins.read(folder)
    place = place or Place(wanted.digest)
    found = on_path(folder) or place.find()
    if found is not None:
        return found
    try:
        with place.claimed(say) as tell:
            return place.find() or _make(wanted, place, tell)  # whoever was first has made it meanwhile
    except OSError as error:
        raise AbsentError(f"the cache cannot be written: {error.strerror}: {error.filename}") from error


def on_path(folder: Path) -> Binary | None:
    """The user's own `jaeger`, if it is a 2.x that takes our configuration."""
    path = shutil.which("jaeger")
    if path is None or unfit(Path(path), folder):
        return None
    return Binary(Path(path), f"{path}, on PATH")


def prospect(folder: Path) -> str:
    """In words, without any network: what the next start would use or try."""
    wanted = pins.read(folder)
    found = on_path(folder) or Place(wanted.digest).find()
    if found is not None:
        return f"{found.path} ({found.origin})"
    ways = [f"the release {wanted.release.version}"] if wanted.archive else []
    ways += ["a build by Go"] if shutil.which("go") else []
    if not ways:
        return f"none can be had: {_no_release(wanted)}, and no `go` on PATH; {_advice(wanted)}"
    return f"not here yet; the next `./atoll up` tries {', then '.join(ways)}"


def _make(wanted: Pins, place: Place, say: Say) -> Binary:
    reasons = []
    for way in (_from_release, _by_go):
        with place.workroom() as workroom:
            try:
                made, origin = way(wanted, workroom, say)
            except (release.ReleaseError, build.BuildError) as failed:
                reasons.append(str(failed))
                continue
            if why := unfit(made, wanted.folder):
                reasons.append(f"{origin}: {why}")
                continue
            return place.put(made, origin)
    raise AbsentError(f"{'; '.join(reasons)}: {_advice(wanted)}")


def _from_release(wanted: Pins, workroom: Path, say: Say) -> tuple[Path, str]:
    if wanted.archive is None:
        raise release.ReleaseError(_no_release(wanted))
    made = release.fetch(wanted, wanted.archive, workroom, say)
    made.chmod(0o755)
    return made, f"official release {wanted.release.version}"


def _by_go(wanted: Pins, workroom: Path, say: Say) -> tuple[Path, str]:
    return build.build(wanted, workroom, say), f"built from source {wanted.module.jaeger_version}"


def _no_release(wanted: Pins) -> str:
    return f"no pinned release for {wanted.here}"


def _advice(wanted: Pins) -> str:
    return f"install {build.needed(wanted)}, or use one that runs: ./atoll up --jaeger URL"


def unfit(binary: Path, folder: Path) -> str:
    """Why this binary is not the Jaeger that we can run, or nothing: it must be a 2.x and take our files."""
    try:
        said = _ask(binary, "version").stdout.strip().rpartition("\n")[2]
        version = str(json.loads(said)["gitVersion"])
        if version and not version.startswith("v2."):
            return f"it is {version}, not 2.x"
        trial = _ask(binary, "validate", *configuration(folder, "badger"))
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        return f"it is no Jaeger 2.x: {error}"
    return "" if trial.returncode == 0 else f"it does not take our configuration: {_last(trial.stderr)}"


def _ask(binary: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(binary), *words], env=os.environ | {"JAEGER_DATA": "/nonexistent"}, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=_TRIAL_SECONDS_MAX, check=False,
    )  # fmt: skip


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "no word why"
