"""`./atoll contracts check`: what was looked at, a line a break, and the exit code."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from atoll_ops.contracts import check
from atoll_ops.contracts.files import Break, Contracts, in_commit, in_folder, plain
from atoll_ops.errors import OperationError
from atoll_ops.logview import harmless

#: Asks control what the live sessions announce.
AskLive = Callable[[], list[dict[str, Any]]]


class Report(msgspec.Struct, frozen=True):
    """What was looked at, and what is wrong."""

    looked_at: list[str]
    breaks: list[Break]
    counts: dict[str, Any]


def run(root: Path, span: str, ask_live: AskLive | None, *, as_json: bool) -> int:
    """Check and print; 1 if there is a break. Raises OperationError where it cannot be looked."""
    report = _report(root, span, ask_live)
    if as_json:
        print(json.dumps({"ok": not report.breaks, **msgspec.to_builtins(report)}, indent=2))
    else:
        _show(report)
    return 1 if report.breaks else 0


def _report(root: Path, span: str, ask_live: AskLive | None) -> Report:
    old, new, names = _spanned(root, span)
    report = Report([names[-1]], check.consistent(new), plain(new))
    if old is not None:
        report.looked_at.append(f"from {names[0]}")
        report.breaks.extend(check.grown(old, new))
    if ask_live is not None:
        sessions = msgspec.convert(ask_live(), list[check.Live])
        report.looked_at.append(f"{len(sessions)} live sessions")
        report.breaks.extend(check.alive(new, sessions, versions_of(root, new)))
    return report


def _spanned(root: Path, span: str) -> tuple[Contracts | None, Contracts, list[str]]:
    """The older contracts if a range was named, the newer, and what they are called."""
    if not span:
        return None, in_folder(root), ["the files"]
    older, dots, newer = span.partition("..")
    if not older or newer.startswith("."):
        raise OperationError(f"--range {span}: expected A..B, or A.. for A and the files as they are")
    if not dots:
        raise OperationError(f"--range {span}: expected two commits, as in {span}..HEAD")
    new = in_commit(root, newer) if newer else in_folder(root)
    return in_commit(root, older), new, [older, newer or "the files"]


def versions_of(root: Path, contracts: Contracts) -> dict[str, str]:
    """The version that each part's project has in the files."""
    found = {}
    for one in (*contracts.publishes, *contracts.consumes):
        page = (root / one.file).parents[2] / "pyproject.toml"
        if one.part not in found and page.is_file():
            found[one.part] = str(tomllib.loads(page.read_text()).get("project", {}).get("version", ""))
    return found


def _show(report: Report) -> None:
    for one in report.breaks:
        place = ": ".join(part for part in (one.file, one.field) if part)
        print(harmless(f"{place}: {one.text}  [{one.rule}]"))
    counts = report.counts
    looked_at = ", ".join(report.looked_at)
    print(
        f"contracts of {counts['parts']} parts ({looked_at}): {counts['publishes']} published,"
        f" {counts['consumes']} consumed, {len(report.breaks)} broken"
    )
