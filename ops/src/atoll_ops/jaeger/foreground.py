"""`./atoll jaeger`: bring it now and see how far it is; and the rows of a release, for who maintains the pins."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

from atoll_ops.errors import OperationError
from atoll_ops.jaeger import release
from atoll_ops.jaeger.bring import AbsentError, bring
from atoll_ops.jaeger.pins import Archive

FOLDER = Path("observability") / "jaeger"
PLATFORMS = ("linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64")


class _Lines:
    """Progress on standard error: one line on a terminal, else a line for every ten percent."""

    def __init__(self) -> None:
        self._shown = self._step = ""

    def say(self, text: str) -> None:
        step = text.removesuffix(" %")
        step = step[:-1] if step != text else text
        if sys.stderr.isatty() and text != self._shown:
            print(f"\r\033[Kjaeger         {text}", end="", file=sys.stderr, flush=True)
        elif step != self._step and not sys.stderr.isatty():
            print(f"jaeger         {text}", file=sys.stderr, flush=True)
        self._shown, self._step = text, step

    def end(self) -> None:
        if self._shown and sys.stderr.isatty():
            print(file=sys.stderr)


def bring_now(root: Path) -> int:
    """Bring it, and print its path on standard output. Raises OperationError where it cannot be had."""
    lines = _Lines()
    try:
        binary = bring(root / FOLDER, lines.say)
    except AbsentError as absent:
        raise OperationError(f"jaeger is absent: {absent}") from absent
    finally:
        lines.end()
    print(f"jaeger         {binary.origin}", file=sys.stderr)
    print(binary.path)
    return 0


def print_pins(version: str) -> int:
    """Fetch a release for every platform, check the program in it against the release's own checksums, print the rows.

    The published file names the checksums of what is in an archive; what we pin is the archive. Raises OperationError
    where something does not fit.
    """
    print(f'[release]\nversion = "{version}"')
    lines = _Lines()
    for here in PLATFORMS:
        try:
            archive = _published(version, here, lines)
        except release.ReleaseError as error:
            raise OperationError(str(error)) from error
        finally:
            lines.end()
        print(f'\n[release.archives.{here}]\nsha256 = "{archive.sha256}"\nbytes = {archive.bytes}', flush=True)
    return 0


def _published(version: str, here: str, lines: _Lines) -> Archive:
    folder = f"jaeger-{version}-{here}"
    base = f"{release.releases_url()}/v{version}/{folder}"
    with tempfile.TemporaryDirectory(prefix="atoll-pin-") as made:
        packed, sums = Path(made) / f"{folder}.tar.gz", Path(made) / "sums"
        found = release.fetch_unpinned(f"{base}.tar.gz", packed, lambda text: lines.say(f"{here}: {text}"))
        release.fetch_unpinned(f"{base}.sha256sum.txt", sums, lines.say)
        program = release.unpack(packed, folder, Path(made) / "jaeger")
        digest = hashlib.sha256(program.read_bytes()).hexdigest()
        if digest not in sums.read_text(errors="replace").split():
            raise release.ReleaseError(f"{folder}/jaeger is {digest}, which {base}.sha256sum.txt does not name")
    return found
